"""A running server between clients and a target that both send mutated messages."""

from __future__ import annotations

import contextlib
import random
import re
import secrets
import select
import socket
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from chp_gevent.http.errors import IncompleteMessage, WireError
from chp_gevent.http.h1.bodies import body_decoder
from chp_gevent.http.h1.heads import HEAD_END, RequestHead, parse_request_head
from chp_gevent.http.limits import LimitOptions
from scripts.lib.fuzz.corpus import named, request_corpus, response_corpus
from scripts.lib.fuzz.mutation import Mutator
from tests.kit import processes
from tests.kit.crash_lines import CRASH
from tests.kit.llhttp_oracle import check_request
from tests.kit.peers.loopback import LoopbackServer, reset_on_close
from tests.kit.server import Proxy, start_proxy

WORKERS = 2
CLIENTS = 6
# Seconds that a request of somebody else may take.
PATIENCE = 2.0
# What a worker may grow by, in bytes: what is remembered of messages is at most 26 MB.
MOST_GROWTH = 60 << 20
_TOKEN_FIELD = "x-written-by-the-proxy"
_NAME = re.compile(rb"c-[0-9a-f]{16}")
_FLAGS = "--proxy-timeout 1500 --timeout 4000 --body-timeout 4000 --header-timeout 4000".split()
# Limits of the proxy's are for clients; what it writes is longer.
_LIMITS = LimitOptions(max_request_line=1 << 20, max_header_size=1 << 20, max_headers=10_000)


@dataclass
class Findings:
    """What was found, and what was done.

    Attributes:
        found: what went wrong, in a line each.
        counts: of requests, responses, probes.
        sent: names of requests, and the bytes that the last ones' clients sent.
    """

    found: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    sent: dict[bytes, bytes] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, text: str) -> None:
        """Take note of a finding."""
        with self.lock:
            if len(self.found) < 100:
                self.found.append(text)

    def count(self, what: str) -> None:
        """Count something."""
        with self.lock:
            self.counts[what] += 1

    def remember(self, name: bytes, raw: bytes) -> None:
        """Remember what a client sends, and that this is its name."""
        with self.lock:
            self.sent[name] = raw
            if len(self.sent) > 50_000:
                del self.sent[next(iter(self.sent))]

    def foreign(self, received: bytes, own: bytes) -> set[bytes]:
        """Return the names of others in what somebody has received."""
        seen = set(_NAME.findall(received)) - {own}
        with self.lock:
            return {name for name in seen if name in self.sent}


class MutatingTarget(LoopbackServer):
    """Answers with mutated responses; looks whether the proxy has written what it receives.

    ``token`` is what the proxy adds to each request, and no client knows.
    """

    def __init__(self, findings: Findings, seed: int, token: str) -> None:
        super().__init__()
        self._findings = findings
        self._seed = seed
        self._token = token
        self._corpus = response_corpus()

    def serve(self, connection: socket.socket, index: int) -> None:
        """Answer the requests of a connection until one side has had enough."""
        chance = random.Random(f"{self._seed} {index}")
        mutator = Mutator(self._corpus, chance)
        connection.settimeout(5)
        received = b""
        with contextlib.suppress(OSError):
            while True:
                taken = self._receive(connection, received)
                if taken is None:
                    return
                head, message, received = taken
                self.judge(head, message)
                if not self._answer(connection, head, mutator, chance) or head.upgrade:
                    # Behind a 101, what comes is the client's, byte for byte.
                    return

    def _receive(
        self, connection: socket.socket, received: bytes
    ) -> tuple[RequestHead, bytes, bytes] | None:
        """Return a request, its bytes and what is behind it; None at the end."""
        while HEAD_END not in received:
            data = connection.recv(65536)
            if not data:
                return None
            received += data
        block, _, behind = received.partition(HEAD_END)
        try:
            head = parse_request_head(block, _LIMITS)
            decoder = body_decoder(head)
            message, piece = block + HEAD_END, behind
            while not decoder.done:
                decoder.feed(piece)
                while decoder.backlog:
                    decoder.feed(b"")
                message += piece
                if not decoder.done:
                    piece = connection.recv(65536)
                    if not piece:
                        return None
        except IncompleteMessage:
            return None
        except WireError as error:
            self._findings.add(f"the proxy wrote what is no request ({error}): {received[:2000]!r}")
            return None
        rest = bytes(decoder.rest) if head.has_body else behind
        return head, message[: len(message) - len(rest)] if head.has_body else message, rest

    def judge(self, head: RequestHead, message: bytes) -> None:
        """Look whether a request is one of the proxy's, and llhttp's too."""
        self._findings.count("requests at the target")
        tokens = [each.value for each in head.fields if each.lower == _TOKEN_FIELD]
        if tokens != [self._token]:
            self._findings.add(f"a request that the proxy has not written: {message[:2000]!r}")
        try:
            check_request(message)
        except AssertionError as error:
            self._findings.add(f"llhttp reads it otherwise ({error}): {message[:2000]!r}")

    def _answer(
        self,
        connection: socket.socket,
        head: RequestHead,
        mutator: Mutator,
        chance: random.Random,
    ) -> bool:
        if head.target.endswith("/probe"):
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nprobe")
            return True
        found = _NAME.search(head.target.encode("latin-1"))
        name = found[0] if found else b"c-nobody----------"
        for piece in mutator.pieces(named(mutator.message(), name)):
            connection.sendall(piece)
            if chance.random() < 0.1:
                time.sleep(chance.random() / 50)
        end = chance.randrange(10)
        if end == 0:
            reset_on_close(connection)
        return end > 2


