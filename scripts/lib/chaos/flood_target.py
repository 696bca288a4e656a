"""A target as hostile as its clients: PORT on the command line, ``ready`` when it listens.

It answers a GET with one-byte chunks without end, and reads everything else without an answer.
The end of stdin ends it.
"""

from __future__ import annotations

import socket
import sys

from tests.kit.peers.loopback import BACKLOG, LoopbackServer

CHUNKS = b"1\r\na\r\n" * 43690
READ_SIZE = 1 << 20


class FloodTarget(LoopbackServer):
    """Sends as fast as it is read, or reads as fast as it is sent to."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self.listener.close()
        self.listener = socket.create_server(("127.0.0.1", port), backlog=BACKLOG)

    def serve(self, connection: socket.socket, index: int) -> None:
        """Serve until the other side goes."""
        if connection.recv(READ_SIZE).startswith(b"GET"):
            connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            while True:
                connection.sendall(CHUNKS)
        while connection.recv(READ_SIZE):
            pass


def main() -> None:
    """Serve until stdin ends."""
    with FloodTarget(int(sys.argv[1])):
        print("ready", flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
