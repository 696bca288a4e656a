"""The targets of a worker, and urllib3's pools of connections to them.

Imported in workers only, after monkey patching.
"""

from __future__ import annotations

import queue
import ssl
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager

from chp_gevent.http.request import ClientRequest
from chp_gevent.proxy.upstream.connecting import Connector
from chp_gevent.proxy.upstream.connection import (
    TargetConnection,
    TargetConnections,
    TargetError,
    TLSTargetConnection,
    UnixTargetConnection,
    closing_when_broken_off,
)
from chp_gevent.proxy.upstream.target import Target, parse_target

# Idle connections kept per target and worker, and for how many seconds. Node keeps 256, but with
# 1,000 requests at once those that connect anew cost three times as much as those that don't.
MAX_IDLE = 1024
IDLE_SECONDS = 60.0


class _IdleConnections:
    """What urllib3 keeps idle connections in: last in, first out, and never blocking.

    ``queue.LifoQueue`` costs 10 µs for each get and put with its (patched) locks.
    """

    def __init__(self, maxsize: int = 0) -> None:
        self.connections: list[TargetConnection] = []

    def put(
        self, item: TargetConnection | None, block: bool = False, timeout: float | None = None
    ) -> None:
        if item is None:
            return
        if len(self.connections) >= MAX_IDLE:
            raise queue.Full
        self.connections.append(item)

    def get(self, block: bool = False, timeout: float | None = None) -> TargetConnection:
        if not self.connections:
            raise queue.Empty
        return self.connections.pop()

    def qsize(self) -> int:
        return len(self.connections)


class _PoolMixin:
    # urllib3 has other types for these.
    QueueCls: Any = _IdleConnections
    pool: Any
    connector: Connector
    make_room: Callable[[], None]
    # Raised when a route to the target goes: from then on another server may have its port.
    epoch = 0
    # Connections that are clients' own.
    bound: frozenset[TargetConnection] = frozenset()
    # Since a sweep: who has a connection now, or just had one, will give it back.
    _acquired = False

    def acquire(self) -> TargetConnection:
        """Return an idle connection, or a new one that connects on its first use.

        An idle one on which anything has arrived, be it its end or an answer that nobody
        asked for, carries no request.
        """
        if self.pool is None:
            raise TargetError("the route was removed")
        self._acquired = True
        idle = self.pool.connections
        while idle:
            connection: TargetConnection = idle.pop()
            if connection.is_connected:
                connection.stream.on_unread = None  # type: ignore[union-attr]
                connection.reused = True
                return connection
            connection.close()
        connection = self._new_conn()  # type: ignore[attr-defined]
        connection.epoch = self.epoch
        connection.connector = self.connector
        connection.make_room = self.make_room
        return connection

    def release(self, connection: TargetConnection) -> None:
        """Take a connection back whose response has been read to its end."""
        if connection.epoch != self.epoch:
            connection.close()
            return
        stream = connection.stream  # what ``rest`` does, 0.1 µs sooner
        if stream is not None:
            stream.on_unread = connection.close
            stream.watch()
            connection.idle_since = time.monotonic()
        pool = self.pool
        if pool is not None and len(pool.connections) < MAX_IDLE:
            pool.connections.append(connection)  # what _put_conn would do, 0.5 µs sooner
        else:
            self._put_conn(connection)  # type: ignore[attr-defined]

    def close_idle(self, before: float) -> int:
        """Close what has been idle since ``before`` (monotonic); return how many remain.

        Those that are clients' own count, and end with their clients.
        """
        if self.pool is None:
            return 0
        if self.bound:
            self.bound = frozenset(each for each in self.bound if each.stream is not None)
        kept = []
        for connection in self.pool.connections:
            if connection.stream is not None and connection.idle_since > before:
                kept.append(connection)
            else:
                connection.close()
        self.pool.connections = kept
        return len(kept) + len(self.bound)

    def bind(self, connection: TargetConnection, request: ClientRequest) -> None:
        """Keep a connection for one client alone, until that leaves: it carries its identity.

        For authentication of connections (NTLM, Negotiate), which HTTP knows nothing of.
        """
        connection.bound = self
        connection.rest()
        self.bound |= {connection}
        request.bound = connection

    def acquire_bound(self, request: ClientRequest) -> TargetConnection:
        """As :meth:`acquire`, for a client that has a connection of its own."""
        connection = request.bound
        assert isinstance(connection, TargetConnection)
        request.bound = None
        usable = connection.bound is self and connection.epoch == self.epoch
        if usable and connection.is_connected:
            connection.stream.on_unread = None  # type: ignore[union-attr]
            connection.reused = True
            return connection
        connection.close()
        return self.acquire()

    def is_abandoned(self) -> bool:
        """Whether no connection has been asked for since the last time that this was asked."""
        acquired, self._acquired = self._acquired, False
        return not acquired

    def retire(self) -> None:
        """Close what is idle now, and what is in use when it has been used."""
        self.epoch += 1
        self.close_idle(float("inf"))


