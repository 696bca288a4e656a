"""What a worker does when its limit of open files is reached."""

from __future__ import annotations

import resource
import threading
from contextlib import ExitStack

import pytest

from tests.kit import processes
from tests.kit.peers import OK, Exchange, RawTarget, get
from tests.kit.server import start_proxy

CLIENTS = 40


class AllAtOnce:
    """Answers requests when so many of them are there."""

    def __init__(self) -> None:
        self._all_there = threading.Barrier(CLIENTS, timeout=10)

    def __call__(self, exchange: Exchange) -> None:
        self._all_there.wait()
        exchange.send(OK)


@pytest.mark.ours
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_idle_connections_to_one_target_make_room_for_those_to_another(host: str) -> None:
    with ExitStack() as stack:
        first, second = (stack.enter_context(RawTarget(AllAtOnce())) for _ in range(2))
        proxy = stack.enter_context(start_proxy("--workers", "1"))
        for path, target in (("/first", first), ("/second", second)):
            proxy.api.add(path, f"http://{host}:{target.port}")
        clients = [stack.enter_context(proxy.client(20)) for _ in range(CLIENTS)]

        def ask_all(path: str) -> list[int]:
            for client in clients:
                client.send(get(path))
            return [client.read_response().status for client in clients]

        assert ask_all("/first") == [200] * CLIENTS
        worker = proxy.worker_of(clients[0])
        limit = processes.open_descriptors(worker) + CLIENTS // 2
        resource.prlimit(worker, resource.RLIMIT_NOFILE, (limit, limit))
        assert ask_all("/second") == [200] * CLIENTS
        assert ask_all("/first") == [200] * CLIENTS
