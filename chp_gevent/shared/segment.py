"""The shared segment: numbers that the processes of one server show each other.

One memory file without a name, made by the arbiter, inherited over ``fork``, and kept when the
arbiter becomes another version of itself: nothing is left behind, and no other user can reach it.
Three parts, each page-aligned:

- the header: u64 words named in ``HEADER_WORDS``, written by the management process;
- one row of u64 words per worker: those named in ``ROW_WORDS``, then one counter per
  response status. A worker writes only its own row;
- one f64 per route, the Unix time of its last activity, written by any process.

While a server is upgraded, processes of two versions have it. So what is added goes to the end of
the words of the header or of a row, where there were zeros, or to a memory file of its own; and
whatever gives what is there another meaning or place raises ``LAYOUT``.

Every write is one aligned 8-byte store, so a reader sees the old number or the new one,
never a mixture, and a process that dies leaves nothing half-written. Pages that nobody
touched take no memory.
"""

from __future__ import annotations

import mmap
import os
import weakref
from typing import Final

from chp_gevent.shared.memory_file import memory_file

WORD: Final = 8
PAGE: Final = 4096

HEADER_WORDS: Final = (
    # The number of the last published change of the table.
    "generation",
    # The journal's bookkeeping, explained in ``shared/journal.py``.
    "epoch",
    "oldest_epoch",
    "base_generation_0",  # of file 0; ``words[BASE_GENERATION + file]``, as the next two
    "base_generation_1",
    "base_offset_0",
    "base_offset_1",
    "end_0",
    "end_1",
    # The lowest activity slot that no route has had yet.
    "fresh_slot",
    # When the management process was last seen at work: monotonic clock, milliseconds.
    "heartbeat",
    # 1 once the whole server stops: nobody serves meanwhile, so workers wait for less.
    "stopping",
    # When the certificates of the public listener, the API and towards targets end: Unix time in
    # seconds, or 0.
    "certificate_ends_public",
    "certificate_ends_api",
    "certificate_ends_targets",
    # 1 once the table is what the server's store has, or there is none.
    "table_loaded",
    # Until when this server has all that others may have confirmed: milliseconds of CLOCK_BOOTTIME,
    # which goes on while the machine is suspended.
    "current_until",
    # Where the table stands in the history of one that servers share: ``stores/redis/position.py``.
    "store_epoch",
    "store_epoch_random",
    "store_change",
    "store_tag",
    # A random number: no two servers have the same.
    "server_id",
)
GENERATION: Final = HEADER_WORDS.index("generation")
EPOCH: Final = HEADER_WORDS.index("epoch")
OLDEST_EPOCH: Final = HEADER_WORDS.index("oldest_epoch")
BASE_GENERATION: Final = HEADER_WORDS.index("base_generation_0")
BASE_OFFSET: Final = HEADER_WORDS.index("base_offset_0")
END: Final = HEADER_WORDS.index("end_0")
FRESH_SLOT: Final = HEADER_WORDS.index("fresh_slot")
HEARTBEAT: Final = HEADER_WORDS.index("heartbeat")
STOPPING: Final = HEADER_WORDS.index("stopping")
CERTIFICATE_ENDS_PUBLIC: Final = HEADER_WORDS.index("certificate_ends_public")
CERTIFICATE_ENDS_API: Final = HEADER_WORDS.index("certificate_ends_api")
CERTIFICATE_ENDS_TARGETS: Final = HEADER_WORDS.index("certificate_ends_targets")
TABLE_LOADED: Final = HEADER_WORDS.index("table_loaded")
CURRENT_UNTIL: Final = HEADER_WORDS.index("current_until")
FOR_EVER: Final = 2**64 - 1
"""``current_until`` of a server that shares its routes with no other."""
STORE_EPOCH: Final = HEADER_WORDS.index("store_epoch")
STORE_EPOCH_RANDOM: Final = HEADER_WORDS.index("store_epoch_random")
STORE_CHANGE: Final = HEADER_WORDS.index("store_change")
STORE_TAG: Final = HEADER_WORDS.index("store_tag")
SERVER_ID: Final = HEADER_WORDS.index("server_id")

