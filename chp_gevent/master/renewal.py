"""The replacement of all workers by new ones, as far as it has got. Pure."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

TIMEOUT: Final = 20.0
"""Seconds that new workers have to come up. Without them the old ones go on."""


class Renewal:
    """The replacement.

    Args:
        old: pids of the workers that are to be replaced.
        clock: returns monotonic time in seconds.

    Attributes:
        old: as above, those that have ended left out.
    """

    def __init__(
        self,
        old: frozenset[int],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.old = old
        self._clock = clock
        self._deadline = clock() + TIMEOUT

    @property
    def is_overdue(self) -> bool:
        """Whether the new workers should have come up by now."""
        return self._clock() > self._deadline
