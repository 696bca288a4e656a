"""Workers that an earlier version of the arbiter has forked, as this one looks after them."""

from __future__ import annotations

import os
import time

from chp_gevent.master.handover import WorkerState
from chp_gevent.shared.segment import CAME_UP, Segment


class AdoptedWorker:
    """A worker of an earlier version; the attributes are those of ``ProxyWorker``."""

    def __init__(self, state: WorkerState, segment: Segment) -> None:
        self.pid = state.pid
        self.age = state.age
        self.row_index = state.row
        self.row = segment.row(state.row)
        self.requests_before = state.requests_before
        self.tmp = _Heartbeat(state.heartbeat)
        self.aborted = False
        self.is_noted = True
        self.made_at = state.made_at

    @property
    def lifetime(self) -> float:
        """Seconds since the worker was made."""
        return time.monotonic() - self.made_at

    @property
    def came_up(self) -> bool:
        """Whether the worker has begun to accept connections."""
        return bool(self.row[CAME_UP])


class _Heartbeat:
    """The file whose time tells when a worker was last at work (gunicorn's ``WorkerTmp``)."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def fileno(self) -> int:
        return self._descriptor

    def last_update(self) -> float:
        """Return when that was, by the monotonic clock, in seconds."""
        return os.fstat(self._descriptor).st_mtime

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
