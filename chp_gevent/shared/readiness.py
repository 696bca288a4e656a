"""Whether a server is ready, as workers and management process say it alike.

``/_chp_ready`` asks whether it has its routes; it does not depend on Redis, or else all servers
that share it were taken out of service at once when that is away. ``/_chp_ready?current`` asks
whether it has all that other servers may have confirmed.
"""

from __future__ import annotations

import json
import time
from typing import Final

from chp_gevent.shared.segment import (
    CURRENT_UNTIL,
    FOR_EVER,
    STORE_CHANGE,
    STORE_EPOCH,
    TABLE_LOADED,
)

READY_PATH: Final = "/_chp_ready"
CURRENT_PATH: Final = "/_chp_ready?current"
READY_PATHS: Final = frozenset((READY_PATH, CURRENT_PATH))


def readiness(words: memoryview[int], target: str) -> tuple[bool, bytes]:
    """Return whether the server is ready in the way that is asked for, and JSON that says so.

    Args:
        words: the header of the segment.
        target: the request target, one of ``READY_PATHS``.
    """
    is_loaded = bool(words[TABLE_LOADED])
    until = words[CURRENT_UNTIL]
    is_current = is_loaded and time.clock_gettime(time.CLOCK_BOOTTIME) * 1000 < until
    state: dict[str, object] = {"loaded": is_loaded, "current": is_current}
    if until != FOR_EVER:
        state |= {"epoch": words[STORE_EPOCH], "change": words[STORE_CHANGE]}
    return (is_current if target == CURRENT_PATH else is_loaded), json.dumps(state).encode()
