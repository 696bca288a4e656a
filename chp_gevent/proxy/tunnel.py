"""Upgraded connections: bytes between a client and its target, moved by event-loop callbacks.

A tunnel has no greenlet and parses no frames: subprotocols, extensions, compression and
pings are the business of the two ends. An idle tunnel is two armed watchers and a few
small objects.
"""

from __future__ import annotations

import contextlib
import select
import socket
import time
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

from gevent.monkey import get_original

from chp_gevent.proxy.stream import READ, WRITE, Stream

# Reads of one flow before the others get their turn. Only TLS comes to a second one: what
# is left in a socket is announced by the loop again.
READS_PER_TURN = 4

# Reads of what a side had sent before it broke: up to 1 MiB, without waiting for more.
LAST_READS = 16

# A peer that vanished is noticed after 60 + 4 * 15 silent seconds (the kernel's default is
# more than two hours), which also keeps entries of NAT gateways alive.
SOCKET_OPTIONS = (
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4),
)


class Tunnel:
    """Two streams joined after a ``101``; owns both from now on.

    ``on_transfer(from_client, from_target)`` is called with numbers of bytes, one of them 0,
    each time something has been received. ``on_closed(tunnel)`` is called once, when both
    sides are closed, whatever the reason; that may be inside :meth:`start`. The early bytes
    are what had been received behind the two handshake messages; they are passed on first.

    The end of one side's stream is passed to the other side, which may go on sending. When
    a side breaks, the other one sees it break too.
    """

    __slots__ = ("_down", "_on_closed", "_up", "closed", "hub", "on_transfer", "opened_at")

    def __init__(
        self,
        client: Stream,
        target: Stream,
        hub: Any,
        on_transfer: Callable[[int, int], None],
        on_closed: Callable[[Tunnel], None],
        early_from_client: bytes = b"",
        early_from_target: bytes = b"",
    ) -> None:
        self.hub = hub
        self.on_transfer = on_transfer
        self.opened_at = time.monotonic()
        self.closed = False
        self._on_closed = on_closed
        self._up = _Flow(self, client, target, early_from_client)
        self._down = _Flow(self, target, client, early_from_target)

    @property
    def bytes_from_client(self) -> int:
        """Bytes received from the client so far."""
        return self._up.received

    @property
    def bytes_to_client(self) -> int:
        """Bytes received from the target so far."""
        return self._down.received

    @property
    def duration(self) -> float:
        """Seconds since the tunnel was made."""
        return time.monotonic() - self.opened_at

    def start(self) -> None:
        """Pass the early bytes on and begin to listen to both sides."""
        for flow in (self._up, self._down):
            _set_options(flow.source)
        self._up.start()
        if not self.closed:
            self._down.start()

    def abort(self) -> None:
        """Close both sides at once; safe to call again. Unsent bytes are lost."""
        self._close(reset=False)

    def reset(self) -> None:
        """Close both sides so that their peers see an error (RST)."""
        self._close(reset=True)

    def flow_broke(self, flow: _Flow) -> None:
        """React to a sink that takes no more: pass on its last words and reset the source.

        They often tell why: a close frame, sent by a target that did not want to read the rest.
        """
        other = self._down if flow is self._up else self._up
        other.drain()
        self.reset()

    def flow_ended(self, flow: _Flow) -> None:
        """React to a flow that has passed on the end of its source."""
        if self._up.ended and self._down.ended:
            self.abort()
        else:
            _reset_watch(self.hub).add(flow.source, self)

    def _close(self, *, reset: bool) -> None:
        if self.closed:
            return
        self.closed = True
        resets = _reset_watch(self.hub)
        for flow in (self._up, self._down):
            flow.stop()
            resets.remove(flow.source)
        for flow in (self._up, self._down):
            if reset:
                flow.source.reset()
            else:
                flow.source.close()
        self._on_closed(self)