ROW_WORDS: Final = (
    # Counters: they only grow, also when a new worker continues the row of a dead one.
    "requests_web",
    "requests_ws",
    "bytes_from_clients",  # of bodies and tunnels, as are the next
    "bytes_to_clients",
    "find_target_ns",
    "find_target_count",
    "activity_ns",
    "activity_count",
    "starts",  # how often a worker took this row
    # The state of the worker that has the row now.
    "pid",
    "open_connections",
    "open_tunnels",
    "accepting",  # 1 while the worker takes new connections
    "came_up",  # 1 once it has taken, or could have taken, a connection
    # Counters again: failures of targets, by what went wrong.
    "target_errors_name",
    "target_errors_refused",
    "target_errors_unreachable",
    "target_errors_timeout",
    "target_errors_tls",
    "target_errors_other",
    # TLS handshakes of clients: full ones, and those that resumed a session.
    "handshakes_full",
    "handshakes_resumed",
)
REQUESTS_WEB: Final = ROW_WORDS.index("requests_web")
REQUESTS_WS: Final = ROW_WORDS.index("requests_ws")
BYTES_FROM_CLIENTS: Final = ROW_WORDS.index("bytes_from_clients")
BYTES_TO_CLIENTS: Final = ROW_WORDS.index("bytes_to_clients")
FIND_TARGET_NS: Final = ROW_WORDS.index("find_target_ns")
FIND_TARGET_COUNT: Final = ROW_WORDS.index("find_target_count")
ACTIVITY_NS: Final = ROW_WORDS.index("activity_ns")
ACTIVITY_COUNT: Final = ROW_WORDS.index("activity_count")
STARTS: Final = ROW_WORDS.index("starts")
PID: Final = ROW_WORDS.index("pid")
OPEN_CONNECTIONS: Final = ROW_WORDS.index("open_connections")
OPEN_TUNNELS: Final = ROW_WORDS.index("open_tunnels")
ACCEPTING: Final = ROW_WORDS.index("accepting")
CAME_UP: Final = ROW_WORDS.index("came_up")
HANDSHAKES_FULL: Final = ROW_WORDS.index("handshakes_full")
HANDSHAKES_RESUMED: Final = ROW_WORDS.index("handshakes_resumed")

_TARGET_ERRORS: Final = "target_errors_"
TARGET_ERRORS: Final = {
    name.removeprefix(_TARGET_ERRORS): word
    for word, name in enumerate(ROW_WORDS)
    if name.startswith(_TARGET_ERRORS)
}
"""The word that counts each kind of failure of a target."""

GAUGES: Final = (OPEN_CONNECTIONS, OPEN_TUNNELS, ACCEPTING)

# ``row[STATUS + code]`` counts answers of that status. Every number of three digits that
# a target may send has its word, and a row is two pages: no two workers share a cache line.
STATUS: Final = 24
STATUS_CODES: Final = range(1000)
ROW_LENGTH: Final = STATUS + len(STATUS_CODES)

_HEADER_BYTES: Final = PAGE

LAYOUT: Final = 1
"""The number of the layout that is described here; the last word of the header has it."""
_LAYOUT_WORD: Final = _HEADER_BYTES // WORD - 1

assert len(HEADER_WORDS) <= _LAYOUT_WORD
assert len(ROW_WORDS) <= STATUS
assert ROW_LENGTH * WORD % PAGE == 0


class Segment:
    """Shared memory of one server; make it before forking.

    Args:
        rows: how many workers can have a row.
        routes: how many routes can have an activity slot.
        fd: the memory file of a segment that there is already; None makes one.
        private: whether what is written is to stay in this process.

    Raises ``OSError``, also when the file is smaller than that.

    Attributes:
        words: the header, u64; index it with ``GENERATION`` and the other constants.
        activity: Unix time in seconds of each slot's last activity, f64.
        rows: the number of rows.
        routes: the number of slots.
        fd: the memory file, for whoever is to have the segment after ``execve``.
    """

    def __init__(
        self,
        rows: int = 64,
        routes: int = 1_000_000,
        fd: int | None = None,
        *,
        private: bool = False,
    ) -> None:
        self.rows = rows
        self.routes = routes
        rows_bytes = rows * ROW_LENGTH * WORD
        activity_at = _HEADER_BYTES + rows_bytes
        size = activity_at + routes * WORD
        self.fd = _new_file(size) if fd is None else fd
        self._close = weakref.finalize(self, os.close, self.fd)
        self._close.atexit = False
        access = mmap.ACCESS_COPY if private else mmap.ACCESS_WRITE
        try:
            whole = memoryview(mmap.mmap(self.fd, size, access=access))
        except ValueError as error:
            raise OSError(f"segment of {rows} rows: {error}") from None
        self.words: memoryview[int] = whole[:_HEADER_BYTES].cast("Q")
        self._rows: memoryview[int] = whole[_HEADER_BYTES:activity_at].cast("Q")
        self.activity: memoryview[float] = whole[activity_at:].cast("d")
        if fd is None:
            self.words[_LAYOUT_WORD] = LAYOUT

    @property
    def layout(self) -> int:
        """The number of the layout that whoever made the segment gave it."""
        return self.words[_LAYOUT_WORD]

    def close_file(self) -> None:
        """Close the memory file in a process that has it mapped and passes it on to nobody."""
        self._close()

    def row(self, index: int) -> memoryview[int]:
        """Return row ``index``: ``ROW_LENGTH`` u64 words.

        A word can't go below zero: ``memoryview`` raises ``ValueError`` instead.

        Raises:
            IndexError: there is no such row.
        """
        if not 0 <= index < self.rows:
            raise IndexError(f"row {index} of a segment of {self.rows} rows")
        start = index * ROW_LENGTH
        return self._rows[start : start + ROW_LENGTH]


def reset_gauges(row: memoryview[int]) -> None:
    """Set the gauges of a row to zero; its counters stay.

    For a worker that takes over the row of a dead one.
    """
    for gauge in GAUGES:
        row[gauge] = 0


def _new_file(size: int) -> int:
    file = memory_file("chp-gevent-segment")
    os.ftruncate(file, size)
    return file
