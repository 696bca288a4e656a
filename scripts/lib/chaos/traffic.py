"""The clients: requests, uploads, downloads, tunnels and API changes, a thread each."""

from __future__ import annotations

import http.client
import json
import os
import random
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable

from scripts.lib.chaos.record import Attempt, Record
from tests.kit.peers.loopback import reset_on_close
from tests.kit.peers.stream_targets import PATTERN
from tests.kit.peers.upgrades import upgrade

# Seconds. Longer than a process is stopped for, several times over.
TIMEOUT = 45.0


class Failed(Exception):
    """A request without a whole answer; ``answered`` when it was a 503."""

    def __init__(self, why: str, *, answered: bool = False) -> None:
        super().__init__(why)
        self.answered = answered


class Client:
    """Sends requests over a kept connection, and notes what becomes of each."""

    def __init__(
        self, address: tuple[str, int], record: Record, tls: ssl.SSLContext | None = None
    ) -> None:
        self._address = address
        self._record = record
        self._tls = tls
        self._connection: http.client.HTTPConnection | None = None
        self._port = 0
        self._connected = 0.0

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def abort(self) -> None:
        """Break the connection off with a reset."""
        if self._connection is not None and self._connection.sock is not None:
            reset_on_close(self._connection.sock)
        self.close()

    def request(
        self,
        kind: str,
        target: str,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        abort: bool = False,
    ) -> tuple[int, http.client.HTTPMessage, bytes] | None:
        """Return status, headers and body; None (and a note) when there was no whole answer.

        ``target`` is who should answer. ``abort`` breaks the request off half way.
        """
        self._record.began(kind)
        begin = time.monotonic()
        what = f"{method} {path}"
        self._ready(begin)
        try:
            connection = self._open()
            connection.request(method, path, body, headers or {})
            if abort:
                self.abort()
                self._record.was_aborted()
                return None
            answer = connection.getresponse()
            status, fields, data = answer.status, answer.headers, answer.read()
        except (OSError, http.client.HTTPException) as error:
            self._note(Attempt(kind, what, target, self._port, self._connected, begin), error)
            return None
        if status == 503:
            attempt = Attempt(kind, what, target, self._port, self._connected, begin)
            self._record.failed(attempt, "503", answered=True)
            return None
        self._record.took(Attempt(kind, what, target, self._port, self._connected, begin))
        return status, fields, data

    def _note(self, attempt: Attempt, error: BaseException) -> None:
        self.close()
        self._record.failed(attempt, repr(error))

    def _ready(self, now: float) -> None:
        """Let go of a connection that the server has closed while it was idle."""
        sock = self._connection.sock if self._connection is not None else None
        if sock is None or _has_something(sock):
            self.close()
            self._port, self._connected = 0, now

    def _open(self) -> http.client.HTTPConnection:
        if self._connection is None:
            connection = http.client.HTTPConnection(*self._address, timeout=TIMEOUT)
            connection.connect()
            # Known before the handshake: the worker may be killed during that.
            self._port = connection.sock.getsockname()[1]
            if self._tls is not None:
                connection.sock = self._tls.wrap_socket(connection.sock)
            self._connection = connection
        return self._connection


def _has_something(sock: socket.socket) -> bool:
    """Whether data or the end of the connection wait to be read."""
    # select(2) takes no descriptors from 1,024 on.
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))


