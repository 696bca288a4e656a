"""What the kernel is told about TCP connections: of clients, of tunnels."""

from __future__ import annotations

import contextlib
import random
import socket
from typing import Any

# A peer that has vanished is noticed after two to three silent minutes (the kernel's default is
# more than two hours), and entries of NAT gateways are kept alive. In seconds: silence before the
# first probe and between two; and their number.
_KEEP_ALIVE = (socket.TCP_KEEPIDLE, 45), (socket.TCP_KEEPINTVL, 15), (socket.TCP_KEEPCNT, 6)

# Connections inherit them from their listening socket (Linux): setting them on each would take
# 1.5 µs and a system call for each option.
LISTENER = (
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    *((socket.IPPROTO_TCP, option, value) for option, value in _KEEP_ALIVE),
)

# Each socket of a tunnel has timers of its own, up to a third shorter or longer: the probes of
# 10,000 tunnels that opened together, sent together, overflowed a queue of the kernel, and 1,200
# living peers were taken for dead.
_TUNNEL = (
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, range(1, 2)),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, range(1, 2)),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, range(30, 61)),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, range(10, 21)),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, range(6, 7)),
)


def prepare_listener(listener: socket.socket) -> None:
    """Set what the connections of a listening socket are to have."""
    if listener.family != socket.AF_UNIX:
        for level, option, value in LISTENER:
            listener.setsockopt(level, option, value)


def prepare_tunnel(sock: Any) -> None:
    """Set what one side of a tunnel is to have; for a connection that is gone, nothing."""
    if sock.family != socket.AF_UNIX:
        with contextlib.suppress(OSError):
            for level, option, values in _TUNNEL:
                sock.setsockopt(level, option, random.choice(values))
