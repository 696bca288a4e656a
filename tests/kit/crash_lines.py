"""Lines of the log that say that something is wrong with the server itself."""

from __future__ import annotations

import re

ALTERNATIVES = (
    "Traceback",
    # That a target broke off is no fault of the server's.
    "Error in handler for (?!.*TargetError)",
    "Error in the event loop: ",
    "Error while ending that: ",
    "WORKER TIMEOUT",
    "hangs",
    "can't be compacted",
    "failed: .*; trying again",
    "[Mm]anagement process failed",
)
CRASH = re.compile("|".join(ALTERNATIVES))
"""Found in each of them; what ``scripts/soak`` and ``scripts/chaos`` look for."""