class TargetPool(_PoolMixin, HTTPConnectionPool):
    """The connections to an ``http`` target."""

    ConnectionCls = TargetConnection


class TLSTargetPool(_PoolMixin, HTTPSConnectionPool):
    """The connections to an ``https`` target."""

    ConnectionCls = TLSTargetConnection


class UnixTargetPool(_PoolMixin, HTTPConnectionPool):
    """The connections to an ``http+unix`` target."""

    scheme = "http+unix"
    ConnectionCls = UnixTargetConnection

    def __init__(self, host: str, port: int | None = None, **kwargs: Any) -> None:
        kwargs.pop("ssl_context", None)
        super().__init__("localhost", port, **kwargs)
        self.host = host  # urllib3 would lower-case a path


class Upstream:
    """All targets of a worker and the pools of connections to them.

    ``tls`` is the context of connections to ``https`` targets, ``connect_timeout`` the limit for
    connecting in seconds.
    """

    def __init__(self, tls: ssl.SSLContext, connect_timeout: float) -> None:
        self._connector = Connector(connect_timeout)
        self._manager = PoolManager(
            num_pools=10_000,
            retries=False,
            ssl_context=closing_when_broken_off(tls),
        )
        self._manager.pool_classes_by_scheme = {
            "http": TargetPool,
            "https": TLSTargetPool,
            "http+unix": UnixTargetPool,
        }
        self._targets: dict[str, tuple[Target, TargetConnections]] = {}
        # How many of the targets each pool serves: all of one scheme, host and port.
        self._shares: Counter[TargetConnections] = Counter()

    def target(self, url: str) -> tuple[Target, TargetConnections]:
        """Return the parsed target of ``url`` and its pool. Raises ``TargetError``."""
        found = self._targets.get(url)
        if found is None:
            try:
                target = parse_target(url)
                pool = self._pool(target)
            except ValueError as error:
                raise TargetError(str(error)) from error
            found = self._targets[url] = (target, pool)
            self._shares[pool] += 1
        return found

    def _pool(self, target: Target) -> TargetConnections:
        """Return the pool of a target. Raises ``ValueError`` (urllib3 dislikes the host)."""
        # In brackets urllib3 takes "fe80::1%eth0" for what it is.
        host = f"[{target.host}]" if _is_ipv6(target) else target.host
        pool: Any = self._manager.connection_from_pool_key(
            _pool_key(target),  # type: ignore[arg-type]
            {
                **self._manager.connection_pool_kw,
                "scheme": target.scheme,
                "host": host,
                "port": target.port,
            },
        )
        pool.connector = self._connector
        pool.make_room = self._close_all_idle
        return pool

    def retire(self, url: str) -> None:
        """Take note that the last route to a target is gone: its connections are used no more.

        Who listens on its port next may be another server, while the old one still holds its
        connections. Targets of the same host and port connect anew.
        """
        found = self._targets.get(url)
        if found is not None:
            found[1].retire()

    def use_tls(self, context: ssl.SSLContext) -> None:
        """Have connections to ``https`` targets that are opened from now on use another context."""
        context = closing_when_broken_off(context)
        self._manager.connection_pool_kw["ssl_context"] = context
        for pool in self._shares:
            if isinstance(pool, TLSTargetPool):
                pool.conn_kw["ssl_context"] = context

    def close_idle(self, now: float) -> None:
        """Close connections that have been idle for ``IDLE_SECONDS``; called every second.

        A pool without any is forgotten, and would not take back one that is in use.
        """
        for url, (_, pool) in list(self._targets.items()):
            if pool.close_idle(now - IDLE_SECONDS) == 0 and pool.is_abandoned():
                self._forget(url)

    def _close_all_idle(self) -> None:
        for pool in list(self._shares):
            pool.close_idle(float("inf"))

    def _forget(self, url: str) -> None:
        target, pool = self._targets.pop(url)
        self._shares[pool] -= 1
        if not self._shares[pool]:
            del self._shares[pool]
            self._manager.pools.pop(_pool_key(target), None)  # type: ignore[call-overload]
            pool.close()

    def close(self) -> None:
        """Close all idle connections."""
        for url in list(self._targets):
            self._forget(url)


def _is_ipv6(target: Target) -> bool:
    return ":" in target.host and target.scheme != "http+unix"


def _pool_key(target: Target) -> tuple[str, str, int]:
    return target.scheme, target.host, target.port
