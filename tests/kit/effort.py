"""How often a test does the same: some times in scripts/test, more often where that is asked for.

``TEST_THOROUGH=yes scripts/test`` asks for it, as scripts/release does.
"""

from __future__ import annotations

import os

IS_THOROUGH = bool(os.environ.get("TEST_THOROUGH"))


def rounds(usual: int, thorough: int) -> int:
    """Return how often to do something."""
    return thorough if IS_THOROUGH else usual
