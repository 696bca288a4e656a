"""Tunnels through a running server, each through another one of its workers."""

from __future__ import annotations

from tests.kit.peers import RawClient, wait_until
from tests.kit.peers.upgrades import switched_client
from tests.kit.server import Proxy


def tunnel_elsewhere(proxy: Proxy, workers: set[int]) -> RawClient:
    """Open a tunnel at ``/`` on a worker that is not one of ``workers``, and add that one to them.

    Raises AssertionError when there is none within ten seconds.
    """

    def opened() -> RawClient | None:
        client = switched_client(proxy.client(), "/")
        worker = proxy.worker_of(client)
        if worker in workers:
            client.close()  # an old one accepts until it has been told to stop
            return None
        workers.add(worker)
        return client

    return wait_until(opened, 10, "a tunnel on another worker")
