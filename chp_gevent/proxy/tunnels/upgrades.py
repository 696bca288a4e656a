"""From an accepted upgrade to a running tunnel."""

from __future__ import annotations

import logging
import time

from chp_gevent.http.access_entry import Access, AccessEntry
from chp_gevent.http.open_tunnels import OpenTunnels
from chp_gevent.http.stream import Stream
from chp_gevent.proxy.tunnels.hangup_watch import hangup_watch
from chp_gevent.proxy.tunnels.splice import splicer
from chp_gevent.proxy.tunnels.tunnel import Tunnel
from chp_gevent.routing.table import Route
from chp_gevent.shared.segment import BYTES_FROM_CLIENTS, BYTES_TO_CLIENTS, OPEN_TUNNELS, Segment

log = logging.getLogger("chp_gevent.proxy")


class RouteTunnel(Tunnel):
    """A tunnel that is activity in ``slot`` of the activity table."""

    __slots__ = ("slot",)
    slot: int


class TunnelStarter:
    """Starts the tunnels of a worker and keeps account of them.

    Args:
        segment: where activity is noted.
        row: the account of the worker.
        tunnels: those that are open; a server's.
        access: is told of each tunnel that has ended, if there is an access log.
    """

    def __init__(
        self,
        segment: Segment,
        row: memoryview[int],
        tunnels: OpenTunnels,
        access: Access | None = None,
    ) -> None:
        self._activity = segment.activity
        self._row = row
        self._tunnels = tunnels
        self._access = access
        # Of the access log, if there is one.
        self._entries: dict[Tunnel, AccessEntry] = {}
        # Path and time of opening: for the log only, and only if it wants to know.
        self._opened: dict[Tunnel, tuple[str, float]] = {}
        # One bound method each for all tunnels: closures of theirs would cost 350 bytes.
        self._transferred, self._closed = self._on_transfer, self._on_closed
        # Opened now, so that the worker's descriptors don't grow with their first use.
        splicer()
        hangup_watch()

    def tunnel(
        self, client: Stream, target: Stream, early_from_client: bytes, early_from_target: bytes
    ) -> RouteTunnel:
        """Return a tunnel between two streams, which is to be started."""
        return RouteTunnel(
            *(client, target, self._transferred, self._closed),
            *(early_from_client, early_from_target),
        )

    def start(
        self, tunnel: RouteTunnel, route: Route, path: str, entry: AccessEntry | None
    ) -> None:
        """Take account of a tunnel and start it.

        ``path`` is what was asked for. What this raises resets both sides.
        """
        tunnel.slot = route.slot
        if entry is not None:
            self._entries[tunnel] = entry
        try:
            self._tunnels.add(tunnel)
            self._row[OPEN_TUNNELS] = len(self._tunnels)
            if log.isEnabledFor(logging.DEBUG):
                self._opened[tunnel] = (path, time.monotonic())
                log.debug("tunnel opened: %s to %s", path, route.target)
            tunnel.start()
        except BaseException:
            tunnel.reset()
            raise

    def _on_transfer(self, tunnel: RouteTunnel, size: int, from_client: bool) -> None:
        self._row[BYTES_FROM_CLIENTS if from_client else BYTES_TO_CLIENTS] += size
        self._activity[tunnel.slot] = time.time()

    def _on_closed(self, tunnel: RouteTunnel) -> None:
        self._tunnels.discard(tunnel)
        self._row[OPEN_TUNNELS] = len(self._tunnels)
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


class TargetUpgrade:
    """The protocol that a target has accepted: an :class:`~chp_gevent.http.request.Upgrade`.

    Args:
        starter: starts the tunnel.
        target: the target's stream.
        early: what the target has sent behind its 101.
        route: of the request.
        path: of the request.
    """

    __slots__ = ("_early", "_path", "_route", "_starter", "_target")

    def __init__(
        self, starter: TunnelStarter, target: Stream, early: bytes, route: Route, path: str
    ) -> None:
        self._starter = starter
        self._target = target
        self._early = early
        self._route = route
        self._path = path

    def start(self, stream: Stream, early: bytes, entry: AccessEntry | None) -> None:
        """See ``Upgrade``."""
        tunnel = self._starter.tunnel(stream, self._target, early, self._early)
        self._starter.start(tunnel, self._route, self._path, entry)

    def abandon(self) -> None:
        """See ``Upgrade``."""
        self._target.close()
