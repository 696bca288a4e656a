"""Workers that an earlier version of the arbiter has forked, as this one looks after them."""

from __future__ import annotations

import os

from gunicorn.workers.workertmp import WorkerTmp

from chp_gevent.master.handover import WorkerState
from chp_gevent.proxy.supervised import Supervised
from chp_gevent.shared.segment import Segment


class AdoptedWorker(Supervised):
    """A worker of an earlier version; with ``Supervised``'s attributes, gunicorn's of a worker."""

    def __init__(self, state: WorkerState, segment: Segment) -> None:
        self.pid = state.pid
        self.age = state.age
        self.row_index = state.row
        self.row = segment.row(state.row)
        self.requests_before = state.requests_before
        self.made_at = state.made_at
        self.is_noted = True
        self.tmp = _AdoptedHeartbeat(state.heartbeat)
        self.aborted = False


class _AdoptedHeartbeat(WorkerTmp):
    """The heartbeat of such a worker: a file that is open already."""

    def __init__(self, descriptor: int) -> None:
        self._tmp = os.fdopen(descriptor, "w+b", 0)
