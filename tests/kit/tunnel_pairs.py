"""Tunnels over real loopback connections, and their peers, for the tests of the tunnel.

The event loop runs in the test's own thread. Peers block: what they do is called in threads
of gevent's pool (``in_thread``, ``at_once``) while the loop runs.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import trustme
from gevent import get_hub, idle, sleep
from gevent.event import Event

from chp_gevent.http.stream import Stream
from chp_gevent.http.tls_stream import wrap
from chp_gevent.proxy.tunnels.tunnel import Tunnel
from tests.kit.peers.duplex import DuplexPeer

T = TypeVar("T")

SOON = 1.0
"""Seconds within which the end of one side must have reached the other."""


@dataclass(frozen=True)
class Contexts:
    """TLS for both ends of a connection to ``localhost``."""

    server: ssl.SSLContext
    client: ssl.SSLContext


def trusting_contexts() -> Contexts:
    """Return contexts of a server and of a client that trusts it."""
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(server)
    client = ssl.create_default_context()
    # As towards targets (config/tls_contexts): Debian's Python is built with it.
    client.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
    authority.configure_trust(client)
    return Contexts(server, client)


@dataclass
class Joined:
    """A tunnel, the two peers that talk through it and what its callbacks were told."""

    client: DuplexPeer
    target: DuplexPeer
    client_stream: Stream
    target_stream: Stream
    tunnel: Tunnel
    transfers: list[tuple[int, bool]] = field(default_factory=list)
    closings: list[Tunnel] = field(default_factory=list)
    closed: Event = field(default_factory=Event)

    def ends(self, way: tuple[str, str]) -> tuple[DuplexPeer, DuplexPeer]:
        """Return the sending and the receiving peer of a direction."""
        return getattr(self, way[0]), getattr(self, way[1])

    def close(self) -> None:
        """Close everything."""
        self.tunnel.abort()
        self.client.close()
        self.target.close()


class Joiner:
    """Makes tunnels, and closes them when the test is over."""

    def __init__(self, contexts: Contexts) -> None:
        self._contexts = contexts
        self._made: list[Joined] = []

    def __call__(
        self,
        client_tls: bool = False,
        target_tls: bool = False,
        *,
        early_from_client: bytes = b"",
        early_from_target: bytes = b"",
        target_pair: tuple[socket.socket, socket.socket] | None = None,
        stream_class: Callable[[Any, Any], Stream] | None = None,
        on_transfer: Callable[[Tunnel, int, bool], None] | None = None,
        start: bool = True,
    ) -> Joined:
        """Return a tunnel with TLS on these sides.

        ``target_pair`` are a peer's and the tunnel's socket to use instead of TCP and
        ``stream_class`` what the tunnel's is wrapped in.
        """
        client, client_sock = connection(self._contexts if client_tls else None, False)
        target, target_sock = connection(self._contexts if target_tls else None, True, target_pair)

        joined: Joined

        def on_closed(tunnel: Tunnel) -> None:
            joined.closings.append(tunnel)
            joined.closed.set()

        client_stream = wrap(client_sock, get_hub())
        target_stream = (stream_class or wrap)(target_sock, get_hub())
        tunnel = Tunnel(
            client_stream,
            target_stream,
            on_transfer or (lambda _, *transfer: joined.transfers.append(transfer)),
            on_closed,
            early_from_client,
            early_from_target,
        )
        joined = Joined(client, target, client_stream, target_stream, tunnel)
        self._made.append(joined)
        if start:
            tunnel.start()
        return joined

    def close(self) -> None:
        """Close all tunnels and their peers."""
        for joined in self._made:
            joined.close()


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Return a connected pair of TCP sockets."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        first = socket.create_connection(listener.getsockname())
        second, _ = listener.accept()
    for sock in (first, second):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return first, second


def connection(
    contexts: Contexts | None,
    peer_is_server: bool,
    pair: tuple[socket.socket, socket.socket] | None = None,
) -> tuple[DuplexPeer, socket.socket]:
    """Return a peer and the socket connected to it, with TLS if ``contexts`` are given."""
    theirs, ours = pair or tcp_pair()
    if contexts is None:
        ours.setblocking(False)
        return DuplexPeer(theirs), ours
    near, far = contexts.server, contexts.client
    if peer_is_server:
        near, far = far, near
    peer = DuplexPeer(theirs, tls=far, server_side=peer_is_server)
    wrapped = near.wrap_socket(
        ours,
        server_side=not peer_is_server,
        server_hostname="localhost" if peer_is_server else None,
        do_handshake_on_connect=False,
    )
    at_once(peer.handshake, wrapped.do_handshake)
    wrapped.setblocking(False)
    return peer, wrapped


def in_thread(function: Callable[..., T], *arguments: object, timeout: float = 60.0) -> T:
    """Call a blocking function in a thread while the event loop runs."""
    return get_hub().threadpool.spawn(function, *arguments).get(timeout=timeout)  # type: ignore[return-value]


def in_background(function: Callable[[], Any]) -> Any:
    """Start a blocking function in a thread; return what ``get(timeout=...)`` is called on."""
    return get_hub().threadpool.spawn(function)


def at_once(*functions: Callable[[], Any], timeout: float = 60.0) -> list[Any]:
    """Call blocking functions in parallel while the event loop runs; return their results."""
    calls = [get_hub().threadpool.spawn(function) for function in functions]
    return [call.get(timeout=timeout) for call in calls]


def run_loop(seconds: float = 0) -> None:
    """Let the event loop run until nothing is ready any more, or for some time."""
    if seconds:
        sleep(seconds)
    else:
        idle()


def run_until(condition: Callable[[], bool], what: str, timeout: float = 10.0) -> None:
    """Run the event loop until ``condition`` holds."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout:g} s: {what}"
        run_loop(0.001)


def run_until_still(number: Callable[[], int], seconds: float = 0.3) -> int:
    """Run the event loop until ``number`` has stayed the same for some time; return it."""
    last, since = number(), time.monotonic()
    while time.monotonic() - since < seconds:
        run_loop(0.01)
        if number() != last:
            last, since = number(), time.monotonic()
    return last


def ends_with_reset(peer: DuplexPeer) -> bool:
    """Whether what the peer reads ends with a reset, not with an ordinary end."""
    try:
        peer.receive_all()
    except ConnectionError:
        return True
    return False


def takes_no_more(peer: DuplexPeer) -> bool:
    """Whether sending to the other side fails soon."""
    deadline = time.monotonic() + SOON
    try:
        while time.monotonic() < deadline:
            peer.send(b"x")
    except ConnectionError:
        return True
    return False


def fill(sock: socket.socket) -> int:
    """Send until the socket takes no more; return how many bytes that was."""
    sent, piece = 0, bytes(65536)
    sock.setblocking(False)
    with contextlib.suppress(BlockingIOError, ConnectionError):
        while True:
            sent += sock.send(piece)
    return sent
