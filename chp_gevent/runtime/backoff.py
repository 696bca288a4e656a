"""When to try again what has failed. Pure."""

from __future__ import annotations

import time
from collections.abc import Callable


class Backoff:
    """Pauses that double with each failure in a row.

    Args:
        first: seconds of the first pause.
        longest: what no pause is longer than, in seconds.
        clock: returns monotonic time in seconds.
    """

    def __init__(
        self,
        first: float = 0.25,
        longest: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._first = first
        self._longest = longest
        self._clock = clock
        self._pause = 0.0
        self._until = float("-inf")

    @property
    def is_over(self) -> bool:
        """Whether the pause is over, or there is none."""
        return self._clock() >= self._until

    def failed(self) -> float:
        """Take note of a failure; return the pause before the next attempt, in seconds.

        Failures during a pause are those of the same attempt and make it no longer.
        """
        if self.is_over:
            self._pause = min(self._longest, self._pause * 2 or self._first)
            self._until = self._clock() + self._pause
        return self._pause

    def wait(self, seconds: float) -> None:
        """Have a pause that no failure is the reason for."""
        self._until = self._clock() + seconds

    def succeeded(self) -> None:
        """Take note of a success: the next pause is the first one again."""
        self._pause = 0.0
        self._until = float("-inf")
