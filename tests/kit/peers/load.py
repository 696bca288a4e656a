"""Constant load: keep-alive clients that count every answer that is not the right one."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable

from tests.kit.peers.messages import Incomplete, Response
from tests.kit.peers.raw_client import RawClient, get
from tests.kit.peers.waiting import wait_until

# Seconds between an answer and the next request: the load is constant, not all that there can be.
_PAUSE = 0.01


class KeepAliveLoad:
    """``clients`` threads that repeat one GET, each on a connection that it keeps.

    A client connects again when an answer said ``Connection: close`` or after a failure.
    A failure is anything but a complete answer that ``is_right`` accepts, a request on a
    kept connection that was closed under it included.
    """

    def __init__(
        self,
        address: tuple[str, int],
        path: str,
        is_right: Callable[[Response], bool],
        clients: int = 16,
    ) -> None:
        self.address = address
        self.failures: Counter[str] = Counter()
        self.answers = 0
        self._request = get(path)
        self._is_right = is_right
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(clients)]

    def wait_for_answers(self, more: int, timeout: float = 20.0) -> None:
        """Wait until ``more`` further requests have been answered rightly."""
        goal = self.answers + more
        wait_until(
            lambda: self.answers >= goal,
            timeout,
            lambda: f"{more} more answers under load, failures {self.failures}",
        )

    def __enter__(self) -> KeepAliveLoad:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=15)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                with RawClient(self.address) as client:
                    self._use(client)
            except Exception as error:
                with self._lock:
                    self.failures[_kind_of(error)] += 1

    def _use(self, client: RawClient) -> None:
        while not self._stop.is_set():
            answer = client.request(self._request)
            with self._lock:
                if self._is_right(answer):
                    self.answers += 1
                else:
                    self.failures[f"wrong answer: {answer.start} {answer.body[:100]!r}"] += 1
            if (answer.get("connection") or "").lower() == "close":
                return
            self._stop.wait(_PAUSE)


def _kind_of(error: Exception) -> str:
    if isinstance(error, Incomplete) and not error.received:
        return "closed without an answer"
    return f"{type(error).__name__}: {error}"
