"""An HTTP/1.1 server for WSGI applications: accepts connections, keeps their deadlines.

gunicorn's HTTP layer takes 230 µs of CPU for a request where all of a proxied one must take
160; gevent's pywsgi takes, for an empty answer, 1.5 times what Node CHP does to add a route.
And both let pass what two parsers could read differently.

Imported after monkey patching only.
"""

from __future__ import annotations

import _socket
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from email.utils import formatdate
from typing import Any

import gevent
from gevent.event import Event
from greenlet import greenlet

from chp_gevent.http.acceptor import Acceptor
from chp_gevent.http.access_entry import Access
from chp_gevent.http.environ import base_environ
from chp_gevent.http.events import ServerEvents
from chp_gevent.http.h1.connection import ClientConnection
from chp_gevent.http.h1.logged import LoggedConnection
from chp_gevent.http.open_tunnels import OpenTunnels
from chp_gevent.http.peer import Peer, is_trusted, peer_address
from chp_gevent.http.room import Turn, first_to_go
from chp_gevent.http.settings import ServerSettings
from chp_gevent.http.state import ServerState, WsgiApp
from chp_gevent.http.stream import Stream
from chp_gevent.http.tls_stream import TLSSocket, TLSStream


class _ConnectionGreenlet(greenlet):
    # The hub asks for this at each switch; a missing attribute takes ten times as long.
    switch_out = None


