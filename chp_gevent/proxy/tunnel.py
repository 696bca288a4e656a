"""Upgraded connections: bytes between a client and its target, moved by event-loop callbacks.

A tunnel has no greenlet and parses no frames: subprotocols, extensions, compression and
pings are the business of the two ends. An idle tunnel is two armed watchers and a few
small objects.
"""

from __future__ import annotations

import contextlib
import random
import select
import socket
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

from gevent import get_hub
from gevent.monkey import get_original

from chp_gevent.http.stream import READ, WRITE, Stream

# What every tunnel of the process receives into, since whatever can't be sent at once is
# copied. Nothing is allocated for a message, and one of 64 KiB comes with its frame header in
# one read (30% and 60% fewer instructions for messages of 64 bytes and 64 KiB).
_SCRATCH = memoryview(bytearray(131072))

# Reads of what a side had sent before it broke: up to 1 MiB, without waiting for more.
LAST_READS = 16
LAST_READ_SIZE = 65536

# A peer that vanished is noticed after two to three silent minutes (the kernel's default is
# more than two hours), and entries of NAT gateways are kept alive. Each socket has timers of
# its own: the probes of 10,000 tunnels that opened together, sent together, overflowed a
# queue of the kernel, and 1,200 living peers were taken for dead.
SOCKET_OPTIONS = (
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, range(1, 2)),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, range(1, 2)),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, range(30, 61)),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, range(10, 21)),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, range(6, 7)),
)


class Tunnel:
    """Two streams joined after a ``101``; owns both from now on.

    ``on_transfer(tunnel, size, from_client)`` is called each time something has been received,
    with the number of bytes and where from. ``on_closed(tunnel)`` is called once, when both
    sides are closed, whatever the reason; that may be inside :meth:`start`. The early bytes
    are what had been received behind the two handshake messages; they are passed on first.

    The end of one side's stream is passed to the other side, which may go on sending. When
    a side breaks, the other one sees it break too.
    """

    # Every slot here and below costs 10,000 idle tunnels 80 to 160 KB.
    __slots__ = ("_down", "_on_closed", "closed", "on_transfer", "up")

    def __init__(
        self,
        client: Stream,
        target: Stream,
        on_transfer: Callable[[Any, int, bool], None],
        on_closed: Callable[[Any], None],
        early_from_client: bytes = b"",
        early_from_target: bytes = b"",
    ) -> None:
        self.closed = False
        self.on_transfer = on_transfer
        self._on_closed = on_closed
        self.up = _Flow(self, client, target, early_from_client)
        self._down = _Flow(self, target, client, early_from_target)

    @property
    def bytes_from_client(self) -> int:
        """Bytes received from the client so far."""
        return self.up.received

    @property
    def bytes_to_client(self) -> int:
        """Bytes received from the target so far."""
        return self._down.received

    def start(self) -> None:
        """Pass the early bytes on and begin to listen to both sides."""
        for flow in (self.up, self._down):
            _set_options(flow.source)
        self.up.start()
        if not self.closed:
            self._down.start()

    def abort(self) -> None:
        """Close both sides at once; safe to call again. Unsent bytes are lost."""
        self._close(reset=False)

    def reset(self) -> None:
        """Close both sides so that their peers see an error (RST)."""
        self._close(reset=True)

    def flow_ended(self, flow: _Flow) -> None:
        """React to a flow that has passed on the end of its source."""
        if self.up.ended and self._down.ended:
            self.abort()
        else:
            # Anew, since what the kernel told before the end was of no interest then.
            resets = _reset_watch()
            resets.remove(flow)
            resets.add(flow)

    def source_broke(self, flow: _Flow) -> None:
        """React to an error on the source: what it sent before is not passed on any more.

        Unless it had ended in order. Then the error says that its peer is gone completely.
        """
        if not flow.at_end:
            self.reset()
            return
        self._opposite(flow).give_up()
        if flow.ended:
            self.abort()

    def sink_broke(self, flow: _Flow) -> None:
        """React to a sink that takes no more: pass its last words on, and close the source.

        They often tell why: a close frame, sent by a target that did not want to read the rest.
        """
        flow.give_up()
        opposite = self._opposite(flow)
        if opposite.ended or (not opposite.at_end and opposite.drain()):
            self.abort()
        elif not opposite.at_end:
            self.reset()

    def _opposite(self, flow: _Flow) -> _Flow:
        return self._down if flow is self.up else self.up

    def _close(self, *, reset: bool) -> None:
        if self.closed:
            return
        self.closed = True
        resets = _reset_watch()
        for flow in (self.up, self._down):
            flow.stop()
            resets.remove(flow)
        for flow in (self.up, self._down):
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
        "_blocked",
        "_sink",
        "_tunnel",
        "_unsent",
        "at_end",
        "ended",
        "received",
        "source",
    )

    def __init__(self, tunnel: Tunnel, source: Stream, sink: Stream, early: bytes) -> None:
        self.source = source
        self.received = 0
        # The end of the source has been read; nothing more will be passed on.
        self.at_end, self.ended = False, False
        self._tunnel = tunnel
        self._sink = sink
        self._unsent: bytes | memoryview = early
        self._blocked: Any = None

    def start(self) -> None:
        """Pass the early bytes on and listen to the source."""
        self.source.watch(self.move)
        if self._unsent:
            self._count(len(self._unsent))
            if not self._send():
                return
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
        if self._blocked is not None and not self._resume():
            return
        try:
            size = self.source.port.recv_into(_SCRATCH)
        except BlockingIOError:
            if self.source.read_event != READ:
                self._block(self.source, self.source.read_event)
            return
        except OSError:
            self.source_broke()
            return
        if not size:
            self.at_end = True
            self._pass_end()
            return
        self.received += size
        tunnel = self._tunnel
        tunnel.on_transfer(tunnel, size, tunnel.up is self)
        data = _SCRATCH[:size]
        try:
            sent = self._sink.port.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            tunnel.sink_broke(self)
            return
        if sent != size:
            self._wait_for_sink(bytes(data[sent:]))
        elif self.source.has_pending():
            get_hub().loop.run_callback(self._move_on)

    def source_broke(self) -> None:
        """React to an error on the source, found by reading it or told by the kernel."""
        self._tunnel.source_broke(self)

    def _resume(self) -> bool:
        """Do what the flow had to wait for; return whether it may read on."""
        self._unblock()
        if self._unsent and not self._send():
            return False
        if self.at_end:
            self._pass_end()
            return False
        return True

    def give_up(self) -> None:
        """Pass nothing on any more: the sink is gone."""
        self.stop()
        self._unsent = b""
        self.ended = True

    def drain(self) -> bool:
        """Pass on what the source has left behind; return whether that was everything."""
        with contextlib.suppress(OSError):
            for _ in range(LAST_READS):
                unsent = self._unsent
                if unsent and self._sink.try_write(unsent) < len(unsent):
                    return False
                data = self.source.try_read(LAST_READ_SIZE)
                if not data:
                    return data is not None
                self._count(len(data))
                self._unsent = data
        return False

    def _count(self, size: int) -> None:
        self.received += size
        self._tunnel.on_transfer(self._tunnel, size, self._tunnel.up is self)

    def _send(self) -> bool:
        """Send what is unsent; return whether that was all. If not, the flow waits or is over."""
        data = self._unsent
        try:
            sent = self._sink.try_write(data)
        except OSError:
            self._tunnel.sink_broke(self)
            return False
        if sent == len(data):
            self._unsent = b""
            return True
        self._wait_for_sink(memoryview(data)[sent:])
        return False

    def _wait_for_sink(self, unsent: bytes | memoryview) -> None:
        self._unsent = unsent
        self._block(self._sink, self._sink.write_event)

    def _pass_end(self) -> None:
        self.source.pause()
        try:
            passed = self._sink.try_shutdown_write()
        except OSError:
            self._tunnel.sink_broke(self)
            return
        if passed:
            self.ended = True
            self._tunnel.flow_ended(self)
        else:
            self._block(self._sink, WRITE)

    def _move_on(self) -> None:
        if not self.ended and not self._tunnel.closed:
            self.move()

    def _block(self, stream: Stream, event: int) -> None:
        """Wait for ``event`` on ``stream`` instead of for something to read."""
        self.source.pause()
        _reset_watch().add(self)
        self._blocked = get_hub().loop.io(stream.sock.fileno(), event)
        self._blocked.start(self.move)

    def _unblock(self) -> None:
        self._blocked.stop()
        self._blocked.close()
        self._blocked = None
        self.source.watch(self.move)


