"""The HTTP server of the management process: WSGI, whole bodies, keep-alive, TLS.

gevent's pywsgi spends 1.5 times the CPU of all of Node CHP's add-route on an empty
application. This one is made of the proxy's own parts, the wire and the streams, so the API
refuses what the proxy refuses. It collects the bodies of requests, which are small here.

Imported after monkey patching only.
"""

from __future__ import annotations

import _socket
import contextlib
import logging
import os
import resource
import socket
import ssl
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from email.utils import formatdate
from resource import RLIMIT_NOFILE
from typing import Any

import gevent
from gevent import socket as gevent_socket
from gevent.event import Event

from chp_gevent.management.http_connection import Connection
from chp_gevent.http.stream import Stream, wrap
from chp_gevent.tls import describe_failure

READ = 1

MAX_CONNECTIONS = 1000
"""Open connections of one server; more wait in the backlog. Never more than a quarter of the
descriptors that the process may have: no server can take them from the others."""

# Seconds without accepting after the process ran out of descriptors, and between two log
# lines about it.
_ACCEPT_PAUSE = 0.1
_ACCEPT_LOG_INTERVAL = 60.0

# How long a client is listened to whose handshake has failed.
_LINGER_SECONDS = 2.0

WsgiApp = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


@dataclass(frozen=True)
class Timeouts:
    """Seconds that a client may take.

    Attributes:
        idle: without a request on a connection that had one; Node's value, and announced.
        request: for a request, from its first byte to its last, and for reading an answer.
    """

    idle: float = 5.0
    request: float = 60.0