class MutatingClient(threading.Thread):
    """Sends mutated requests, on one connection after another."""

    def __init__(
        self, address: tuple[str, int], findings: Findings, seed: str, stop: threading.Event
    ) -> None:
        super().__init__(daemon=True)
        self._address = address
        self._findings = findings
        self._chance = random.Random(seed)
        self._mutator = Mutator(request_corpus(), self._chance)
        self._stop_event = stop

    def run(self) -> None:
        """Go on until told to stop."""
        while not self._stop_event.is_set():
            self.connect_once()

    def connect_once(self) -> None:
        """Send up to four requests on a connection, and look whose answers come."""
        chance = self._chance
        name = b"c-%016x" % chance.getrandbits(64)
        count = chance.choice((1, 1, 1, 2, 4))
        raw = b"".join(named(self._mutator.message(), name) for _ in range(count))
        self._findings.remember(name, raw)
        self._findings.count("connections of clients")
        with contextlib.suppress(OSError), socket.create_connection(self._address, 3) as sock:
            for piece in self._mutator.pieces(raw):
                sock.sendall(piece)
                if chance.random() < 0.05:
                    time.sleep(chance.random() / 20)
            end = chance.randrange(10)
            if end == 0:
                reset_on_close(sock)
                return
            if end < 6:
                sock.shutdown(socket.SHUT_WR)
            received = _received(sock, 0.3 if end < 9 else 3.0)
            if foreign := self._findings.foreign(received, name):
                others = [self._findings.sent.get(each, b"")[:1000] for each in foreign]
                self._findings.add(
                    f"a client got what belongs to another: sent {raw[:2000]!r}, "
                    f"received {received[:2000]!r}, the other sent {others!r}"
                )


def _received(sock: socket.socket, quiet: float) -> bytes:
    """Return what comes until the end, or until nothing comes for so many seconds."""
    received = b""
    while select.select([sock], [], [], quiet)[0]:
        data = sock.recv(65536)
        if not data:
            break
        received += data
        if len(received) > 1 << 20:
            break
    return received


class Prober(threading.Thread):
    """Somebody else, whose requests have to be answered meanwhile."""

    def __init__(self, proxy: Proxy, findings: Findings, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self._proxy = proxy
        self._findings = findings
        self._stop_event = stop

    def run(self) -> None:
        """Ask five times a second."""
        while not self._stop_event.wait(0.2):
            began = time.monotonic()
            try:
                with self._proxy.client(timeout=PATIENCE) as client:
                    answer = client.request("GET /probe HTTP/1.1\r\nHost: probe\r\n\r\n")
                good = (answer.status, answer.body) == (200, b"probe")
                outcome = f"{answer.status} {answer.body[:100]!r}"
            except (OSError, ValueError, AssertionError) as error:
                good, outcome = False, f"{type(error).__name__}: {error}"
            self._findings.count("probes")
            if not good:
                seconds = time.monotonic() - began
                self._findings.add(f"a probe after {seconds:.1f} s: {outcome}")


def fuzz(seconds: float, seed: int, log: Path | None = None) -> Findings:
    """Fuzz a server of its own for so many seconds; return what was found."""
    findings = Findings()
    token = secrets.token_hex(16)
    flags = [*_FLAGS, "--custom-header", f"{_TOKEN_FIELD}: {token}"]
    with (
        MutatingTarget(findings, seed, token) as target,
        start_proxy(*flags, "--default-target", target.url, workers=WORKERS) as proxy,
    ):
        workers = proxy.worker_pids()
        stop = threading.Event()
        clients: list[threading.Thread] = [
            MutatingClient(proxy.address, findings, f"{seed} {number}", stop)
            for number in range(CLIENTS)
        ]
        clients.append(Prober(proxy, findings, stop))
        for client in clients:
            client.start()
        # What is remembered of messages has filled up by then, mostly.
        stop.wait(min(60.0, seconds / 3))
        before = _memory(workers)
        end = time.monotonic() + seconds - min(60.0, seconds / 3)
        while time.monotonic() < end and not findings.found:
            stop.wait(min(1.0, max(0.0, end - time.monotonic())))
        stop.set()
        for client in clients:
            client.join(15)
        _judge_processes(proxy, workers, before, findings)
        if log is not None:
            log.write_text(proxy.log(), "utf-8")
    return findings


def _memory(pids: set[int]) -> dict[int, int]:
    return {process.pid: process.rss for pid in pids for process in processes.tree(pid)}


def _judge_processes(
    proxy: Proxy, workers: set[int], before: dict[int, int], findings: Findings
) -> None:
    """Look whether the processes are the same, and have not grown, and what the log says."""
    if proxy.worker_pids() != workers:
        findings.add(f"workers {workers} are {proxy.worker_pids()} now")
    for pid, rss in _memory(workers).items():
        grown = rss - before.get(pid, rss)
        findings.counts[f"KiB grown, worker {pid}"] = grown >> 10
        if grown > MOST_GROWTH:
            findings.add(f"worker {pid} has grown by {grown >> 20} MiB")
    for line in proxy.log().splitlines():
        if CRASH.search(line):
            findings.add(f"log: {line}")
