"""A WebSocket target that sends every message back; prints its port when it listens.

One thread and one epoll, so that it needs less CPU than any proxy in front of it.
"""

from __future__ import annotations

import select
import socket
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[4]))

from scripts.lib.bench.programs.frames import accept_value, frame, take_frame

READ_SIZE = 262_144


class Peer:
    """One connection: the bytes that wait to be understood and those that wait to be sent."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.received = bytearray()
        self.unsent = bytearray()
        self.upgraded = False
        self.watched = select.EPOLLIN

    def on_readable(self) -> bool:
        """Read and answer; False when the connection has ended."""
        try:
            data = self.sock.recv(READ_SIZE)
        except BlockingIOError:
            return True
        except OSError:
            return False
        self.received += data
        if not self.upgraded and b"\r\n\r\n" in self.received:
            self._shake_hands()
        while self.upgraded and (payload := take_frame(self.received)) is not None:
            self.unsent += frame(payload, masked=False)
        return bool(data) and self.on_writable()

    def on_writable(self) -> bool:
        """Send what can be sent; False when the connection has ended."""
        try:
            while self.unsent:
                del self.unsent[: self.sock.send(self.unsent)]
        except BlockingIOError:
            pass
        except OSError:
            return False
        return True

    def _shake_hands(self) -> None:
        head, _, rest = bytes(self.received).partition(b"\r\n\r\n")
        headers = {}
        for line in head.split(b"\r\n")[1:]:
            name, _, value = line.partition(b":")
            headers[name.strip().lower()] = value.strip()
        key = headers.get(b"sec-websocket-key")
        if key is None:
            self.unsent += b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
        else:
            self.unsent += (
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                b"Connection: Upgrade\r\nSec-WebSocket-Accept: " + accept_value(key) + b"\r\n\r\n"
            )
            self.upgraded = True
        self.received = bytearray(rest)


def serve(listener: socket.socket) -> None:
    """Answer for ever."""
    listener.setblocking(False)
    poll = select.epoll()
    poll.register(listener, select.EPOLLIN)
    peers: dict[int, Peer] = {}
    while True:
        for descriptor, event in poll.poll():
            if descriptor == listener.fileno():
                try:
                    sock, _ = listener.accept()
                except BlockingIOError:
                    continue
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                peers[sock.fileno()] = Peer(sock)
                poll.register(sock, select.EPOLLIN)
                continue
            peer = peers[descriptor]
            alive = peer.on_writable() if event & select.EPOLLOUT else True
            if alive and event & ~select.EPOLLOUT:
                alive = peer.on_readable()
            if not alive:
                poll.unregister(descriptor)
                peers.pop(descriptor).sock.close()
            else:
                wanted = select.EPOLLIN | (select.EPOLLOUT if peer.unsent else 0)
                if wanted != peer.watched:
                    peer.watched = wanted
                    poll.modify(descriptor, wanted)


def main() -> None:
    """Listen on a free loopback port, say which, serve."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    print(listener.getsockname()[1], flush=True)
    serve(listener)


if __name__ == "__main__":
    main()
