"""The load beside the traffic of scripts/chaos: wrk, big bodies, WebSockets that stay open."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable

from scripts.lib.chaos.record import Attempt, Record
from scripts.lib.chaos.traffic import Client
from tests.kit.peers import RawClient
from tests.kit.peers.upgrades import receive, switched_client

BIG = 10_000_000
WEBSOCKETS = 50
CHATTY = 25
_MESSAGE = b"still here? "
# Seconds between two messages of one WebSocket, and after which an answer is missed.
_CHAT_INTERVAL = 0.2
_CHAT_TIMEOUT = 20.0
_WRK_CONNECTIONS = 64


class TimedRecord(Record):
    """Also remembers the slowest request of each kind, in seconds."""

    def __init__(self) -> None:
        super().__init__()
        self.slowest: dict[str, float] = {}

    def took(self, attempt: Attempt) -> None:
        """See ``Record``."""
        super().took(attempt)
        took = time.monotonic() - attempt.begin
        self.slowest[attempt.kind] = max(took, self.slowest.get(attempt.kind, 0.0))


class BigBodies:
    """Downloads and uploads of 10 MB, one after the other, two of each at a time."""

    def __init__(self, address: tuple[str, int], record: Record, path: str, target: str) -> None:
        self._address = address
        self._record = record
        self._path = path
        self._target = target
        self._body = bytes(range(250)) * (BIG // 250)
        self._end = threading.Event()
        works = [self._download, self._upload] * 2
        self._threads = [threading.Thread(target=self._repeat, args=(work,)) for work in works]

    def start(self) -> None:
        """Start all of them."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Let each finish."""
        self._end.set()
        for thread in self._threads:
            thread.join()

    def _repeat(self, work: Callable[[Client], None]) -> None:
        client = Client(self._address, self._record)
        while not self._end.wait(0.1):
            work(client)
        client.close()

    def _download(self, client: Client) -> None:
        path = f"{self._path}?size={BIG}"
        answer = client.request("10 MB down", self._target, "GET", path)
        if answer is not None:
            self._judge("10 MB down", len(answer[2]) == BIG, f"{len(answer[2])} bytes of {BIG}")

    def _upload(self, client: Client) -> None:
        answer = client.request("10 MB up", self._target, "POST", self._path, self._body)
        if answer is not None:
            self._judge("10 MB up", answer[2] == str(BIG).encode(), f"came as {answer[2][:50]!r}")

    def _judge(self, kind: str, right: bool, what: str) -> None:
        if right:
            self._record.succeeded(kind)
        else:
            self._record.wrong(self._record.wrong_target, f"{kind}: {what}")


class WebSockets:
    """WebSockets that are open from the start to the end; some are never silent.

    Attributes:
        echoes: messages that came back.
        broken: what went wrong with which, in words.
    """

    def __init__(self, address: tuple[str, int], path: str) -> None:
        self._clients = [
            switched_client(RawClient(address, timeout=_CHAT_TIMEOUT), path)
            for _ in range(WEBSOCKETS)
        ]
        self.echoes = 0
        self.broken: list[str] = []
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._chat)

    def start(self) -> None:
        """Begin to talk."""
        self._thread.start()

    def stop(self) -> None:
        """Stop talking; have each say something for the last time; close them."""
        self._end.set()
        self._thread.join()
        self._say(range(WEBSOCKETS))
        for client in self._clients:
            client.close()

    def _chat(self) -> None:
        while not self._end.wait(_CHAT_INTERVAL):
            self._say(range(CHATTY))

    def _say(self, numbers: range) -> None:
        asked = []
        for number in numbers:
            try:
                self._clients[number].send(_MESSAGE)
                asked.append(number)
            except OSError as error:
                self._broke(number, error)
        for number in asked:
            try:
                if receive(self._clients[number], len(_MESSAGE)) == _MESSAGE:
                    self.echoes += 1
                else:
                    self._broke(number, "other bytes")
            except (TimeoutError, OSError, EOFError, AssertionError) as error:
                self._broke(number, error)

    def _broke(self, number: int, why: object) -> None:
        self.broken.append(f"WebSocket {number}: {why!r}")


class Wrk:
    """wrk as fast as it goes, until told to stop.

    Attributes:
        is_there: whether there is one.
        requests: that were answered.
        wrong: what it complains about.
    """

    def __init__(self, url: str) -> None:
        self._program = shutil.which("wrk")
        self._url = url
        self.is_there = self._program is not None
        self.requests = 0
        self.wrong: list[str] = []

    def start(self, seconds: float) -> None:
        """Start it for so long at most."""
        if self._program is not None:
            command = [self._program, "-t1", f"-c{_WRK_CONNECTIONS}", f"-d{int(seconds)}s"]
            self._process = subprocess.Popen(
                [*command, "--timeout", "20s", self._url], stdout=subprocess.PIPE, text=True
            )

    def stop(self) -> None:
        """Stop it and read what it says."""
        if self._program is None:
            return
        self._process.send_signal(signal.SIGINT)
        said, _ = self._process.communicate(timeout=60)
        found = re.search(r"(\d+) requests in", said)
        self.requests = int(found[1]) if found else 0
        if not self.requests:
            self.wrong.append(f"wrk: {said!r}")
        self.wrong += [line.strip() for line in said.splitlines() if _COMPLAINT.search(line)]


_COMPLAINT = re.compile("Socket errors|Non-2xx")
