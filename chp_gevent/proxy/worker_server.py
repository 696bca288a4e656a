"""How a worker serves clients: its server's settings, its accounts, its fair share."""

from __future__ import annotations

import logging
import resource
import socket
import ssl
import sys
from collections.abc import Sequence
from typing import Any

from gevent.monkey import get_original

from chp_gevent.config.options import Options, TcpAddress
from chp_gevent.http.access_entry import Access
from chp_gevent.http.errors import WireError
from chp_gevent.http.events import ServerEvents
from chp_gevent.http.h1.heads import RequestHead
from chp_gevent.http.peer import Peer
from chp_gevent.http.server import HTTPServer
from chp_gevent.http.settings import ServerSettings
from chp_gevent.http.state import WsgiApp
from chp_gevent.proxy.accept_balancing import FairShare
from chp_gevent.proxy.access_log.batches import BATCH_AFTER, AccessLog, OutputSink, Sink
from chp_gevent.proxy.access_log.files import FileSink
from chp_gevent.proxy.access_log.lines import access_lines
from chp_gevent.proxy.challenges import Challenges
from chp_gevent.proxy.first_certificate import FirstCertificate
from chp_gevent.proxy.redirect import Redirect
from chp_gevent.runtime.log_output import standard_output
from chp_gevent.runtime.systemd import is_journal
from chp_gevent.shared.segment import (
    ACCEPTING,
    CAME_UP,
    HANDSHAKES_FULL,
    HANDSHAKES_RESUMED,
    OPEN_CONNECTIONS,
    STATUS,
)

_STDOUT = 1

# Descriptors that are not connections: listeners, event loop, journal, log, resolver …
_OTHER_DESCRIPTORS = 48

# Connections to the redirect server: one for each so many descriptors, at most. Each is over
# after a request, or after the seconds that Node keeps one.
_DESCRIPTORS_PER_REDIRECT = 16
_MAX_REDIRECTS = 1000
_REDIRECT_IDLE_TIMEOUT = 5
_REDIRECT_TIMEOUT = 60.0


def server_settings(
    options: Options, tls: ssl.SSLContext | None, first_certificate: FirstCertificate | None = None
) -> ServerSettings:
    """Return the settings of a worker's server; ``first_certificate`` is one that is waited for."""
    proxy = options.proxy
    return ServerSettings(
        limits=proxy.limits,
        max_connections=min(options.worker_connections, _room_for_connections(options)),
        idle_timeout=proxy.keep_alive_timeout,
        client_timeout=proxy.timeout,
        application_timeout=proxy.proxy_timeout,
        tls=tls,
        before_handshake=first_certificate,
        trusted_proxies=proxy.trusted_proxies,
        proxy_protocol=proxy.proxy_protocol,
        multiprocess=options.workers > 1,
        server_name=getattr(options.listen, "ip", "") or "localhost",
        server_port=str(getattr(options.listen, "port", "")),
    )


def _descriptors() -> int:
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if limit == resource.RLIM_INFINITY else limit


def _room_for_connections(options: Options) -> int:
    """Return how many connections the limit of open files leaves room for.

    Each may need a second descriptor, for its target; some are for other things.
    """
    others = _OTHER_DESCRIPTORS + (_room_for_redirects() if options.redirect is not None else 0)
    return max(1, (_descriptors() - others) // 2)


def _room_for_redirects() -> int:
    return max(1, min(_MAX_REDIRECTS, _descriptors() // _DESCRIPTORS_PER_REDIRECT))


def access_log(options: Options, loop: Any) -> AccessLog | None:
    """Return the access log of a worker whose event loop this is; None: there is to be none."""
    if options.access_log is None:
        return None
    sink: Sink
    if options.access_log == "-":
        sink = OutputSink(standard_output(_STDOUT))
    else:
        sink = FileSink(options.access_log, get_original("_thread", "start_new_thread"))
    journal = options.access_log == "-" and is_journal(_STDOUT)
    lines = access_lines(options.log_format, journal=journal)
    return AccessLog(lines, sink, loop.timer(BATCH_AFTER, BATCH_AFTER))


def redirect_server(
    options: Options, sockets: Sequence[socket.socket], access: Access | None
) -> HTTPServer:
    """Return the server that redirects to HTTPS, for one worker: clients of all kinds ask it."""
    assert options.redirect is not None
    listen = options.listen
    app: WsgiApp = Redirect(
        options.redirect.to_port, listen.port if isinstance(listen, TcpAddress) else None
    )
    if options.acme is not None:
        app = Challenges(app, options.acme.challenges)
    settings = ServerSettings(
        limits=options.proxy.limits,
        max_connections=_room_for_redirects(),
        # One second more than announced: a client that comes just in time is not let down.
        idle_timeout=_REDIRECT_IDLE_TIMEOUT + 1.0,
        announced_timeout=_REDIRECT_IDLE_TIMEOUT,
        client_timeout=_REDIRECT_TIMEOUT,
        abort_on_disconnect=False,
        keeps_http_1_0=False,
        explains_refusals=False,
        multiprocess=options.workers > 1,
        server_port=str(sockets[0].getsockname()[1]),
    )
    events = ServerEvents("redirect server", logging.getLogger("chp_gevent.proxy"))
    events.shares_sockets = options.workers > 1
    return HTTPServer(app, settings, sockets, events, access=access)


class WorkerEvents(ServerEvents):
    """Keeps the account of a worker's connections in its row, and looks at those of others.

    ``row`` is the worker's row in the segment, ``others`` those of the other workers.
    """

    def __init__(self, row: memoryview[int], others: Sequence[memoryview[int]]) -> None:
        super().__init__("proxy", logging.getLogger("chp_gevent.proxy"))
        self.shares_sockets = bool(others)
        self._row = row
        self._share = FairShare(row, others)

    def on_connections(self, count: int) -> None:
        """See ``ServerEvents``."""
        self._row[OPEN_CONNECTIONS] = count

    def on_accepting(self, accepting: bool) -> None:
        """See ``ServerEvents``."""
        self._row[ACCEPTING] = accepting
        self._row[CAME_UP] = 1

    def on_handshake(self, resumed: bool) -> None:
        """See ``ServerEvents``."""
        self._row[HANDSHAKES_RESUMED if resumed else HANDSHAKES_FULL] += 1

    def look_around(self) -> None:
        """Take note of the workers that serve; called once a second."""
        self._share.look_around()

    def pause_before_accepting(self, full: bool) -> float:
        """See ``ServerEvents``."""
        return self._share.pause(full)

    def on_refused(self, peer: Peer, head: RequestHead | None, error: WireError) -> None:
        """See ``ServerEvents``."""
        self._row[STATUS + error.status] += 1
        super().on_refused(peer, head, error)
