"""The requests that wrk does not send: chunks, downloads, pipelines, clients that leave."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from scripts.lib.soak.client import Connection, KeptConnection, Outcome, Wrong, run
from scripts.lib.soak.target import CHUNKED_END
from scripts.lib.soak.tunnels import opened
from tests.kit.peers import chunked

DOWNLOAD = 1024 * 1024
PIPELINED = 3
BODY = bytes(range(256)) * 400


class Sender:
    """Sends requests of each kind: on one kept connection, or on one that is its own."""

    def __init__(self, port: int, rng: random.Random) -> None:
        self._port = port
        self._rng = rng
        self._kept = KeptConnection(port)
        self.kinds: dict[str, Callable[[], None]] = {
            "download": self._download,
            "chunked upload": self._chunked_upload,
            "chunked answer": self._chunked_answer,
            "pipelined": self._pipelined,
            "refused upgrade": self._refused_upgrade,
            "client leaves": self._leave,
        }

    def send(self, kind: str) -> None:
        """Send one of a kind. Raises ``Wrong`` or ``OSError``; the connection is gone then."""
        try:
            self.kinds[kind]()
        except (Wrong, OSError):
            self.close()
            raise

    def close(self) -> None:
        """Close the kept connection."""
        self._kept.close()

    def _connection(self) -> Connection:
        """The kept connection, every now and then a new one."""
        if self._rng.random() < 0.05:
            self._kept.close()
        return self._kept.get()

    def _exchange(self, request: bytes) -> bytes:
        connection = self._connection()
        connection.send(request)
        status, body = connection.answer()
        if status not in (200, 206):
            raise Wrong(f"answered {status}")
        return body

    def _head(self, line: str, *fields: str) -> bytes:
        identity = f"X-Request-Id: {self._rng.randrange(10**9)}"
        lines = (f"{line} HTTP/1.1", "Host: soak.test", identity, *fields)
        return "\r\n".join([*lines, "", ""]).encode()

    def _download(self) -> None:
        request = self._head("GET /kept/files/10m", f"Range: bytes=0-{DOWNLOAD - 1}")
        if len(self._exchange(request)) != DOWNLOAD:
            raise Wrong("the body has another length")

    def _chunked_upload(self) -> None:
        head = self._head("POST /kept/sink/chunks", "Transfer-Encoding: chunked")
        chunks = [BODY[: self._rng.choice((1, 100, 5000, 50_000))] for _ in range(3)]
        if self._exchange(head + chunked(*chunks)) != b"ok":
            raise Wrong("another body")

    def _chunked_answer(self) -> None:
        if not self._exchange(self._head("GET /kept/own/chunked")).endswith(CHUNKED_END):
            raise Wrong("another body")

    def _pipelined(self) -> None:
        connection = self._connection()
        connection.send(self._head("GET /kept/files/1k") * PIPELINED)
        for _ in range(PIPELINED):
            status, body = connection.answer()
            if status != 200 or len(body) != 1024:
                raise Wrong(f"answered {status}, {len(body)} bytes")

    def _refused_upgrade(self) -> None:
        path, expected = self._rng.choice((("/nowhere", 404), ("/kept/dead", 503)))
        connection, _ = opened(self._port, path, self._rng)
        status, _ = connection.answer()
        connection.close()
        if status != expected:
            raise Wrong(f"answered {status} instead of {expected}")

    # -- clients that leave

    def _leave(self) -> None:
        connection = Connection(self._port)
        self._rng.choice((self._in_head, self._in_upload, self._waiting, self._in_download))(
            connection
        )
        self._rng.choice((connection.close, connection.reset))()

    def _in_head(self, connection: Connection) -> None:
        connection.send(self._head("GET /kept/files/1k")[:-20])

    def _in_upload(self, connection: Connection) -> None:
        length = len(BODY)
        head = self._head("POST /kept/sink/left", f"Content-Length: {length}")
        connection.send(head + BODY[: self._rng.randrange(length)])

    def _waiting(self, connection: Connection) -> None:
        connection.send(self._head("GET /kept/own/late"))

    def _in_download(self, connection: Connection) -> None:
        connection.send(self._head("GET /kept/files/10m"))
        connection.take(self._rng.randrange(1, 300_000))


def send_all(order: dict[str, Any]) -> Outcome:
    """Send the ``requests``, so many of each kind, in random order."""
    rng = random.Random(order["seed"])
    outcome = Outcome()
    sender = Sender(order["port"], rng)
    kinds = [kind for kind, count in order["requests"].items() for _ in range(count)]
    rng.shuffle(kinds)
    for kind in kinds:
        outcome.attempt(kind, sender.send, kind)
        outcome.done += 1
    sender.close()
    return outcome


if __name__ == "__main__":
    run(send_all)
