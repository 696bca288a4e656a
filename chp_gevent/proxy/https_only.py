"""``--redirect-http``: where TLS ends in front of the server, plain HTTP is sent to HTTPS.

WSGI middleware around the proxy, made only when the option is given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from chp_gevent.http.h1.fields import HOST, Field
from chp_gevent.http.https_location import HTTPS_PORT, https_location
from chp_gevent.proxy.app import OWN_PATHS
from chp_gevent.proxy.wsgi_request import request_of
from chp_gevent.shared.segment import REQUESTS_WEB, STATUS

_Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class HttpsOnly:
    """Answers what a trusted proxy got over plain HTTP with a redirection; passes the rest on.

    ``X-Forwarded-Proto: http`` says so, of which the first value counts: it is about the client.
    Health checks are not redirected, for they come from the proxy in front. WebSocket handshakes
    are not either: browsers follow no redirection there.

    Args:
        app: the proxy.
        port: the port of HTTPS that clients see.
        row: the account of the worker, where what is answered here counts as a request.
    """

    def __init__(self, app: _Application, port: int, row: memoryview[int]) -> None:
        self._app = app
        self._port = "" if port == HTTPS_PORT else f":{port}"
        self._row = row

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        """Answer one request (PEP 3333): 301 to GET and HEAD, 308 to what may have a body."""
        request = request_of(environ)
        head = request.head
        if not request.peer.trusted or _first(head.fields, "x-forwarded-proto").lower() != "http":
            return self._app(environ, start_response)
        host = _host(head.fields)
        is_handshake = head.upgrade == "websocket" and head.method == "GET"
        if is_handshake or head.target in OWN_PATHS or not host:
            return self._app(environ, start_response)
        # To 301, clients repeat a POST as a GET (RFC 9110, 15.4.2).
        safe = head.method in ("GET", "HEAD")
        status = "301 Moved Permanently" if safe else "308 Permanent Redirect"
        self._row[REQUESTS_WEB] += 1
        self._row[STATUS + int(status[:3])] += 1
        start_response(
            status,
            [
                ("Location", https_location(host, self._port, head.target)),
                # A cache in front would send those who came by HTTPS there again, for ever.
                ("Vary", "X-Forwarded-Proto"),
                ("Content-Length", "0"),
            ],
        )
        return []


def _first(fields: Iterable[Field], name: str) -> str:
    """Return the first value of a field that is a list, empty if there is none."""
    value = next((field.value for field in fields if field.lower == name), "")
    return value.partition(",")[0].strip()


def _host(fields: Iterable[Field]) -> str:
    """Return the host that the client asked for: what the proxy in front says, else ``Host``."""
    for name in ("x-forwarded-host", "host"):
        host = _first(fields, name)
        if host and HOST.fullmatch(host):
            return host
    return ""