class _ResetWatch:
    """Notices that a connection which nobody reads at the moment is gone.

    For the loop it is "readable" without end when data has to wait in it or when its stream
    has ended, so that the loop can't tell. A set of its own asks the kernel for no events but
    those that are always told: errors, and "hung up", which is the end of both directions.
    """

    def __init__(self, hub: Any) -> None:
        self._flows: dict[int, _Flow] = {}
        self._epoll = get_original("select", "epoll")()
        self._watcher = hub.loop.io(self._epoll.fileno(), READ, ref=False)
        self._watcher.start(self._on_events)

    def add(self, flow: _Flow) -> None:
        """Tell ``flow`` when its source is gone. No news if that is watched already."""
        descriptor = flow.source.sock.fileno()
        if descriptor not in self._flows:
            self._flows[descriptor] = flow
            # Edge-triggered: a hang-up that is no reason to act would be told without end.
            self._epoll.register(descriptor, select.EPOLLET)

    def remove(self, flow: _Flow) -> None:
        """Forget ``flow``, before its source is closed."""
        descriptor = flow.source.sock.fileno()
        if self._flows.pop(descriptor, None) is not None:
            self._epoll.unregister(descriptor)

    def _on_events(self) -> None:
        for descriptor, events in self._epoll.poll(0):
            flow = self._flows.get(descriptor)
            # Until the end of its stream has been read, a peer that hung up may have left data.
            if flow is not None and (flow.at_end or events & select.EPOLLERR):
                flow.source_broke()


_reset_watches: WeakKeyDictionary[Any, _ResetWatch] = WeakKeyDictionary()


def _reset_watch() -> _ResetWatch:
    hub = get_hub()
    watch = _reset_watches.get(hub)
    if watch is None:
        watch = _reset_watches[hub] = _ResetWatch(hub)
    return watch


def _set_options(stream: Stream) -> None:
    if stream.sock.family != socket.AF_UNIX:
        with contextlib.suppress(OSError):
            for level, option, values in SOCKET_OPTIONS:
                stream.sock.setsockopt(level, option, random.choice(values))