class Traffic:
    """All clients. ``targets`` are names; routes ``/kept/NAME`` lead to them from the start."""

    def __init__(
        self,
        record: Record,
        address: tuple[str, int],
        api: tuple[str, int],
        token: str,
        targets: dict[str, str],
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._record = record
        self._address = address
        self._api = api
        self._token = token
        self._targets = targets
        self._tls = tls
        self._end = threading.Event()
        self._threads: list[threading.Thread] = []
        self.model: dict[str, str] = {}
        self.crashes: list[str] = []

    def start(self, seed: int) -> None:
        """Start every client in a thread."""
        works = [self._requests] * 8 + [self._uploads] * 3 + [self._downloads] * 3
        works += [self._tunnels] * 6 + [self._changes] * 4
        for number, work in enumerate(works):
            rng = random.Random(f"{seed} {number}")
            thread = threading.Thread(target=self._run, args=(work, rng, number), daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """Let every client finish what it is doing."""
        self._end.set()
        for thread in self._threads:
            thread.join(2 * TIMEOUT)
        if any(thread.is_alive() for thread in self._threads):
            self.crashes.append("a client did not come to its end")

    def _run(self, work: Callable[[random.Random, int], None], rng: random.Random, n: int) -> None:
        try:
            work(rng, n)
        except Exception as error:
            self.crashes.append(f"client {work.__name__}: {error!r}")
            raise

    def _requests(self, rng: random.Random, number: int) -> None:
        client = Client(self._address, self._record, self._tls)
        count = 0
        while not self._end.wait(rng.uniform(0, 0.03)):
            count += 1
            name = rng.choice(sorted(self._targets))
            path = f"/kept/{name}/{number}/{count}"
            abort = rng.random() < 0.02
            self._kept(client, "request", name, "GET", path, abort=abort)
            if rng.random() < 0.1:
                client.close()
        client.close()

    def _uploads(self, rng: random.Random, number: int) -> None:
        client = Client(self._address, self._record, self._tls)
        count = 0
        while not self._end.wait(rng.uniform(0, 0.1)):
            count += 1
            name = rng.choice(sorted(self._targets))
            body = PATTERN[: rng.choice((10, 1000, 65536))] * rng.choice((1, 1, 30))
            path = f"/kept/{name}/{number}/{count}"
            data = self._kept(client, "upload", name, "POST", path, body, rng.random() < 0.02)
            if data is not None and data != str(len(body)).encode():
                self._record.wrong(self._record.wrong_target, f"upload came as {data!r}")
        client.close()

    def _downloads(self, rng: random.Random, number: int) -> None:
        client = Client(self._address, self._record, self._tls)
        while not self._end.wait(rng.uniform(0, 0.1)):
            name = rng.choice(sorted(self._targets))
            size = rng.choice((1, 100_000, 3_000_000))
            path = f"/kept/{name}/{number}?size={size}"
            abort = rng.random() < 0.05
            data = self._kept(client, "download", name, "GET", path, abort=abort)
            if data is not None and len(data) != size:
                self._record.wrong(self._record.wrong_target, f"{len(data)} bytes of {size}")
        client.close()

    def _kept(
        self,
        client: Client,
        kind: str,
        name: str,
        method: str,
        path: str,
        body: bytes | None = None,
        abort: bool = False,
    ) -> bytes | None:
        """Ask by a route that never changes; return the body of the right answer."""
        answer = client.request(kind, name, method, path, body, abort=abort)
        if answer is None:
            return None
        status, headers, data = answer
        if status == 404:
            self._record.wrong(self._record.lost, f"{method} {path}: 404")
        elif (headers.get("X-Target"), headers.get("X-Asked")) != (name, path):
            seen = f"{status} from {headers.get('X-Target')} for {headers.get('X-Asked')}"
            self._record.wrong(self._record.wrong_target, f"{method} {path}: {seen}")
        else:
            self._record.succeeded(kind)
            return data
        return None

    # -- tunnels

    def _tunnels(self, rng: random.Random, number: int) -> None:
        while not self._end.wait(rng.uniform(0, 0.2)):
            name = rng.choice(sorted(self._targets))
            self._record.began("tunnel")
            begin = time.monotonic()
            port = 0
            try:
                with socket.create_connection(self._address, timeout=TIMEOUT) as plain:
                    port = plain.getsockname()[1]
                    tls = self._tls
                    with tls.wrap_socket(plain) if tls is not None else plain as sock:
                        if self._tunnel(sock, name, rng):
                            self._record.succeeded("tunnel")
            except (OSError, Failed) as error:
                answered = isinstance(error, Failed) and error.answered
                attempt = Attempt("tunnel", "GET", name, port, begin, begin)
                self._record.failed(attempt, repr(error), answered=answered)

    def _tunnel(self, sock: socket.socket, name: str, rng: random.Random) -> bool:
        """Echo through a tunnel for a while; false when we broke it off on purpose."""
        sock.sendall(upgrade(f"/kept/{name}/tunnel").encode())
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += self._received(sock, 1)
        if b" 101 " not in head:
            line = head.split(b"\r\n")[0].decode()
            if " 404 " in line:
                self._record.wrong(self._record.lost, f"tunnel to {name}: {line}")
            raise Failed(line, answered=" 503 " in line)
        if f"X-Target: {name}\r\n".encode() not in head:
            self._record.wrong(self._record.wrong_target, f"tunnel to {name}: {head!r}")
        for _ in range(rng.randrange(1, 60)):
            if self._end.is_set():
                break
            sent = os.urandom(rng.choice((5, 500, 20_000)))
            sock.sendall(sent)
            if self._received(sock, len(sent)) != sent:
                self._record.wrong(self._record.wrong_target, f"tunnel to {name}: other bytes")
            if rng.random() < 0.005:
                reset_on_close(sock)
                self._record.was_aborted()
                return False
            self._end.wait(0.02)
        return True

    @staticmethod
    def _received(sock: socket.socket, size: int) -> bytes:
        data = b""
        while len(data) < size:
            piece = sock.recv(size - len(data))
            if not piece:
                raise Failed(f"the tunnel ended with {size - len(data)} bytes missing")
            data += piece
        return data

    # -- changes of the table

    def _changes(self, rng: random.Random, number: int) -> None:
        """Change routes of our own; the request after each answer must obey it."""
        api = Client(self._api, self._record)
        kept = Client(self._address, self._record, self._tls)
        count = 0
        while not self._end.is_set():
            count += 1
            path = f"/changed/{number}/{rng.randrange(20)}"
            name = rng.choice(sorted(self._targets))
            if rng.random() < 0.3:
                self._change(api, path, None)
            else:
                self._change(api, path, name)
            self._check(kept, path, f"/{count}/kept")
            fresh = Client(self._address, self._record, self._tls)
            self._check(fresh, path, f"/{count}/fresh")
            fresh.close()
        api.close()
        kept.close()

    def _change(self, api: Client, path: str, name: str | None) -> None:
        """Add a route to ``name``, or remove it, until the API has said that it is done."""
        headers = {"Authorization": f"token {self._token}"}
        url = f"/api/routes{path}"
        while True:
            if name is None:
                answer = api.request("change", "", "DELETE", url, headers=headers)
                expected: tuple[int, ...] = (204, 404)
            else:
                body = json.dumps({"target": self._targets[name], "filler": "x" * 300}).encode()
                answer = api.request("change", "", "POST", url, body, headers)
                expected = (201,)
            if answer is None:
                if self._record.ended is not None:
                    return
                time.sleep(0.01)
                continue
            if answer[0] not in expected:
                self._record.wrong(self._record.unexplained, f"API: {answer[0]} {answer[2]!r}")
            self._record.succeeded("change")
            break
        if name is None:
            self.model.pop(path, None)
        else:
            self.model[path] = name

    def _check(self, client: Client, path: str, rest: str) -> None:
        name = self.model.get(path)
        answer = client.request("request", name or "", "GET", path + rest)
        if answer is None:
            return
        status, headers, _ = answer
        seen = headers.get("X-Target") if status == 200 else None
        if (status, seen) == ((200, name) if name else (404, None)):
            self._record.succeeded("request")
            return
        what = f"GET {path}{rest}: {status} from {seen} instead of {name}"
        routed = status in (200, 404)
        self._record.wrong(self._record.stale if routed else self._record.unexplained, what)
