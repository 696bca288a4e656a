"""Counters and timings for statsd, under the names that CHP 2 to 4 sent."""

from __future__ import annotations

import logging
import socket
from collections.abc import Sequence
from typing import Any

import gevent
from statsd import StatsClient

from chp_gevent.config.options import StatsdOptions
from chp_gevent.management.counters import Totals, read_totals
from chp_gevent.names.addresses import Address, literal_address
from chp_gevent.names.resolver import NameUnanswered, Resolver
from chp_gevent.shared.segment import Segment

_NS_PER_MS = 1_000_000

# Seconds between two attempts to look the name of the host up.
_RETRY_INTERVAL = 30.0
# Seconds that a look-up may take. A server that stops sends what is left, and waits no longer.
_LOOK_UP_TIMEOUT = 3.0


class _ConnectedClient(StatsClient):
    """A client that says when it can't send: statsd's own swallows every error.

    Connected, so that the kernel reports a port that nobody listens on.
    """

    def __init__(self, address: Address, options: StatsdOptions) -> None:
        is_ipv6 = address.family == socket.AF_INET6
        host = f"{address.host}%{address.scope}" if address.scope else address.host
        super().__init__(host, options.port, options.prefix or None, ipv6=is_ipv6)
        self._sock.connect(self._addr)
        self._sock.setblocking(False)

    def _send(self, data: str) -> None:
        self._sock.send(data.encode("ascii"))


class StatsdReporter:
    """Sends what has been counted since the last time, in one pipeline.

    Args:
        options: where to send it.
        segment: the shared segment, which has the counters.
        log: the server's logger.
        resolver: what looks the name of the host up.
    """

    def __init__(
        self,
        options: StatsdOptions,
        segment: Segment,
        log: logging.Logger,
        resolver: Resolver | None = None,
    ) -> None:
        self._options = options
        self._resolver = Resolver(_LOOK_UP_TIMEOUT) if resolver is None else resolver
        self._segment = segment
        self._log = log
        self._client: Any = None
        self._retry_at = float("-inf")
        self._failure_logged = False
        # What a predecessor counted, it has sent.
        self._sent = read_totals(segment)

    def flush(self, now: float) -> None:
        """Send the changes; raises nothing. A host that can't be reached is logged once.

        Args:
            now: monotonic time in seconds.
        """
        totals = read_totals(self._segment)
        before, self._sent = self._sent, totals
        try:
            if self._client is None:
                if now < self._retry_at:
                    return
                self._retry_at = now + _RETRY_INTERVAL
                self._client = self._connected_client()
            self._send(before, totals)
        except (OSError, UnicodeError) as error:
            self._log_failure(error)

    def _connected_client(self) -> _ConnectedClient:
        """Return a client for the first address that can be connected to. Raises ``OSError``.

        IPv4 comes first, whatever the system prefers: statsd listens on it, and UDP does not
        tell of an address that nobody listens on.
        """
        host = self._options.host
        literal = literal_address(host)
        found = [literal] if literal else self._addresses(host)
        addresses = sorted(found, key=lambda address: address.family == socket.AF_INET6)
        for address in addresses[:-1]:
            try:
                return _ConnectedClient(address, self._options)
            except OSError:
                continue  # such as an IPv6 address on a machine without IPv6
        return _ConnectedClient(addresses[-1], self._options)

    def _addresses(self, name: str) -> Sequence[Address]:
        with gevent.Timeout(_LOOK_UP_TIMEOUT, NameUnanswered(_LOOK_UP_TIMEOUT)):
            return self._resolver.addresses(name)

    def _send(self, before: Totals, totals: Totals) -> None:
        pipeline = self._client.pipeline()
        for name, count in _increments(before, totals):
            if count > 0:
                pipeline.incr(name, count)
        timings = (
            ("find_target_for_req", "find_target"),
            ("last_activity_updating", "activity"),
        )
        for name, field in timings:
            count = getattr(totals, f"{field}_count") - getattr(before, f"{field}_count")
            if count > 0:
                elapsed = getattr(totals, f"{field}_ns") - getattr(before, f"{field}_ns")
                pipeline.timing(name, elapsed / count / _NS_PER_MS)
        pipeline.send()

    def _log_failure(self, error: Exception) -> None:
        if self._failure_logged:
            return
        self._failure_logged = True
        host, port = self._options.host, self._options.port
        self._log.warning("Can't send metrics to statsd at %s:%s: %s", host, port, error)


def _increments(before: Totals, totals: Totals) -> list[tuple[str, int]]:
    """Return the counters of CHP 4 and by how much they have grown."""
    increments = [
        ("requests.web", totals.requests_web - before.requests_web),
        ("requests.ws", totals.requests_ws - before.requests_ws),
        ("requests.api", sum(totals.requests_api.values()) - sum(before.requests_api.values())),
        ("api.route.get", totals.api_route_get - before.api_route_get),
        ("api.route.add", totals.api_route_add - before.api_route_add),
        ("api.route.delete", totals.api_route_delete - before.api_route_delete),
    ]
    increments += [
        (f"requests.{status}", count - before.requests_proxy.get(status, 0))
        for status, count in sorted(totals.requests_proxy.items())
    ]
    return increments
