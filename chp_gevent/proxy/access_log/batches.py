"""The access log of a process: lines are collected, and written together.

No request waits for that. On standard output the lines are written as those of the log are, at
once or never (``log_output``). While a file takes its time (``access_file``), lines wait, up to a
limit. What is beyond is dropped, counted and told.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any, Final, Protocol

from chp_gevent.http.access_entry import AccessEntry
from chp_gevent.proxy.access_log.lines import AccessLines
from chp_gevent.runtime.log_output import Output, whole_pieces

log = logging.getLogger("chp_gevent.proxy")

BATCH: Final = 512
"""Lines that are written without waiting for more."""
BATCH_AFTER: Final = 0.25
"""Seconds that a line waits for others."""
MOST_WAITING: Final = 20_000
"""Lines that wait for a slow disk, some 4 MB; more are dropped."""
TOLD_AFTER: Final = 10.0
"""Seconds between two lines of the log about dropped ones."""
# Seconds that a process waits at its end for its last lines to be written.
_LAST_WRITE: Final = 2.0


class Sink(Protocol):
    """Takes batches of lines. ``longest`` is how many bytes of a line it takes whole."""

    longest: int

    @property
    def ready(self) -> bool:
        """Whether it takes another batch now."""

    def write(self, lines: list[str]) -> None:
        """Take a batch; only when ``ready``. Raises nothing."""

    def reopen(self) -> None:
        """Open what it writes to anew, soon; may be called at any point of the program."""

    def losses(self) -> tuple[int, str]:
        """Return how many lines were lost since this was asked last, and why."""


class OutputSink:
    """Writes to standard output, which tells of its losses itself, with those of the log."""

    ready = True

    def __init__(self, output: Output) -> None:
        self._output = output
        self.longest = output.whole

    def write(self, lines: list[str]) -> None:
        """See ``Sink``."""
        for piece in whole_pieces("".join(lines).encode(), self.longest):
            if not self._output.put(piece):
                # Each line counts, as if it had been written alone.
                self._output.lost += piece.count(b"\n") - 1

    def reopen(self) -> None:
        """See ``Sink``."""

    def losses(self) -> tuple[int, str]:
        """See ``Sink``."""
        return 0, ""


class AccessLog:
    """The access log of a process; called with each request that is over.

    Args:
        lines: what they look like.
        sink: what writes them.
        timer: one of the event loop that repeats after ``BATCH_AFTER``; not started yet.
    """

    def __init__(self, lines: AccessLines, sink: Sink, timer: Any) -> None:
        self._lines = lines
        self._sink = sink
        self._timer = timer
        self._waiting: list[str] = []
        self._dropped = 0
        self._told = float("-inf")

    def __call__(self, entry: AccessEntry) -> None:
        """Take note of a request."""
        waiting = self._waiting
        if len(waiting) >= MOST_WAITING:
            self._dropped += 1
            return
        waiting.append(self._lines.line(entry, self._sink.longest))
        if len(waiting) == 1:
            # Not start(): a timer that has rung would ring at once.
            self._timer.again(self._flush)
        elif len(waiting) % BATCH == 0:
            self._flush()

    def _flush(self) -> None:
        if not self._waiting or not self._sink.ready:
            return
        self._timer.stop()
        batch, self._waiting = self._waiting, []
        self._sink.write(batch)

    def reopen(self) -> None:
        """Open the file anew, soon (SIGUSR1); may be called at any point of the program."""
        self._sink.reopen()

    def look_after(self, now: float) -> None:
        """Say what was dropped, if that has not just been said; called once a second."""
        lost, reason = self._sink.losses()
        if self._dropped and not reason:
            reason = "it is written too slowly"
        self._dropped += lost
        if self._dropped and now - self._told >= TOLD_AFTER:
            self._told = now
            log.warning("%d lines of the access log were dropped: %s", self._dropped, reason)
            self._dropped = 0

    def close(self, sleep: Callable[[float], None] = time.sleep) -> None:
        """Write what is left, at the end of the process; waits for it, but not for long."""
        deadline = time.monotonic() + _LAST_WRITE
        while time.monotonic() < deadline:
            self._flush()
            if not self._waiting and self._sink.ready:
                break
            sleep(0.01)
        self._timer.stop()
