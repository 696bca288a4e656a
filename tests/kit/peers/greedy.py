"""Peers that send and receive as fast as they can, for as long as they are let."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

from tests.kit.peers.loopback import LoopbackServer
from tests.kit.peers.messages import ByteSource, read_head

_SPACE = 1 << 20


def drain(sock: socket.socket) -> None:
    """Read, and forget, all that comes until the connection ends or breaks."""
    space = bytearray(_SPACE)
    with contextlib.suppress(OSError):
        while sock.recv_into(space):
            pass


def push(sock: socket.socket, data: bytes) -> None:
    """Send ``data`` again and again until the connection ends or breaks."""
    with contextlib.suppress(OSError):
        while True:
            sock.sendall(data)


class GreedyTarget(LoopbackServer):
    """Answers the first head of each connection with ``answer``.

    It reads what comes behind that; if there is ``data``, it sends it again and again.
    """

    def __init__(self, answer: bytes = b"", data: bytes = b"") -> None:
        super().__init__()
        self._answer, self._data = answer, data

    def serve(self, connection: socket.socket, index: int) -> None:
        """Send and receive until the other side goes away."""
        read_head(ByteSource(connection, remember=False))
        connection.sendall(self._answer)
        if self._data:
            self._run(push, connection, self._data)
        drain(connection)


@contextlib.contextmanager
def greedy(*sockets: socket.socket, first: bytes, data: bytes = b"") -> Iterator[None]:
    """Send ``first`` on each connection, then ``data`` without end, and read; until the block ends.

    The connections are closed then.
    """
    threads = []

    def start(function: Callable[..., None], *arguments: object) -> None:
        threads.append(threading.Thread(target=function, args=arguments, daemon=True))
        threads[-1].start()

    for sock in sockets:
        sock.settimeout(30.0)
        sock.sendall(first)
        start(drain, sock)
        if data:
            start(push, sock, data)
    try:
        yield
    finally:
        for sock in sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(timeout=10)
        for sock in sockets:
            sock.close()
