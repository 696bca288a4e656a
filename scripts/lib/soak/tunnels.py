"""Opens WebSockets, has a message echoed through each, and ends them in different ways."""

from __future__ import annotations

import base64
import random
from typing import Any

from scripts.lib.bench.programs.frames import accept_value, frame
from scripts.lib.soak.client import Connection, Outcome, Wrong, run
from scripts.lib.soak.target import ASK_TO_CLOSE, ASK_TO_RESET, CLOSE_FRAME

# Open at the same time.
BATCH = 50
MASKED_CLOSE_FRAME = b"\x88\x82\x00\x00\x00\x00\x03\xe8"
SIZES = (5, 60, 60, 500, 500, 4000, 70_000)
ENDS = ("close frames", "the client ends", "the client resets", "target closes", "target resets")


def opened(port: int, path: str, rng: random.Random) -> tuple[Connection, bytes]:
    """Send an upgrade request; the connection and the accept value that has to come."""
    key = base64.b64encode(rng.randbytes(16))
    connection = Connection(port)
    connection.send(
        f"GET {path} HTTP/1.1\r\nHost: soak.test\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        f"Sec-WebSocket-Key: {key.decode()}\r\n\r\n".encode()
    )
    return connection, accept_value(key)


def check_switched(connection: Connection, accept: bytes) -> None:
    """Raises ``Wrong`` unless the answer is the right 101."""
    head = connection.take_until(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 101 ") or accept not in head:
        raise Wrong(f"answered {head[:60]!r}")


def echo(connection: Connection, payload: bytes) -> None:
    """Raises ``Wrong`` unless a message comes back."""
    connection.send(frame(payload, masked=True))
    expected = frame(payload, masked=False)
    if connection.take(len(expected)) != expected:
        raise Wrong("another message came back")


def end(connection: Connection, how: str) -> None:
    """End a tunnel; raises ``Wrong`` when the other side does not do its part."""
    if how == "the client resets":
        connection.reset()
    elif how == "close frames":
        connection.send(MASKED_CLOSE_FRAME)
        expect_close(connection)
    elif how == "target closes":
        echo(connection, ASK_TO_CLOSE)
        expect_close(connection)
    elif how == "target resets":
        connection.send(frame(ASK_TO_RESET, masked=True))
        if not connection.at_end():
            raise Wrong("something came instead of the reset")


def expect_close(connection: Connection) -> None:
    """Raises ``Wrong`` unless a close frame comes and then the end."""
    if connection.take(len(CLOSE_FRAME)) != CLOSE_FRAME or not connection.at_end():
        raise Wrong("something else came than a close frame and the end")


def through(connection: Connection, accept: bytes, message: bytes, how: str) -> None:
    """The whole life of a tunnel that has been asked for."""
    check_switched(connection, accept)
    echo(connection, message)
    end(connection, how)


def use(order: dict[str, Any]) -> Outcome:
    """Open and end ``count`` tunnels at ``path``, a batch at a time."""
    rng = random.Random(order["seed"])
    outcome = Outcome()
    while outcome.done < order["count"]:
        size = min(BATCH, order["count"] - outcome.done)
        batch = [opened(order["port"], order["path"], rng) for _ in range(size)]
        for connection, accept in batch:
            how, message = rng.choice(ENDS), rng.randbytes(rng.choice(SIZES))
            outcome.attempt(f"tunnel ({how})", through, connection, accept, message, how)
            connection.close()
        outcome.done += size
    return outcome


if __name__ == "__main__":
    run(use)
