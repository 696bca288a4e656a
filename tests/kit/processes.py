"""What /proc tells about a server's processes, and how they are made to stand still."""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

CLOCK_TICK = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
LISTENING = "0A"


@dataclass(frozen=True)
class ProcessStatus:
    """One line of /proc/PID/stat: ``cpu`` in seconds, ``rss`` in bytes."""

    pid: int
    parent: int
    session: int
    state: str
    cpu: float
    rss: int


def status(pid: int) -> ProcessStatus | None:
    """Return the status of a process, or None if there is none or it is a zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="latin-1")
    except OSError:
        return None
    # The command name is in parentheses and may contain anything.
    fields = text.rpartition(")")[2].split()
    if fields[0] in "ZX":
        return None
    return ProcessStatus(
        pid=pid,
        state=fields[0],
        parent=int(fields[1]),
        session=int(fields[3]),
        cpu=(int(fields[11]) + int(fields[12])) / CLOCK_TICK,
        rss=int(fields[21]) * PAGE,
    )


def tree(root: int) -> list[ProcessStatus]:
    """Return the living processes of the session that ``root`` leads, and its descendants.

    The session also holds those whose parent has died.
    """
    everyone = [status(int(name)) for name in os.listdir("/proc") if name.isdigit()]
    living = {process.pid: process for process in everyone if process is not None}
    found = {pid for pid, process in living.items() if pid == root or process.session == root}
    while True:
        more = {pid for pid, process in living.items() if process.parent in found} - found
        if not more:
            return [living[pid] for pid in sorted(found)]
        found |= more


def open_descriptors(pid: int) -> int:
    """Return how many file descriptors a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def descriptors_by_kind(pid: int) -> Counter[str]:
    """Return which file descriptors a process has open, by what they are, and how many of each."""
    kinds: Counter[str] = Counter()
    for name in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            link = os.readlink(f"/proc/{pid}/fd/{name}")
            kinds[re.sub(r"\d+|-\w{8}\b", "", link)] += 1
    return kinds


def holder_of_connection(pids: list[int], local_port: int, peer_port: int) -> int | None:
    """Return which of ``pids`` has the accepted connection local_port <- peer_port (IPv4)."""
    inode = _inode(local_port, peer_port)
    if inode is None:
        return None
    for pid in pids:
        folder = f"/proc/{pid}/fd"
        try:
            links = [os.readlink(f"{folder}/{name}") for name in os.listdir(folder)]
        except OSError:
            continue
        if f"socket:[{inode}]" in links:
            return pid
    return None


def _inode(local_port: int, peer_port: int) -> str | None:
    for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]:
        fields = line.split()
        ports = [int(address.rpartition(":")[2], 16) for address in fields[1:3]]
        if ports == [local_port, peer_port] and fields[3] != LISTENING:
            # An inode of 0: still in the backlog, nobody has accepted it yet.
            return None if fields[9] == "0" else fields[9]
    return None


@contextlib.contextmanager
def stopped(pids: Iterable[int]) -> Iterator[None]:
    """Have processes stand still until the block ends."""
    stopping = list(pids)
    for pid in stopping:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in stopping:
            os.kill(pid, signal.SIGCONT)
