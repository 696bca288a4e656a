"""What fails again and again is logged now and then."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

from chp_gevent.runtime.tracebacks import log_traceback

REPEATED_AFTER: Final = 30.0
"""Seconds after which the same trouble is logged again."""


class Troubles:
    """Remembers which tasks are failing, and why.

    Args:
        log: where a trouble is logged, in one line.
        clock: returns monotonic time in seconds.
    """

    def __init__(self, log: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._clock = clock
        # The reason and when it was logged, by task.
        self._noted: dict[str, tuple[str, float]] = {}

    def note(self, task: str, error: Exception) -> None:
        """Log that a task has failed, unless it fails as before and that was logged just now."""
        reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        now = self._clock()
        before, logged_at = self._noted.get(task, ("", 0.0))
        if reason != before or now - logged_at > REPEATED_AFTER:
            self._noted[task] = (reason, now)
            self._log.error("%s failed: %s; trying again", task, reason)
            log_traceback(self._log, error)

    def end(self, task: str) -> None:
        """Take note that a task has succeeded: its next failure is logged at once."""
        self._noted.pop(task, None)
