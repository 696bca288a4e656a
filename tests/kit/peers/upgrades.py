"""The raw side of WebSocket upgrades: handshakes as bytes, targets that switch or refuse."""

from __future__ import annotations

from collections.abc import Callable

from tests.kit.peers.raw_client import RawClient
from tests.kit.peers.raw_target import Exchange, Reply

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
"""The key of RFC 6455, 1.3."""

SWITCHING = (
    b"HTTP/1.1 101 Switching Protocols\r\n"
    b"Upgrade: websocket\r\n"
    b"Connection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
    b"\r\n"
)


def upgrade(path: str, *headers: str, method: str = "GET", protocol: str = "websocket") -> str:
    """Return the text of an upgrade request; ``headers`` are whole lines."""
    lines = [
        f"{method} {path} HTTP/1.1",
        "Host: proxy.test:8000",
        "Connection: Upgrade",
        f"Upgrade: {protocol}",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Key: {KEY}",
        *headers,
    ]
    return "\r\n".join([*lines, "", ""])


def switched(
    then: Callable[[Exchange], None], *, answer: bytes = SWITCHING, early: bytes = b""
) -> Reply:
    """Answer with 101, and ``early`` in the same packet; call ``then``; close."""

    def reply(exchange: Exchange) -> None:
        exchange.send(answer + early)
        then(exchange)
        exchange.close()

    return reply


def echo(exchange: Exchange) -> None:
    """Send bytes back until the other side ends."""
    while not exchange.source.at_end():
        waiting = exchange.source.pending()
        exchange.send(exchange.receive(len(waiting)))


def switched_client(client: RawClient, path: str, *headers: str) -> RawClient:
    """Send an upgrade request on ``client``, check that it is answered with 101; return it."""
    client.send(upgrade(path, *headers))
    answer = client.read_head()
    assert answer.status == 101, answer.raw
    return client


def receive(client: RawClient, size: int) -> bytes:
    """Take exactly ``size`` bytes from a client's connection."""
    return b"".join(client.source.pieces(size))


def says_back(client: RawClient, text: str) -> bool:
    """Whether the target still echoes through the tunnel."""
    client.send(text)
    return receive(client, len(text)) == text.encode()
