"""What the arbiter looks at of a worker, whichever version of it has forked that."""

from __future__ import annotations

import time

from chp_gevent.shared.segment import CAME_UP


class Supervised:
    """A worker, as the arbiter knows it.

    Attributes:
        row_index: the worker's row in the segment.
        row: that row.
        requests_before: requests in that row before this worker.
        made_at: when the arbiter made it, by the monotonic clock, in seconds.
        is_noted: whether the arbiter has seen that it accepts.
    """

    row_index: int = 0
    row: memoryview[int]
    requests_before: int = 0
    made_at: float = 0.0
    is_noted: bool = False

    @property
    def lifetime(self) -> float:
        """Seconds since the arbiter made this worker."""
        return time.monotonic() - self.made_at

    @property
    def came_up(self) -> bool:
        """Whether the worker has begun to accept connections."""
        return bool(self.row[CAME_UP])
