"""How the management process serves clients: its servers' settings, limits and accounts."""

from __future__ import annotations

import logging
import resource
import socket
import ssl
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from chp_gevent.http.errors import WireError
from chp_gevent.http.events import ServerEvents
from chp_gevent.http.h1.heads import RequestHead
from chp_gevent.http.limits import LimitOptions
from chp_gevent.http.peer import Peer
from chp_gevent.http.request import ClientRequest
from chp_gevent.http.settings import ServerSettings
from chp_gevent.http.state import WsgiApp
from chp_gevent.shared.segment import STATUS

MAX_BODY = 1024 * 1024
"""Bytes of a request's body; 413."""

HEAD_LIMITS = LimitOptions(
    max_request_line=16 * 1024, max_header_size=32 * 1024, header_timeout=10.0
)
"""Node, too, answers 431 to heads of more than 16 KiB. A hub sends a head in one piece, as soon as
it has connected; who has not done so after 10 seconds is no hub."""

MAX_CONNECTIONS = 1000
"""Open connections of one server; for more, silent ones are closed. Never more than a quarter of
the descriptors that the process may have: no server can take them from the others."""

IDLE_TIMEOUT = 5
"""Seconds that are announced for a connection without a request: Node's value."""

DRAIN_GRACE = 0.2
"""Seconds for the next request of a connection that is kept, when the process is to end: it may be
on its way."""

REQUEST_TIMEOUT = 60.0
"""Seconds for each of a request's body and the reading of the answer."""


def server_settings(
    listeners: Sequence[socket.socket], tls: ssl.SSLContext | None = None
) -> ServerSettings:
    """Return the settings of a server on these sockets."""
    listener = listeners[0]
    on_unix = listener.family == socket.AF_UNIX
    name, port = ("", "") if on_unix else listener.getsockname()[:2]
    return ServerSettings(
        limits=HEAD_LIMITS,
        max_connections=min(MAX_CONNECTIONS, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4),
        # One second more than announced: a client that comes just in time is not let down.
        idle_timeout=IDLE_TIMEOUT + 1.0,
        announced_timeout=IDLE_TIMEOUT,
        drain_grace=DRAIN_GRACE,
        client_timeout=REQUEST_TIMEOUT,
        # A change that has been asked for is made, to its end, whether the client stays or not.
        abort_on_disconnect=False,
        # CHP closes connections of HTTP/1.0 clients even if they would like to keep them.
        keeps_http_1_0=False,
        explains_refusals=False,
        # Who is in the middle of its changes, as a hub, is not shut out by a crowd.
        regulars_stay=True,
        tls=tls,
        server_name=name or "localhost",
        server_port=str(port),
    )


class ManagementEvents(ServerEvents):
    """Logs refused requests like calls, and counts them in ``row`` if there is one."""

    def __init__(self, name: str, log: logging.Logger, row: memoryview[int] | None = None) -> None:
        super().__init__(name, log)
        self._row = row

    def on_refused(self, peer: Peer, head: RequestHead | None, error: WireError) -> None:
        """See ``ServerEvents``."""
        if self._row is not None:
            self._row[STATUS + error.status] += 1
        if head is None:
            super().on_refused(peer, head, error)
        else:
            url = head.target.partition("?")[0]
            self.log.warning("%s %s %s %s", error.status, head.method, url, error)


class WholeBodies:
    """WSGI middleware: ``wsgi.input`` is read whole, when the application asks for it.

    Before that it may look at the head, and answer who has no business here: then nothing is
    read, and the connection is closed behind the answer.

    ``read`` raises ``WireError`` for bodies of more than ``MAX_BODY`` bytes, and for those that
    take more than ``REQUEST_TIMEOUT`` seconds; the server refuses such requests.
    """

    def __init__(self, app: WsgiApp) -> None:
        self._app = app

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        """Answer one request (PEP 3333)."""
        request: ClientRequest = environ["chp.request"]
        if request.head.has_body:
            environ["wsgi.input"] = _WholeBody(request)
        return self._app(environ, start_response)


class _WholeBody:
    def __init__(self, request: ClientRequest) -> None:
        self._request = request

    def read(self) -> bytes:
        """Return the body, all of it."""
        request = self._request
        if (request.head.content_length or 0) > MAX_BODY:
            raise WireError("body too large", 413)
        # Nearly always, all of it came with the head.
        body = request.body.take_if_complete()
        if body is None:
            request.limit_wait(REQUEST_TIMEOUT, WireError("request not complete in time", 408))
            body = request.body.read(MAX_BODY + 1)
            request.end_wait()
        if len(body) > MAX_BODY:
            raise WireError("body too large", 413)
        return body
