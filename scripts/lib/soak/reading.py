"""What the processes of a server have at one moment: memory, descriptors, threads."""

from __future__ import annotations

import os
import re
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.kit import processes

MB = 1024 * 1024
BLOCK = 512  # bytes, st_blocks' unit
HEAP = re.compile(r"^\S+ [^\n]*\[heap\]\n((?:\w+: [^\n]*\n)*)", re.MULTILINE)
JOURNAL = "/memfd:chp-gevent-journal"


@dataclass(frozen=True)
class ProcessReading:
    """One process; sizes in bytes.

    Attributes:
        memory: anonymous and shared memory, swapped out included; its part of shared pages.
        pss: that and its part of the pages of files.
        heap: of ``memory``, what malloc has in the heap (the rest: its and Python's mappings).
        descriptors: how many are open, by kind.
    """

    pid: int
    memory: int
    pss: int
    heap: int
    descriptors: Counter[str]
    threads: int

    @property
    def other(self) -> int:
        """Memory outside of the heap."""
        return self.memory - self.heap


@dataclass(frozen=True)
class Reading:
    """All processes by role, and the bytes of the journal, which is in none of them."""

    processes: dict[str, ProcessReading]
    journal: int

    @property
    def memory(self) -> int:
        """Memory of all processes."""
        return sum(process.memory for process in self.processes.values())

    @property
    def pss(self) -> int:
        """Memory of all processes, pages of files included."""
        return sum(process.pss for process in self.processes.values())


def read(roles: dict[str, int]) -> Reading:
    """Read the processes that ``roles`` names. Raises ``OSError`` if one has gone."""
    processes = {role: _process(pid) for role, pid in roles.items()}
    return Reading(processes, _journal_size(next(iter(roles.values()))))


def _process(pid: int) -> ProcessReading:
    folder = Path(f"/proc/{pid}")
    rollup = _kilobytes(folder.joinpath("smaps_rollup").read_text("utf-8"))
    swapped = rollup["SwapPss"]
    # The heap of a forked process is several mappings.
    heaps = HEAP.findall(folder.joinpath("smaps").read_text("utf-8"))
    heap = sum((_kilobytes(lines) for lines in heaps), Counter[str]())
    threads = re.search(r"^Threads:\s+(\d+)", folder.joinpath("status").read_text("utf-8"), re.M)
    assert threads is not None
    return ProcessReading(
        pid,
        memory=rollup["Pss_Anon"] + rollup["Pss_Shmem"] + swapped,
        pss=rollup["Pss"] + swapped,
        heap=heap["Pss"] + heap["SwapPss"],
        descriptors=processes.descriptors_by_kind(pid),
        threads=int(threads[1]),
    )


def _kilobytes(text: str) -> Counter[str]:
    """The ``Name: N kB`` lines, in bytes."""
    return Counter(
        {name: int(size) * 1024 for name, size in re.findall(r"^(\w+): +(\d+) kB$", text, re.M)}
    )


def _journal_size(arbiter: int) -> int:
    """Bytes of the journal's memory files, which the arbiter keeps open."""
    size = 0
    for name in os.listdir(f"/proc/{arbiter}/fd"):
        descriptor = f"/proc/{arbiter}/fd/{name}"
        with suppress(FileNotFoundError):
            if os.readlink(descriptor).startswith(JOURNAL):
                size += os.stat(descriptor).st_blocks * BLOCK
    return size
