"""A target that reads whatever comes and never answers; prints its port.

It does not look at what it reads, so that it is quicker than any proxy in front of it.
"""

from __future__ import annotations

import contextlib
import socket
import threading

READ_SIZE = 1 << 20


def swallow(sock: socket.socket) -> None:
    """Read one connection to its end."""
    space = bytearray(READ_SIZE)
    with sock, contextlib.suppress(OSError):
        while sock.recv_into(space):
            pass


def main() -> None:
    """Listen on a free loopback port, say which, serve with a thread for each connection."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    print(listener.getsockname()[1], flush=True)
    while True:
        sock, _ = listener.accept()
        threading.Thread(target=swallow, args=(sock,), daemon=True).start()


if __name__ == "__main__":
    main()
