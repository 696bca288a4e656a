"""A target that is a process of its own, so that it can be killed: NAME PORT on the command line.

It says ``ready`` on stdout when it listens. ``reset`` on stdin breaks all its connections off
and is answered ``done``; the end of stdin ends the process.
"""

from __future__ import annotations

import re
import socket
import sys

from tests.kit.peers import messages
from tests.kit.peers.loopback import BACKLOG, LoopbackServer
from tests.kit.peers.messages import ByteSource, Incomplete
from tests.kit.peers.stream_targets import PATTERN
from tests.kit.peers.upgrades import SWITCHING


class ChaosTarget(LoopbackServer):
    """Says in each answer who it is and what it was asked.

    A GET with ``size=N`` gets N bytes, other requests the number of bytes of their body; an
    upgrade gets a tunnel that echoes.
    """

    def __init__(self, name: str, port: int) -> None:
        super().__init__()
        self.name = name
        self.listener.close()
        self.listener = socket.create_server(("127.0.0.1", port), backlog=BACKLOG)

    def serve(self, connection: socket.socket, index: int) -> None:
        """Answer requests until the other side closes."""
        source = ByteSource(connection, remember=False)
        try:
            while not source.at_end():
                head = messages.read_head(source)
                if "upgrade: websocket" in str(head.raw, "latin-1").lower():
                    self._tunnel(connection, source)
                    return
                self._answer(connection, source, head)
        except Incomplete:
            return

    def _tunnel(self, connection: socket.socket, source: ByteSource) -> None:
        mark = f"X-Target: {self.name}\r\n\r\n".encode()
        connection.sendall(SWITCHING[:-2] + mark)
        while not source.at_end():
            waiting = source.pending()
            connection.sendall(b"".join(source.pieces(len(waiting))))

    def _answer(self, connection: socket.socket, source: ByteSource, head: messages.Head) -> None:
        length = 0
        for piece in messages.iter_body(source, head, messages.request_framing(head), []):
            length += len(piece)
        sized = re.search(r"size=(\d+)", head.start)
        asked = head.start.split(" ")[1]
        body_length = int(sized[1]) if sized else len(str(length))
        connection.sendall(
            f"HTTP/1.1 200 OK\r\nX-Target: {self.name}\r\nX-Asked: {asked}\r\n"
            f"Content-Length: {body_length}\r\n\r\n".encode("latin-1")
        )
        if sized is None:
            connection.sendall(str(length).encode())
        for start in range(0, body_length if sized else 0, len(PATTERN)):
            connection.sendall(PATTERN[: min(len(PATTERN), body_length - start)])


def main() -> None:
    """Serve until stdin ends."""
    with ChaosTarget(sys.argv[1], int(sys.argv[2])) as target:
        print("ready", flush=True)
        for line in sys.stdin:
            if line.strip() == "reset":
                target.drop_connections(reset=True)
                print("done", flush=True)


if __name__ == "__main__":
    main()
