"""When a worker notices that it is to stop."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import closing
from types import SimpleNamespace
from typing import Any

import gevent
import pytest

from chp_gevent.proxy import worker as module
from chp_gevent.proxy.worker import ProxyWorker
from chp_gevent.runtime.signals import STOP_SIGNALS
from chp_gevent.shared.segment import HEADER_WORDS


class IdleServer:
    """A server without connections."""

    busy = 0
    tunnels = ()
    open_connections = 0
    drained = False

    def start(self) -> None:
        """Listen to nobody."""

    def drain(self) -> None:
        """Note that the worker stops."""
        self.drained = True

    def join(self, timeout: float, *, tunnels: bool) -> bool:
        """Nothing is in flight."""
        return True

    def give_up_heads(self) -> None:
        """Nobody is sending one."""

    def stop(self) -> None:
        """Nothing to close."""


class BeatingWorker(ProxyWorker):
    """A worker without processes around it; ``serving`` is set at its first heartbeat."""

    def __init__(self, server: Any) -> None:
        self.alive = True
        self.server = server
        self.sockets: list[Any] = []
        self.options = SimpleNamespace(  # type: ignore[assignment]
            drain_timeout=30.0, reload_drain_timeout=30.0
        )
        self.segment = SimpleNamespace(words=[0] * len(HEADER_WORDS))  # type: ignore[assignment]
        self.upstream = SimpleNamespace(close=lambda: None)  # type: ignore[assignment]
        self.serving = threading.Event()
        # As gunicorn does for a worker.
        self.PIPE = os.pipe()
        for descriptor in self.PIPE:
            os.set_blocking(descriptor, False)
        signal.set_wakeup_fd(self.PIPE[1])

    def close(self) -> None:
        """Close what gunicorn leaves to the end of the process."""
        signal.set_wakeup_fd(-1)
        self._signals.close()
        for descriptor in self.PIPE:
            os.close(descriptor)

    def _beat(self) -> None:
        self.serving.set()


@pytest.fixture(autouse=True)
def stop_signals() -> Iterator[None]:
    """Leave this process the handlers that it has: a worker that ends ignores stop signals."""
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_worker_stops_on_sigterm_and_not_at_its_next_heartbeat(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "HEARTBEAT", 3600.0)
    server = IdleServer()
    worker = BeatingWorker(server)
    signal.signal(signal.SIGTERM, worker.handle_exit)

    def stop_it() -> None:
        assert worker.serving.wait(20)
        os.kill(os.getpid(), signal.SIGTERM)

    stopper = threading.Thread(target=stop_it)
    stopper.start()
    with closing(worker), gevent.Timeout(30):
        worker.run()
    stopper.join()
    assert server.drained


def test_a_worker_that_is_told_to_stop_before_it_serves_does_not_serve() -> None:
    server = IdleServer()
    worker = BeatingWorker(server)
    worker.handle_exit(signal.SIGTERM, None)
    with closing(worker), gevent.Timeout(30):
        worker.run()
    assert server.drained


def test_the_heartbeat_belongs_to_who_the_worker_will_be(monkeypatch: pytest.MonkeyPatch) -> None:
    owners: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "fchown", lambda file, uid, gid: owners.append((uid, gid)))
    ours = SimpleNamespace(uid=os.geteuid(), gid=os.getegid())
    module.MemoryHeartbeat(ours).close()
    assert owners == []
    module.MemoryHeartbeat(SimpleNamespace(uid=ours.uid + 1, gid=ours.gid)).close()
    assert owners == [(ours.uid + 1, ours.gid)]