class _Flow:
    """One direction of a tunnel: what ``source`` sends goes to ``sink``.

    A flow waits for one thing at a time: for something to read or, with bytes unsent, for
    the sink to take them. So it never holds more than one read, however slow the sink.
    """

    __slots__ = (
        "_at_end",
        "_blocked",
        "_sink",
        "_tunnel",
        "_unsent",
        "ended",
        "received",
        "source",
    )

    def __init__(self, tunnel: Tunnel, source: Stream, sink: Stream, early: bytes) -> None:
        self.source = source
        self.received = 0
        self.ended = False
        self._tunnel = tunnel
        self._sink = sink
        self._unsent: bytes | memoryview = early
        self._at_end = False
        self._blocked: Any = None

    def start(self) -> None:
        """Pass the early bytes on and listen to the source."""
        if self._unsent:
            self._count(len(self._unsent))
        self.source.watch(self.move)
        self.move()

    def stop(self) -> None:
        """Wait for nothing any more."""
        if self._blocked is not None:
            self._blocked.stop()
            self._blocked.close()
            self._blocked = None
        self.source.pause()

    def move(self) -> None:
        """Move what can be moved now; the loop calls this when what was waited for has come."""
        if self._blocked is not None:
            self._unblock()
        if self._unsent and not self._send():
            return
        if self._at_end:
            self._pass_end()
            return
        source = self.source
        for _ in range(READS_PER_TURN):
            try:
                data = source.try_read()
            except OSError:
                self._tunnel.reset()
                return
            if not data:
                self._read_nothing(data)
                return
            self._count(len(data))
            self._unsent = data
            if not self._send() or not source.has_pending():
                return
        self._tunnel.hub.loop.run_callback(self._move_on)

    def drain(self) -> None:
        """Pass on what the broken source has left behind, as far as the sink takes it now."""
        with contextlib.suppress(OSError):
            for _ in range(LAST_READS):
                unsent = self._unsent
                if unsent and self._sink.try_write(unsent) < len(unsent):
                    return
                data = self.source.try_read()
                if not data:
                    return
                self._count(len(data))
                self._unsent = data

    def _count(self, size: int) -> None:
        self.received += size
        tunnel = self._tunnel
        if self is tunnel._up:
            tunnel.on_transfer(size, 0)
        else:
            tunnel.on_transfer(0, size)

    def _send(self) -> bool:
        """Send what is unsent; return whether that was all. If not, the flow waits or is over."""
        data = self._unsent
        try:
            sent = self._sink.try_write(data)
        except OSError:
            self._tunnel.flow_broke(self)
            return False
        if sent == len(data):
            self._unsent = b""
            return True
        self._unsent = memoryview(data)[sent:]
        self._block(self._sink, self._sink.write_event)
        return False

    def _read_nothing(self, data: bytes | None) -> None:
        if data is not None:
            self._at_end = True
            self._pass_end()
        elif self.source.read_event != READ:
            self._block(self.source, self.source.read_event)

    def _pass_end(self) -> None:
        self.source.pause()
        try:
            passed = self._sink.try_shutdown_write()
        except OSError:
            self._tunnel.flow_broke(self)
            return
        if passed:
            self.ended = True
            self._tunnel.flow_ended(self)
        else:
            self._block(self._sink, WRITE)

    def _move_on(self) -> None:
        if not self._tunnel.closed:
            self.move()

    def _block(self, stream: Stream, event: int) -> None:
        """Wait for ``event`` on ``stream`` instead of for something to read."""
        tunnel = self._tunnel
        self.source.pause()
        _reset_watch(tunnel.hub).add(self.source, tunnel)
        self._blocked = tunnel.hub.loop.io(stream.sock.fileno(), event)
        self._blocked.start(self.move)

    def _unblock(self) -> None:
        self._blocked.stop()
        self._blocked.close()
        self._blocked = None
        self.source.watch(self.move)


class _ResetWatch:
    """Notices that a socket which nobody reads at the moment has been reset.

    For the loop such a socket is "readable" without end when data has to wait in it or when
    its stream has ended, so that it can't tell. A set of its own asks the kernel for errors
    only, once for each.
    """

    def __init__(self, hub: Any) -> None:
        self._tunnels: dict[int, Tunnel] = {}
        self._epoll = get_original("select", "epoll")()
        self._watcher = hub.loop.io(self._epoll.fileno(), READ, ref=False)
        self._watcher.start(self._on_events)

    def add(self, stream: Stream, tunnel: Tunnel) -> None:
        """Reset ``tunnel`` when ``stream`` is reset; no news if it is watched already."""
        descriptor = stream.sock.fileno()
        if descriptor not in self._tunnels:
            self._tunnels[descriptor] = tunnel
            # Errors are always reported; edge-triggered, else an end that was passed on
            # would be reported for ever.
            self._epoll.register(descriptor, select.EPOLLET)

    def remove(self, stream: Stream) -> None:
        """Forget ``stream``, before it is closed."""
        descriptor = stream.sock.fileno()
        if self._tunnels.pop(descriptor, None) is not None:
            self._epoll.unregister(descriptor)

    def _on_events(self) -> None:
        for descriptor, events in self._epoll.poll(0):
            tunnel = self._tunnels.get(descriptor)
            if tunnel is not None and events & select.EPOLLERR:
                tunnel.reset()


_reset_watches: WeakKeyDictionary[Any, _ResetWatch] = WeakKeyDictionary()


def _reset_watch(hub: Any) -> _ResetWatch:
    watch = _reset_watches.get(hub)
    if watch is None:
        watch = _reset_watches[hub] = _ResetWatch(hub)
    return watch


def _set_options(stream: Stream) -> None:
    if stream.sock.family != socket.AF_UNIX:
        with contextlib.suppress(OSError):
            for level, option, number in SOCKET_OPTIONS:
                stream.sock.setsockopt(level, option, number)
