"""What the proxy adds to an access log: the route, and when the target began to answer."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from chp_gevent.http.h1.heads import ResponseHead
from chp_gevent.http.h1.logged import LoggedRequest
from chp_gevent.http.request import ClientRequest, StartResponse
from chp_gevent.proxy.app import OWN_PATHS, ProxyApplication
from chp_gevent.proxy.upstream.exchange import Exchange
from chp_gevent.routing.table import Route


class LoggedProxyApplication(ProxyApplication):
    """The proxy of a server that has an access log; without one, nobody pays for it."""

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request. Health checks have no line, as no account counts them."""
        request = environ.get("chp.request")
        if isinstance(request, LoggedRequest) and request.head.target in OWN_PATHS:
            request.take_access_entry()
        return super().__call__(environ, start_response)

    def _forward(
        self, request: ClientRequest, route: Route, websocket: bool
    ) -> tuple[Exchange, ResponseHead]:
        entry = request.entry if isinstance(request, LoggedRequest) else None
        if entry is None:
            return super()._forward(request, route, websocket)
        entry.route = route.prefix
        try:
            return super()._forward(request, route, websocket)
        finally:
            entry.answered = time.monotonic()
