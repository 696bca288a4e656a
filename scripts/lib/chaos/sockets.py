"""Which connections a process holds, from /proc."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

LISTENING = "0A"


def socket_inodes(pid: int) -> set[str]:
    """Return the inodes of the sockets that a process has open. Raises OSError."""
    inodes = set()
    folder = f"/proc/{pid}/fd"
    for name in os.listdir(folder):
        with suppress(OSError):
            link = os.readlink(f"{folder}/{name}")
            if link.startswith("socket:["):
                inodes.add(link[8:-1])
    return inodes


def _tcp_lines() -> list[tuple[int, int, str, str]]:
    """Return local port, peer's port, state and inode of each IPv4 socket."""
    found = []
    for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]:
        fields = line.split()
        local, peer = (int(address.rpartition(":")[2], 16) for address in fields[1:3])
        found.append((local, peer, fields[3], fields[9]))
    return found


def listening_inode(port: int) -> str:
    """Return the inode of the socket that listens on a port of 127.0.0.1."""
    return next(line[3] for line in _tcp_lines() if line[0] == port and line[2] == LISTENING)


def listens(pid: int, port: int) -> bool:
    """Whether a process has the socket open that listens on a port of 127.0.0.1. Raises OSError."""
    return listening_inode(port) in socket_inodes(pid)


def held_ports(pid: int, ports: set[int]) -> frozenset[int]:
    """Return the peers' ports of the connections to ``ports`` that a process holds."""
    inodes = socket_inodes(pid)
    # The kernel lists sockets piecemeal: while others come and go, one can be left out.
    lines = {line for _ in range(3) for line in _tcp_lines()}
    return frozenset(
        peer
        for local, peer, state, inode in lines
        if local in ports and inode in inodes and state != LISTENING
    )