class HttpServer:
    """Serves a WSGI application on listening sockets that belong to the arbiter.

    The sockets are never closed or shut down here: what arrives while nobody accepts waits in
    their backlog.

    Args:
        name: what the log calls this server.
        application: answers requests; finds the request target as it came in ``RAW_URI``.
        listeners: bound and listening sockets.
        log: the server's logger.
        tls: where connections are TLS.
        on_refused: called with the status of each request that the application never saw.
        timeouts: what clients are given.
        clock: returns monotonic time in seconds.

    Attributes:
        now: monotonic time of the last ``tick``.
        draining: set once connections are closed after the answer they wait for.
        answer_fields: the fields that end the head of an answer.
        last_answer_fields: the same for the last answer of a connection.
    """

    def __init__(
        self,
        name: str,
        application: WsgiApp,
        listeners: Sequence[socket.socket],
        log: logging.Logger,
        *,
        tls: ssl.SSLContext | None = None,
        on_refused: Callable[[int], None] | None = None,
        timeouts: Timeouts = Timeouts(),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.application = application
        self.log = log
        self.on_refused = on_refused
        self.timeouts = timeouts
        self.draining = False
        self._clock = clock
        self.now = 0.0
        self.answer_fields = self.last_answer_fields = b""
        self._tls = tls
        self._hub = gevent.get_hub()
        self._max_connections = min(MAX_CONNECTIONS, resource.getrlimit(RLIMIT_NOFILE)[0] // 4)
        self._connections: set[Connection] = set()
        self._empty = Event()
        self._empty.set()
        self._listeners = [_Listener(self, sock, self._hub.loop) for sock in listeners]
        self._accept_logged = float("-inf")
        self._environ = _base_environ(listeners[0], "https" if tls else "http")
        self.tick()

    @property
    def open_connections(self) -> int:
        """How many connections are open."""
        return len(self._connections)

    # -- life

    def start(self) -> None:
        """Start accepting. From then on ``tick`` must be called every second or so."""
        for listener in self._listeners:
            listener.watch()

    def tick(self) -> None:
        """Renew what depends on the time, and hang up on clients that took too long."""
        self.now = self._clock()
        # The fields that end most answers, made once a second (saves 3 µs an answer).
        date = f"Date: {formatdate(usegmt=True)}\r\n"
        self.last_answer_fields = f"{date}Connection: close\r\n".encode()
        self.answer_fields = (
            f"{date}Connection: keep-alive\r\nKeep-Alive: timeout={self.timeouts.idle:.0f}\r\n"
        ).encode()
        for connection in list(self._connections):
            if connection.deadline < self.now:
                connection.expire()

    def drain(self, timeout: float) -> None:
        """Stop accepting, and wait until the answers that are being made have been sent.

        Args:
            timeout: seconds after which the rest is left alone.
        """
        self.draining = True
        for listener in self._listeners:
            listener.ignore()
        for connection in list(self._connections):
            connection.close_if_idle()
        self._empty.wait(timeout)

    # -- connections

    def accept(self, listener: _Listener) -> None:
        """Accept one connection; called from the event loop."""
        try:
            fd, address = listener.accept()
        except (BlockingIOError, ConnectionAbortedError, InterruptedError):
            return
        except OSError as error:
            self._accept_failed(listener, error)
            return
        sock = _socket.socket(fileno=fd)
        sock.setblocking(False)
        if listener.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        gevent.spawn_raw(self._serve, sock, _peer(address, listener.family))

    def _accept_failed(self, listener: _Listener, error: OSError) -> None:
        listener.ignore()
        self._hub.loop.timer(_ACCEPT_PAUSE).start(self._resume)
        if self.now - self._accept_logged > _ACCEPT_LOG_INTERVAL:
            self._accept_logged = self.now
            self.log.error("The %s can't accept connections: %s", self.name, error)

    def _resume(self) -> None:
        if not self.draining:
            for listener in self._listeners:
                listener.watch()

    def _serve(self, sock: Any, peer: tuple[str, str]) -> None:
        environ = self._environ | {"REMOTE_ADDR": peer[0], "REMOTE_PORT": peer[1]}
        connection = Connection(self, sock.fileno(), environ)
        self._connections.add(connection)
        self._empty.clear()
        if len(self._connections) >= self._max_connections:
            for listener in self._listeners:
                listener.ignore()
        try:
            connection.serve(self._handshake(sock, peer[0]))
        except OSError as error:
            self.log.debug("A connection to the %s ended: %s", self.name, error)
        except Exception as error:
            self.log.error("The %s failed: %s: %s", self.name, type(error).__name__, error)
            self.log.debug("Traceback of that error", exc_info=error)
        finally:
            connection.close()
            self._connections.discard(connection)
            if not self._connections:
                self._empty.set()
            if len(self._connections) == self._max_connections - 1:
                self._resume()

    def _handshake(self, sock: Any, peer: str) -> Stream:
        """Return the stream over ``sock``. Raises OSError."""
        if self._tls is None:
            return wrap(sock, self._hub)
        # Only wrap_socket needs a Python socket; after it, the C object is enough.
        tls_sock: Any = gevent_socket.socket(fileno=sock.detach())
        try:
            tls_sock = self._tls.wrap_socket(
                tls_sock, server_side=True, do_handshake_on_connect=False
            )
            tls_sock.setblocking(False)
            _do_handshake(tls_sock)
        except OSError as error:
            # Who connects and leaves at once, as health checks do, is no reason for a warning.
            gone = isinstance(error, ssl.SSLEOFError | ConnectionError)
            self.log.log(
                logging.DEBUG if gone else logging.WARNING,
                "TLS handshake of %s with the %s failed: %s",
                peer or "a UNIX socket",
                self.name,
                describe_failure(error),
            )
            _linger(tls_sock.detach())
            raise
        return wrap(tls_sock, self._hub)


class _Listener:
    """A listening socket and its place in the event loop."""

    def __init__(self, server: HttpServer, sock: socket.socket, loop: Any) -> None:
        self._server = server
        # The C base class: accept() of gevent's would park a greenlet.
        self._sock = _socket.socket(fileno=os.dup(sock.fileno()))
        self._sock.setblocking(False)
        self.family = sock.family
        self._watcher = loop.io(self._sock.fileno(), READ)

    def accept(self) -> tuple[int, Any]:
        """Return descriptor and address of a connection. Raises OSError."""
        # accept() of the C class has no other name, and typeshed none at all.
        return self._sock._accept()  # type: ignore[attr-defined]

    def watch(self) -> None:
        """Accept from now on."""
        self._watcher.start(self._server.accept, self)

    def ignore(self) -> None:
        """Leave what arrives in the backlog."""
        self._watcher.stop()


def _do_handshake(tls_sock: Any) -> None:
    """Do the handshake, waiting as often as it takes. Raises OSError."""
    if tls_sock._sslobj is None:
        raise ConnectionAbortedError("the client had left already")
    while True:
        try:
            tls_sock._sslobj.do_handshake()
            return
        except ssl.SSLWantReadError:
            gevent_socket.wait_read(tls_sock.fileno())
        except ssl.SSLWantWriteError:
            gevent_socket.wait_write(tls_sock.fileno())


def _linger(descriptor: int) -> None:
    """Close so that the client can read the alert: closing at once would reset the connection."""
    with gevent_socket.socket(fileno=descriptor) as sock, contextlib.suppress(OSError):
        sock.settimeout(_LINGER_SECONDS)
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(65536):
            pass


def _peer(address: Any, family: int) -> tuple[str, str]:
    """Return address and port of a client; both are empty on a UNIX socket."""
    return ("", "") if family == socket.AF_UNIX else (str(address[0]), str(address[1]))


def _base_environ(listener: socket.socket, scheme: str) -> dict[str, Any]:
    name, port = _peer(listener.getsockname(), listener.family)
    return {
        "SCRIPT_NAME": "",
        "SERVER_NAME": name or "localhost",
        "SERVER_PORT": port,
        "SERVER_SOFTWARE": "chp-gevent",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scheme,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
