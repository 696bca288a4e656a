"""WebSocket load; prints one JSON line.

Usage:
    websocket_client.py echo HOST PORT CONNECTIONS BYTES SECONDS
    websocket_client.py idle HOST PORT CONNECTIONS

``echo``: each connection sends a message, waits for it to come back, sends the next.
``idle``: opens the connections, exchanges one message on each, prints, and holds them
until its standard input ends.
"""

from __future__ import annotations

import base64
import json
import os
import select
import socket
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[4]))

from scripts.lib.bench.programs.figures import print_figures
from scripts.lib.bench.programs.frames import accept_value, frame

CONNECT_TIMEOUT = 30.0


def connect(host: str, port: int) -> socket.socket:
    """A connection with a checked handshake; raises ConnectionError."""
    key = base64.b64encode(os.urandom(16))
    sock = socket.create_connection((host, port), timeout=CONNECT_TIMEOUT)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.sendall(
        f"GET /socket HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\n"
        f"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        f"Sec-WebSocket-Key: {key.decode()}\r\n\r\n".encode()
    )
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        data = sock.recv(4096)
        if not data:
            raise ConnectionError("closed during the handshake")
        answer += data
    if not answer.startswith(b"HTTP/1.1 101") or accept_value(key) not in answer:
        raise ConnectionError(f"handshake refused: {answer[:40]!r}")
    return sock


def exchange(sock: socket.socket, message: bytes, echo: bytes) -> None:
    """Send one message and wait for it to come back; raises ConnectionError."""
    sock.sendall(message)
    got = b""
    while len(got) < len(echo):
        data = sock.recv(65536)
        if not data:
            raise ConnectionError("closed before the echo")
        got += data
    if got != echo:
        raise ConnectionError("a wrong echo")


class Echoer:
    """One connection of the ``echo`` mode."""

    def __init__(self, sock: socket.socket, message: bytes, echo: bytes) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.message = message
        self.echo = echo
        self.unsent = memoryview(b"")
        self.received = bytearray()
        self.began = 0.0
        self.watched = select.EPOLLIN

    def send_next(self) -> None:
        """Begin the next round trip."""
        self.began = time.perf_counter()
        self.unsent = memoryview(self.message)
        self.flush()

    def flush(self) -> None:
        """Send what can be sent."""
        try:
            while self.unsent:
                self.unsent = self.unsent[self.sock.send(self.unsent) :]
        except BlockingIOError:
            return

    def receive(self) -> bool:
        """Read; True when the echo is complete. Raises ConnectionError."""
        try:
            data = self.sock.recv(262_144)
        except BlockingIOError:
            return False
        if not data:
            raise ConnectionError("closed before the echo")
        self.received += data
        if len(self.received) < len(self.echo):
            return False
        if self.received != self.echo:
            raise ConnectionError("a wrong echo")
        self.received.clear()
        return True


def run_echo(host: str, port: int, connections: int, size: int, seconds: float) -> None:
    """The ``echo`` mode."""
    payload = bytes(range(256)) * (size // 256) + bytes(range(size % 256))
    message, echo = frame(payload, masked=True), frame(payload, masked=False)
    poll = select.epoll()
    peers: dict[int, Echoer] = {}
    for _ in range(connections):
        sock = connect(host, port)
        peers[sock.fileno()] = Echoer(sock, message, echo)
        poll.register(sock, select.EPOLLIN)
    times: list[float] = []
    errors: list[str] = []
    began = time.perf_counter()
    end = began + seconds

    def watch(descriptor: int, peer: Echoer) -> None:
        wanted = select.EPOLLIN | (select.EPOLLOUT if peer.unsent else 0)
        if wanted != peer.watched:
            peer.watched = wanted
            poll.modify(descriptor, wanted)

    try:
        for descriptor, peer in peers.items():
            peer.send_next()
            watch(descriptor, peer)
        while time.perf_counter() < end:
            events = poll.poll(5.0)
            if not events:
                raise ConnectionError("no echo for 5 s")
            for descriptor, event in events:
                peer = peers[descriptor]
                if event & select.EPOLLOUT:
                    peer.flush()
                if event & ~select.EPOLLOUT and peer.receive():
                    times.append(time.perf_counter() - peer.began)
                    peer.send_next()
                watch(descriptor, peer)
    except OSError as error:
        errors.append(str(error))
    spent = time.perf_counter() - began
    print_figures(times, spent, errors)


def run_idle(host: str, port: int, connections: int) -> None:
    """The ``idle`` mode."""
    message, echo = frame(b"hello", masked=True), frame(b"hello", masked=False)
    held: list[socket.socket] = []
    error = None
    try:
        for _ in range(connections):
            sock = connect(host, port)
            exchange(sock, message, echo)
            held.append(sock)
    except OSError as problem:
        error = str(problem)
    print(json.dumps({"open": len(held), "error": error}), flush=True)
    sys.stdin.read()
    alive = 0
    for sock in held:
        try:
            exchange(sock, message, echo)
        except OSError:
            continue
        alive += 1
    print(json.dumps({"alive": alive}), flush=True)


def main() -> None:
    """Read the arguments and run one of the modes."""
    mode, host, port, connections, *rest = sys.argv[1:]
    if mode == "echo":
        run_echo(host, int(port), int(connections), int(rest[0]), float(rest[1]))
    else:
        run_idle(host, int(port), int(connections))


if __name__ == "__main__":
    main()
