"""From an accepted upgrade to a running tunnel."""

from __future__ import annotations

import logging
import time

import gevent

from chp_gevent.channel.segment import BYTES_FROM_CLIENTS, BYTES_TO_CLIENTS, OPEN_TUNNELS, Segment
from chp_gevent.http.connection import ClientConnection
from chp_gevent.http.server import HTTPServer
from chp_gevent.http.stream import Stream
from chp_gevent.http.wire import ResponseHead
from chp_gevent.proxy.tunnel import Tunnel
from chp_gevent.routing.table import Route

log = logging.getLogger("chp_gevent.proxy")


class Upgrades:
    """Starts the tunnels of a worker and keeps account of them."""

    def __init__(self, segment: Segment, row: memoryview[int]) -> None:
        self._activity = segment.activity
        self._row = row
        self._hub = gevent.get_hub()
        self.server: HTTPServer | None = None
        self._paths: dict[Tunnel, str] = {}
        # One bound method for all tunnels: a closure for each would cost 350 bytes.
        self._closed = self._on_closed

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
            _Meter(self._row, self._activity, route.slot),
            self._closed,
            client.take_early_data(),
            early,
        )
        assert self.server is not None
        self._paths[tunnel] = path
        self.server.tunnels.add(tunnel)
        self._row[OPEN_TUNNELS] = len(self.server.tunnels)
        log.debug("tunnel opened: %s to %s", path, route.target)
        tunnel.start()

    def _on_closed(self, tunnel: Tunnel) -> None:
        path = self._paths.pop(tunnel)
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


class _Meter:
    """Counts what passes through a tunnel, as bytes and as activity of its route."""

    __slots__ = ("_activity", "_row", "_slot")

    def __init__(self, row: memoryview[int], activity: memoryview[float], slot: int) -> None:
        self._row = row
        self._activity = activity
        self._slot = slot

    def __call__(self, from_client: int, from_target: int) -> None:
        row = self._row
        row[BYTES_FROM_CLIENTS] += from_client
        row[BYTES_TO_CLIENTS] += from_target
        self._activity[self._slot] = time.time()
