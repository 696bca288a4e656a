"""From an accepted upgrade to a running tunnel."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

import gevent

from chp_gevent.channel.segment import (
    BYTES_FROM_CLIENTS,
    BYTES_TO_CLIENTS,
    OPEN_TUNNELS,
    Segment,
)
from chp_gevent.proxy.connection import ClientConnection
from chp_gevent.proxy.http_server import HTTPServer
from chp_gevent.proxy.stream import Stream
from chp_gevent.proxy.tunnel import Tunnel
from chp_gevent.proxy.wire import ResponseHead
from chp_gevent.routing.table import Route

log = logging.getLogger("chp_gevent.proxy")


class Upgrades:
    """Starts the tunnels of a worker and keeps account of them."""

    def __init__(self, segment: Segment, row: memoryview[int]) -> None:
        self._activity = segment.activity
        self._row = row
        self._hub = gevent.get_hub()
        self.server: HTTPServer | None = None

    def hand_over(
        self,
        client: ClientConnection,
        target: Stream,
        early: bytes,
        response: ResponseHead,
        route: Route,
    ) -> None:
        """Arrange that ``client`` becomes a tunnel to ``target`` when its request is done."""
        path = client.head.target.partition("?")[0]

        def start() -> None:
            self._start(client, target, early, response.raw, route, path)

        client.switch_protocols(start)

    def _start(
        self,
        client: ClientConnection,
        target: Stream,
        early: bytes,
        answer: bytes,
        route: Route,
        path: str,
    ) -> None:
        stream = client.stream
        stream.on_unread = None
        try:
            stream.write(answer)
        except OSError:
            stream.close()
            target.close()
            return
        tunnel = Tunnel(
            stream,
            target,
            self._hub,
            self._meter(route.slot),
            self._on_closed(path),
            client.take_early_data(),
            early,
        )
        assert self.server is not None
        self.server.tunnels.add(tunnel)
        self._row[OPEN_TUNNELS] = len(self.server.tunnels)
        log.debug("tunnel opened: %s to %s", path, route.target)
        tunnel.start()

    def _meter(self, slot: int) -> Callable[[int, int], None]:
        row, activity, now = self._row, self._activity, time.time

        def count(from_client: int, from_target: int) -> None:
            row[BYTES_FROM_CLIENTS] += from_client
            row[BYTES_TO_CLIENTS] += from_target
            activity[slot] = now()

        return count

    def _on_closed(self, path: str) -> Callable[[Any], None]:
        def closed(tunnel: Any) -> None:
            assert self.server is not None
            self.server.tunnels.discard(tunnel)
            self._row[OPEN_TUNNELS] = len(self.server.tunnels)
            self.server.made_room()
            log.debug(
                "tunnel closed: %s after %.1f s, %d bytes from the client, %d to it",
                path,
                tunnel.duration,
                tunnel.bytes_from_client,
                tunnel.bytes_to_client,
            )

        return closed