class HTTPServer:
    """Serves an application on listening sockets.

    The sockets are never closed or shut down here: they belong to the arbiter, and what
    arrives while nobody accepts waits in their backlog.

    Args:
        app: a WSGI application. The environ has, beyond PEP 3333, ``RAW_URI``: the request
            target as it came; and ``chp.request``: a
            :class:`~chp_gevent.http.request.ClientRequest`.
        settings: what its clients may do.
        sockets: bound and listening, with the options that their connections are to have
            (``socket_options``).
        events: is told what happens.
        tunnels: its connections that speak another protocol; None if there can be none.
        access: is told of each request when it is over; None if nobody is.
        clock: returns monotonic time in seconds.

    Attributes:
        state: what its connections share.
        tunnels: as given.
    """

    def __init__(
        self,
        app: WsgiApp,
        settings: ServerSettings,
        sockets: Sequence[Any],
        events: ServerEvents,
        *,
        tunnels: OpenTunnels | None = None,
        access: Access | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.state = ServerState(app, settings, events, access, clock)
        self._connection_class = ClientConnection if access is None else LoggedConnection
        self._settings = settings
        self._events = events
        self._clock = clock
        self._tls = settings.tls
        self._new_socket = _socket.socket if settings.tls is None else TLSSocket
        self.tunnels = OpenTunnels() if tunnels is None else tunnels
        self.tunnels.on_end = self._made_room
        self._hub = gevent.get_hub()
        self._connections: set[ClientConnection] = set()
        self._base_environ = base_environ(settings)
        # Set when a connection or a tunnel ends while the server drains.
        self._ended = Event()
        self._acceptor = Acceptor(sockets, self._accepted, self._make_room, self._hub.loop, events)
        # Whom to close next when the server is full; never older than one sweep.
        self._first_to_go: list[tuple[Turn, ClientConnection]] = []
        interval = settings.sweep_interval
        self._sweeper = self._hub.loop.timer(interval, interval)

    # -- life

    def start(self) -> None:
        """Start accepting."""
        self.sweep()
        self._sweeper.start(self.sweep)
        self._acceptor.start()

    def drain(self) -> None:
        """Stop accepting; close each connection after the answer that it waits for.

        When this returns, the listening sockets are not used any more.
        """
        # From the hub, as everything that starts to serve a connection or interrupts it.
        self._hub.loop.run_callback(self._drain)
        gevent.sleep(0)

    def _drain(self) -> None:
        self.state.draining = True
        self._acceptor.close()
        now = self._clock()
        for connection in self._connections:
            connection.expire_soon(now)
        self._check_all(now)
        # Whoever waits for our end need not wait for the next sweep as well.
        grace = self._settings.drain_grace
        self._grace = self._hub.loop.timer(grace)
        self._grace.start(lambda: self._check_all(max(self._clock(), now + grace)))

    def use_tls(self, context: ssl.SSLContext) -> None:
        """Have connections that are accepted from now on use another context."""
        self._tls = context

    def give_up_heads(self) -> None:
        """Give up soon the clients that are sending the head of a request; nobody serves them."""
        now = self._clock()
        for connection in self._connections:
            connection.give_up_head(now)

    def join(self, seconds: float, *, tunnels: bool = True) -> bool:
        """Wait until no connection is open; False if that takes too long.

        ``tunnels`` says whether to wait for tunnels too, which may last for days.
        """
        deadline = time.monotonic() + seconds
        while self.busy if tunnels else self._connections:
            self._ended.clear()
            if not self._ended.wait(deadline - time.monotonic()):
                return False
        return True

    @property
    def open_connections(self) -> int:
        """How many connections are open."""
        return len(self._connections)

    @property
    def busy(self) -> int:
        """How many connections and tunnels are open."""
        return len(self._connections) + len(self.tunnels)

    def stop(self) -> None:
        """Cut off what is still open."""
        cuts = [tunnel.abort for tunnel in self.tunnels]
        cuts += [connection.stream.reset for connection in self._connections]
        for cut in cuts:
            try:
                cut()
            except Exception as error:
                self._events.on_crash(None, error)

    def sweep(self) -> None:
        """Renew what depends on the time, and give up who took too long; from the hub only."""
        self.state.date_line = f"Date: {formatdate(usegmt=True)}\r\n".encode()
        self._check_all(self._clock())
        self._first_to_go.clear()
        self._acceptor.look_again()

    def _check_all(self, now: float) -> None:
        for connection in list(self._connections):
            try:
                connection.check(now)
            except BaseException as error:
                # What goes wrong with one connection is no matter of the others.
                self._events.on_crash(None, error)

    # -- connections

    def _accepted(self, fd: int, address: Any, family: int) -> None:
        """Serve a connection that was just accepted, in a greenlet of its own."""
        # With its family and type, Python needs not ask the kernel for them (0.5 µs).
        sock = self._new_socket(family, socket.SOCK_STREAM, 0, fd)
        try:
            connection = self._connection(sock, address)
        except BaseException:
            sock.close()
            raise
        self._connections.add(connection)
        self._events.on_connections(len(self._connections))
        self._acceptor.set_full(self._is_full())
        # A bare greenlet: a gevent.Greenlet costs 5 µs more, and nobody waits for this one.
        _ConnectionGreenlet(connection.serve, self._hub).switch()

    def _connection(self, sock: Any, address: Any) -> ClientConnection:
        """Return what serves a socket from now on."""
        settings = self._settings
        ip = peer_address(address[0]) if sock.family != socket.AF_UNIX else ""
        trusted = is_trusted(ip, settings.trusted_proxies)
        peer = Peer(ip, settings.tls is not None, trusted)
        environ = self._base_environ.copy()
        environ["REMOTE_ADDR"] = ip
        environ["REMOTE_PORT"] = str(address[1]) if ip else ""
        sock.setblocking(False)
        if self._tls is None:
            return self._connect(Stream(sock, self._hub), peer, environ)
        return self._connect(TLSStream.accepted(sock, self._hub, self._tls), peer, environ)

    def _connect(self, stream: Stream, peer: Peer, environ: dict[str, Any]) -> ClientConnection:
        return self._connection_class(self.state, stream, peer, environ, self._forget)

    def _forget(self, connection: ClientConnection) -> None:
        """Take note that a connection has ended, or has become a tunnel."""
        self._connections.discard(connection)
        self._events.on_connections(len(self._connections))
        self._made_room()

    def _made_room(self) -> None:
        """Take note that a connection or a tunnel has ended."""
        self._acceptor.set_full(self._is_full())
        self._acceptor.end_pause()
        if self.state.draining:
            self._ended.set()

    def _is_full(self) -> bool:
        return self.busy >= self._settings.max_connections

    def _make_room(self) -> bool:
        """Close a connection on which no answer is being made; False if there is none.

        Asked by the acceptor when the server is full and somebody waits.
        """
        now = self._clock()
        if not self._first_to_go:
            self._first_to_go = first_to_go(self._connections, now)
        while self._first_to_go:
            (_, since), connection = self._first_to_go.pop()
            turn = connection.turn(now)
            # Or it has asked for something meanwhile.
            if turn is not None and turn[1] == since and connection.make_room():
                return True
        return False
