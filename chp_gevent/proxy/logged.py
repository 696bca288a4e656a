"""What the proxy adds to an access log: the route, and when the target began to answer."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from chp_gevent.http.access import LoggedConnection
from chp_gevent.http.connection import ClientConnection, StartResponse
from chp_gevent.http.wire import ResponseHead
from chp_gevent.proxy.app import HEALTH_PATH, ProxyApplication
from chp_gevent.proxy.exchange import Exchange
from chp_gevent.routing.table import Route


class LoggedProxyApplication(ProxyApplication):
    """The proxy of a server that has an access log; without one, nobody pays for it."""

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request. Health checks have no line, as no account counts them."""
        client = environ.get("chp.client")
        if isinstance(client, LoggedConnection) and client.head.target == HEALTH_PATH:
            client.take_access_entry()
        return super().__call__(environ, start_response)

    def _forward(
        self, client: ClientConnection, route: Route, websocket: bool
    ) -> tuple[Exchange, ResponseHead]:
        entry = client.entry if isinstance(client, LoggedConnection) else None
        if entry is None:
            return super()._forward(client, route, websocket)
        entry.route = route.prefix
        try:
            return super()._forward(client, route, websocket)
        finally:
            entry.answered = time.monotonic()
