"""The HTTP server of a worker: accepts connections, keeps their deadlines, drains them.

Imported in workers only, after monkey patching.
"""

from __future__ import annotations

import _socket
import errno
import logging
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any

import gevent
from gevent import socket as gevent_socket
from greenlet import greenlet

from chp_gevent.channel.segment import OPEN_CONNECTIONS, STATUS
from chp_gevent.options import Options
from chp_gevent.proxy import stream as streams
from chp_gevent.proxy.connection import ClientConnection, http_date
from chp_gevent.proxy.headers import Peer, is_trusted
from chp_gevent.proxy.wire import WireError
from chp_gevent.tls import describe_failure, server_context

log = logging.getLogger("chp_gevent.proxy")

# Seconds without accepting after the process or the system ran out of descriptors.
_OUT_OF_DESCRIPTORS_PAUSE = 0.1
_NO_DESCRIPTORS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

# Connections accepted for one event when this worker is the only one. Several workers
# take one at a time, so that a burst spreads over them.
_ACCEPTS_PER_EVENT = 64


class HTTPServer:
    """Serves an application on listening sockets.

    ``app`` is a WSGI application; ``row`` the worker's row in the segment; ``sockets`` are
    listening and belong to the arbiter: they are never shut down here.

    Attributes:
        draining: set once no request after the current one is welcome on a connection.
        tunnels: open tunnels; whoever starts one adds it, and removes it at its end.
    """

    def __init__(
        self,
        app: Callable[..., Any],
        options: Options,
        row: memoryview[int],
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
        self._max_connections = options.worker_connections
        self._accepts_per_event = 1 if options.workers > 1 else _ACCEPTS_PER_EVENT
        self._tls = server_context(options.tls) if options.tls is not None else None
        self._date = ""
        self._base_environ = _base_environ(options)
        self._listeners = [_Listener(self, sock, self._hub.loop) for sock in sockets]
        self._paused = False
        interval = _sweep_interval(options)
        self._sweeper = self._hub.loop.timer(interval, interval)

    # -- life

    def start(self) -> None:
        """Start accepting."""
        self._sweep()
        self._sweeper.start(self._sweep)
        for listener in self._listeners:
            listener.start()

    def drain(self) -> None:
        """Stop accepting; close each connection after the answer that it waits for."""
        self.draining = True
        for listener in self._listeners:
            listener.close()
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

    def accepted(self, fd: int, address: Any, family: int) -> None:
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
        if self.busy >= self._max_connections:
            self._pause_accepting()

    def forget(self, connection: ClientConnection) -> None:
        """Take note that a connection has ended, or has become a tunnel."""
        self._connections.discard(connection)
        self._row[OPEN_CONNECTIONS] = len(self._connections)
        self.made_room()

    def made_room(self) -> None:
        """Take note that there is room for another connection."""
        if self._paused and self.busy < self._max_connections:
            self._resume_accepting()

    def _is_trusted(self, address: str) -> bool:
        return self._trusted is None or is_trusted(address, self._trusted)

    # -- accepting, or not

    def accept(self, listener: _Listener) -> None:
        """Accept what waits on a listener; called from the event loop."""
        for _ in range(self._accepts_per_event):
            try:
                fd, address = listener.sock._accept()
            except BlockingIOError:
                return
            except OSError as error:
                self._accept_failed(error)
                return
            self.accepted(fd, address, listener.family)
            if self._paused:
                return

    def _accept_failed(self, error: OSError) -> None:
        if error.errno in _NO_DESCRIPTORS:
            log.error("cannot accept connections: %s; raise the limit of open files", error)
            self._pause_accepting()
            timer = self._hub.loop.timer(_OUT_OF_DESCRIPTORS_PAUSE)
            timer.start(self._resume_accepting)

    def _pause_accepting(self) -> None:
        if self.draining:
            return
        self._paused = True
        for listener in self._listeners:
            listener.stop()

    def _resume_accepting(self) -> None:
        self._paused = False
        if not self.draining:
            for listener in self._listeners:
                listener.start()

    # -- what connections need

    def date(self) -> str:
        """Return the Date header of now, made once a sweep."""
        return self._date

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
        self._date = http_date()
        now = time.monotonic()
        for connection in list(self._connections):
            connection.check(now)


class _Listener:
    """A listening socket and its place in the event loop."""

    def __init__(self, server: HTTPServer, sock: Any, loop: Any) -> None:
        # A bare socket object over the arbiter's descriptor, duplicated so that its life
        # is ours; O_NONBLOCK belongs to the open file and is set already.
        self.sock: Any = _socket.socket(fileno=_socket.dup(sock.fileno()))
        self.sock.setblocking(False)
        self.family = self.sock.family
        self._server = server
        self._watcher = loop.io(self.sock.fileno(), streams.READ)

    def start(self) -> None:
        """Accept from now on."""
        self._watcher.start(self._server.accept, self)

    def stop(self) -> None:
        """Leave what arrives in the backlog, for this worker later or another one now."""
        self._watcher.stop()

    def close(self) -> None:
        """Let go of the socket for ever."""
        self._watcher.stop()
        self._watcher.close()
        self.sock.close()


def _base_environ(options: Options) -> dict[str, Any]:
    """Return what all requests of a server have in their environ."""
    import sys

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
