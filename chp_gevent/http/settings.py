"""What a server is told about its clients."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from typing import TYPE_CHECKING

from chp_gevent.http.limits import LimitOptions

if TYPE_CHECKING:
    from chp_gevent.http.tls_stream import TLSStream


@dataclass(frozen=True)
class ServerSettings:
    """The settings of a server. Times are in seconds.

    Attributes:
        limits: what is refused.
        max_connections: open connections, tunnels included; more wait in the backlog.
        idle_timeout: how long a connection is kept on which no request comes.
        announced_timeout: what ``Keep-Alive`` tells clients about that; None for nothing.
        drain_grace: how long an idle connection is kept when the server is drained.
        client_timeout: how long a client that is being answered may be silent; None for ever.
        application_timeout: the shortest time that the application limits its waits to.
        abort_on_disconnect: whether the application is interrupted, with ``ClientGone`` wherever it
            waits, when its client leaves or is silent for too long. If not, ``client_timeout``
            counts from when there is something to send.
        keeps_http_1_0: whether HTTP/1.0 clients that would like to keep their connection may.
        explains_refusals: whether a request that is refused is told why.
        regulars_stay: whether, in a server that is full, a client that has just been answered is
            preferred to one that has not asked yet.
        tls: where connections are TLS.
        before_handshake: is called with each TLS connection, and may wait; an ``OSError`` ends it.
        trusted_proxies: whose ``X-Forwarded-*`` are believed; None for everybody's.
        proxy_protocol: whether a trusted peer begins each connection with a header of the PROXY
            protocol, which says who its client is.
        multiprocess: whether other processes run the same application.
        server_name: ``SERVER_NAME`` of the environ.
        server_port: ``SERVER_PORT`` of the environ.
    """

    limits: LimitOptions = field(default_factory=LimitOptions)
    max_connections: int = 1000
    idle_timeout: float = 5.0
    announced_timeout: int | None = None
    drain_grace: float = 1.0
    client_timeout: float | None = None
    application_timeout: float | None = None
    abort_on_disconnect: bool = True
    keeps_http_1_0: bool = True
    explains_refusals: bool = True
    regulars_stay: bool = False
    tls: ssl.SSLContext | None = None
    before_handshake: Callable[[TLSStream], None] | None = None
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] | None = None
    proxy_protocol: bool = False
    multiprocess: bool = False
    server_name: str = "localhost"
    server_port: str = ""

    @property
    def sweep_interval(self) -> float:
        """How often to look at deadlines, in seconds: a quarter of the shortest."""
        shortest = min(
            self.idle_timeout,
            self.client_timeout or 60.0,
            self.application_timeout or 60.0,
            self.limits.body_timeout or 60.0,
            self.limits.header_timeout,
        )
        return min(0.5, max(0.02, shortest / 4))
