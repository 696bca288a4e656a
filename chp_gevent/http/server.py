"""The HTTP server of a worker: accepts connections, keeps their deadlines, drains them.

Imported in workers only, after monkey patching.
"""

from __future__ import annotations

import _socket
import logging
import resource
import socket
import sys
import time
from collections.abc import Callable, Sequence
from email.utils import formatdate
from typing import Any

import gevent
from gevent import socket as gevent_socket
from greenlet import greenlet

from chp_gevent.channel.segment import OPEN_CONNECTIONS, STATUS
from chp_gevent.options import Options
from chp_gevent.http import stream as streams
from chp_gevent.http.acceptor import Acceptor
from chp_gevent.http.connection import ClientConnection
from chp_gevent.proxy.headers import Peer, is_trusted
from chp_gevent.http.wire import WireError
from chp_gevent.tls import describe_failure, server_context

log = logging.getLogger("chp_gevent.proxy")


# Descriptors that are not connections: listeners, event loop, journal, log, resolver …
_OTHER_DESCRIPTORS = 48


class HTTPServer:
    """Serves an application on listening sockets.

    ``app`` is a WSGI application; ``row`` the worker's row in the segment, ``others`` those
    of the other workers; ``sockets`` are listening and belong to the arbiter: they are never
    shut down here.

    Attributes:
        date_line: the Date header line of now, made once a sweep.
        draining: set once no request after the current one is welcome on a connection.
        tunnels: open tunnels; whoever starts one adds it, and removes it at its end.
    """

    def __init__(
        self,
        app: Callable[..., Any],
        options: Options,
        row: memoryview[int],
        others: Sequence[memoryview[int]],
        sockets: Sequence[Any],
    ) -> None:
        self.app = app
        self.limits = options.proxy.limits
        self.idle_timeout = options.proxy.keep_alive_timeout
        self.client_timeout = options.proxy.timeout
        self.draining = False
        self.tunnels: set[Any] = set()
        self._trusted = options.proxy.trusted_proxies
        self._row = row
        self._hub = gevent.get_hub()
        self._connections: set[ClientConnection] = set()
        self._max_connections = min(options.worker_connections, _room_for_connections())
        self._tls = server_context(options.tls) if options.tls is not None else None
        self.date_line = b""
        self._base_environ = _base_environ(options)
        self._acceptor = Acceptor(sockets, self._accepted, self._hub.loop, row, others)
        interval = _sweep_interval(options)
        self._sweeper = self._hub.loop.timer(interval, interval)

    # -- life

    def start(self) -> None:
        """Start accepting."""
        self._sweep()
        self._sweeper.start(self._sweep)
        self._acceptor.start()

    def drain(self) -> None:
        """Stop accepting; close each connection after the answer that it waits for."""
        self.draining = True
        self._acceptor.close()
        now = time.monotonic()
        for connection in self._connections:
            connection.expire_soon(now)

    @property
    def busy(self) -> int:
        """How many connections and tunnels are open."""
        return len(self._connections) + len(self.tunnels)

    def stop(self) -> None:
        """Cut off what is still open."""
        for tunnel in list(self.tunnels):
            tunnel.abort()
        for connection in list(self._connections):
            connection.stream.reset()

    # -- connections

    def _accepted(self, fd: int, address: Any, family: int) -> None:
        """Serve a connection that was just accepted, in a greenlet of its own."""
        peer_address = address[0] if family != socket.AF_UNIX else ""
        peer = Peer(peer_address, self._tls is not None, self._is_trusted(peer_address))
        environ = self._base_environ.copy()
        environ["REMOTE_ADDR"] = peer_address
        environ["REMOTE_PORT"] = str(address[1]) if peer_address else ""
        # A bare greenlet: a gevent.Greenlet costs 5 µs more, and nobody waits for this one.
        if self._tls is None:
            sock = _socket.socket(fileno=fd)
            sock.setblocking(False)
            if family != socket.AF_UNIX:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = ClientConnection(self, streams.Stream(sock, self._hub), peer, environ)
            self._remember(connection)
            greenlet(connection.serve, self._hub).switch()
        else:
            sock = gevent_socket.socket(fileno=fd)
            if family != socket.AF_UNIX:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            gevent.spawn(self._serve_tls, sock, peer, environ)

    def _serve_tls(self, sock: Any, peer: Peer, environ: dict[str, Any]) -> None:
        assert self._tls is not None
        tls_sock = None
        try:
            with gevent.Timeout(self.limits.header_timeout):
                tls_sock = self._tls.wrap_socket(
                    sock, server_side=True, do_handshake_on_connect=False
                )
                tls_sock.do_handshake()
        except (OSError, gevent.Timeout) as error:
            reason = describe_failure(error) if isinstance(error, OSError) else "timed out"
            log.warning("TLS handshake with %s failed: %s", peer.address, reason)
            (tls_sock or sock).close()
            return
        connection = ClientConnection(self, streams.TLSStream(tls_sock, self._hub), peer, environ)
        self._remember(connection)
        connection.serve()

    def _remember(self, connection: ClientConnection) -> None:
        self._connections.add(connection)
        self._row[OPEN_CONNECTIONS] = len(self._connections)
        self._acceptor.set_full(self.busy >= self._max_connections)

    def forget(self, connection: ClientConnection) -> None:
        """Take note that a connection has ended, or has become a tunnel."""
        self._connections.discard(connection)
        self._row[OPEN_CONNECTIONS] = len(self._connections)
        self.made_room()

    def made_room(self) -> None:
        """Take note that there is room for another connection."""
        self._acceptor.set_full(self.busy >= self._max_connections)

    def _is_trusted(self, address: str) -> bool:
        return self._trusted is None or is_trusted(address, self._trusted)

    # -- what connections need

    def on_refused(self, peer: Peer, error: WireError) -> None:
        """Take note of a request that was refused before it got to the application."""
        self._row[STATUS + error.status] += 1
        log.warning("%s refused a request from %s: %s", error.status, peer.address, error)

    def on_crash(self, error: BaseException) -> None:
        """Take note of an error that is nobody's fault but ours (or the application's)."""
        if isinstance(error, gevent.GreenletExit):
            return
        log.error("error while answering a request: %r", error)
        log.debug("traceback of that error", exc_info=error)

    def _sweep(self) -> None:
        self.date_line = f"Date: {formatdate(usegmt=True)}\r\n".encode()
        now = time.monotonic()
        for connection in list(self._connections):
            connection.check(now)


def _room_for_connections() -> int:
    """Return how many connections the limit of open files leaves room for.

    Each may need a second descriptor, for its target; some are for other things.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return sys.maxsize
    return max(1, (limit - _OTHER_DESCRIPTORS) // 2)


def _base_environ(options: Options) -> dict[str, Any]:
    """Return what all requests of a server have in their environ."""
    listen = options.listen
    return {
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "https" if options.tls else "http",
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": options.workers > 1,
        "wsgi.run_once": False,
        "SERVER_SOFTWARE": "chp-gevent",
        "SERVER_NAME": getattr(listen, "ip", "") or "localhost",
        "SERVER_PORT": str(getattr(listen, "port", "")),
        "SCRIPT_NAME": "",
    }


def _sweep_interval(options: Options) -> float:
    """Return how often to look at deadlines, in seconds: a quarter of the shortest."""
    proxy = options.proxy
    shortest = min(
        proxy.keep_alive_timeout,
        proxy.timeout or 60.0,
        proxy.proxy_timeout or 60.0,
        proxy.limits.header_timeout,
    )
    return min(0.5, max(0.02, shortest / 4))
