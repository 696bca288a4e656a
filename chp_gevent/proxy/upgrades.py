"""From an accepted upgrade to a running tunnel."""

from __future__ import annotations

import logging
import time

from chp_gevent.channel.segment import BYTES_FROM_CLIENTS, BYTES_TO_CLIENTS, OPEN_TUNNELS, Segment
from chp_gevent.http.access import Access, AccessEntry
from chp_gevent.http.connection import ClientConnection
from chp_gevent.http.server import HTTPServer
from chp_gevent.http.stream import Stream
from chp_gevent.http.wire import ResponseHead
from chp_gevent.proxy.resets import reset_watch
from chp_gevent.proxy.splice import splicer
from chp_gevent.proxy.tunnel import Tunnel
from chp_gevent.routing.table import Route

log = logging.getLogger("chp_gevent.proxy")


class _RouteTunnel(Tunnel):
    """A tunnel that is activity in ``slot`` of the activity table."""

    __slots__ = ("slot",)
    slot: int


class Upgrades:
    """Starts the tunnels of a worker and keeps account of them."""

    def __init__(
        self, segment: Segment, row: memoryview[int], access: Access | None = None
    ) -> None:
        self._activity = segment.activity
        self._row = row
        self.server: HTTPServer | None = None
        self._access = access
        # Of the access log, if there is one.
        self._entries: dict[Tunnel, AccessEntry] = {}
        # Path and time of opening: for the log only, and only if it wants to know.
        self._opened: dict[Tunnel, tuple[str, float]] = {}
        # One bound method each for all tunnels: closures of theirs would cost 350 bytes.
        self._transferred, self._closed = self._on_transfer, self._on_closed
        # Opened now, so that the worker's descriptors don't grow with their first use.
        splicer()
        reset_watch()

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
        """Pass the 101 on and start a tunnel; ``target`` is closed if that raises anything."""
        stream = client.stream
        stream.on_unread = None
        try:
            stream.write(answer)
            tunnel = _RouteTunnel(
                stream, target, self._transferred, self._closed, client.take_early_data(), early
            )
        except BaseException:  # such as ClientGone, while the client did not take the answer
            target.close()
            raise
        try:
            self._run(client, tunnel, route, path)
        except BaseException:
            tunnel.reset()
            raise

    def _run(self, client: ClientConnection, tunnel: _RouteTunnel, route: Route, path: str) -> None:
        tunnel.slot = route.slot
        entry = client.take_access_entry()
        if entry is not None:
            self._entries[tunnel] = entry
        assert self.server is not None
        self.server.tunnels[tunnel] = None
        self._row[OPEN_TUNNELS] = len(self.server.tunnels)
        if log.isEnabledFor(logging.DEBUG):
            self._opened[tunnel] = (path, time.monotonic())
            log.debug("tunnel opened: %s to %s", path, route.target)
        tunnel.start()

    def _on_transfer(self, tunnel: _RouteTunnel, size: int, from_client: bool) -> None:
        self._row[BYTES_FROM_CLIENTS if from_client else BYTES_TO_CLIENTS] += size
        self._activity[tunnel.slot] = time.time()

    def _on_closed(self, tunnel: _RouteTunnel) -> None:
        assert self.server is not None
        self.server.tunnels.pop(tunnel, None)
        self._row[OPEN_TUNNELS] = len(self.server.tunnels)
        self.server.made_room()
        entry = self._entries.pop(tunnel, None)
        if entry is not None and self._access is not None:
            entry.sent, entry.ended = tunnel.bytes_to_client, time.monotonic()
            self._access(entry)
        path, opened = self._opened.pop(tunnel, ("", 0.0))
        if opened:
            log.debug(
                "tunnel closed: %s after %.1f s, %d bytes from the client, %d to it",
                path,
                time.monotonic() - opened,
                tunnel.bytes_from_client,
                tunnel.bytes_to_client,
            )
