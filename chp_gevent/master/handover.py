"""What an arbiter leaves to the version of itself that it becomes (``execve``).

Sockets, memory files and children stay where they are: they belong to the process, which stays
the same. What the next version needs to find them again is written into a memory file, whose
descriptor is in the environment. It ignores what it does not know, and what it misses has a
default; what it could not make up for raises ``FORMAT``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, MutableMapping
from typing import Final

import msgspec

from chp_gevent import __version__
from chp_gevent.shared import records
from chp_gevent.shared.journal import Journal
from chp_gevent.shared.memory_file import memory_file
from chp_gevent.shared.segment import LAYOUT, Segment

FORMAT: Final = 1
"""The number of the format of ``Handover``."""

VARIABLE: Final = "CHP_GEVENT_HANDOVER"
"""The variable of the environment with the descriptor."""


class CannotTakeOver(Exception):
    """The text says why, and what to do instead."""


class WorkerState(msgspec.Struct):
    """A worker.

    Attributes:
        pid: of the process.
        row: index of its row in the segment.
        heartbeat: descriptor of its heartbeat file.
        age: the higher, the younger.
        requests_before: requests in its row before it had it.
        made_at: when it was forked, by the monotonic clock, in seconds.
        drains: whether it was told to stop.
    """

    pid: int
    row: int
    heartbeat: int
    age: int
    requests_before: int
    made_at: float
    drains: bool


class Handover(msgspec.Struct, kw_only=True):
    """What one version leaves to the next. Files and sockets are descriptors.

    Attributes:
        format: the number of this format.
        version: of the program that wrote this.
        pid: of the arbiter.
        layout: the number of the segment's layout.
        records: the number of the format of the journal's records.
        rows: of the segment.
        routes: slots of the segment.
        segment: its memory file.
        journal: its two files.
        sockets: those that listen, by what they are for: ``public``, ``redirect``, ``api`` …
        unix_sockets: device and inode of the files of UNIX sockets, by path.
        workers: those that serve or drain, the oldest first.
        worker_age: of the youngest worker.
        num_workers: how many there are to be (SIGTTIN and SIGTTOU change it).
        management: the management process, if there is one.
        management_ready: the pipe on which that will say that it is ready, while it starts.
        ticket_secrets: the memory file of what keys of TLS session tickets are made of.
        has_pid_file: whether there is a pid file of ours.
        again: whether another signal to upgrade has come meanwhile.
    """

    format: int
    version: str
    pid: int
    layout: int
    records: int
    rows: int
    routes: int
    segment: int
    journal: tuple[int, int]
    sockets: dict[str, list[int]]
    workers: list[WorkerState]
    worker_age: int
    num_workers: int
    unix_sockets: dict[str, tuple[int, int]] = {}
    management: int | None = None
    management_ready: int | None = None
    ticket_secrets: int | None = None
    has_pid_file: bool = False
    again: bool = False

    def descriptors(self) -> Iterator[int]:
        """Yield everything that has to be open in the next version."""
        yield self.segment
        yield from self.journal
        for descriptors in self.sockets.values():
            yield from descriptors
        for worker in self.workers:
            yield worker.heartbeat
        for descriptor in (self.management_ready, self.ticket_secrets):
            if descriptor is not None:
                yield descriptor

    def shared(self) -> tuple[int, ...]:
        """Return what is enough to read the routing table."""
        return (self.segment, *self.journal)

    def attach(self, *, private: bool = False) -> tuple[Segment, Journal]:
        """Return segment and journal; with ``private``, what is written stays in this process.

        Raises ``OSError``.
        """
        segment = Segment(self.rows, self.routes, self.segment, private=private)
        return segment, Journal(segment, self.journal)


def write(state: Handover) -> int:
    """Return a memory file with the state. Raises ``OSError``."""
    file = memory_file("chp-gevent-handover")
    os.pwrite(file, msgspec.msgpack.encode(state), 0)
    return file


def take(environ: MutableMapping[str, str]) -> Handover | None:
    """Return what the version before this one has left to it, if there was one.

    The variable is removed, and the file that it names is closed.

    Raises ``CannotTakeOver``.
    """
    number = environ.pop(VARIABLE, None)
    if number is None:
        return None
    try:
        file = int(number)
        data = os.pread(file, os.fstat(file).st_size, 0)
        os.close(file)
        return _decoded(data)
    except (OSError, ValueError, msgspec.DecodeError) as error:
        # The variable is not meant for anybody to set.
        raise CannotTakeOver(f"{VARIABLE} is of no use: {error}") from None


def _decoded(data: bytes) -> Handover:
    numbers = msgspec.msgpack.decode(data, type=_Numbers)
    for what, number, known in (
        ("handover format", numbers.format, FORMAT),
        ("layout of shared memory", numbers.layout, LAYOUT),
        ("format of the journal", numbers.records, records.FORMAT),
    ):
        if number != known:
            raise CannotTakeOver(
                f"{__version__} can't take over from {numbers.version}, whose {what} is {number} "
                f"and not {known}: restart the server"
            )
    return msgspec.msgpack.decode(data, type=Handover)


class _Numbers(msgspec.Struct):
    """What every format of ``Handover`` has."""

    format: int
    version: str
    layout: int
    records: int
