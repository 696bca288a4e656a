"""Upgraded connections: bytes between a client and its target, moved by event-loop callbacks.

A tunnel has no greenlet and parses no frames: subprotocols, extensions, compression and
pings are the business of the two ends. An idle tunnel is two armed watchers and a few
small objects.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from gevent import get_hub

from chp_gevent.http.socket_options import prepare_tunnel
from chp_gevent.http.stream import READ, WRITE, Stream
from chp_gevent.proxy.tunnels.hangup_watch import hangup_watch
from chp_gevent.proxy.tunnels.splice import splicer

# What every tunnel of the process receives into, since whatever can't be sent at once is
# copied. Nothing is allocated for a message, and one of 64 KiB comes with its frame header in
# one read (30% and 60% fewer instructions for messages of 64 bytes and 64 KiB).
_SCRATCH = memoryview(bytearray(131072))

# Bytes received at once from which on it is cheaper not to copy the next ones: splice(2) takes
# 20% fewer cycles for 64 KiB, 10% fewer for 16 KiB, and more than a copy for 8 KiB.
LONG = 16384

# Reads of what a side had sent before it broke: up to 1 MiB, without waiting for more.
LAST_READS = 16
LAST_READ_SIZE = 65536


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
            prepare_tunnel(flow.source.sock)
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
            resets = hangup_watch()
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
        try:
            resets = hangup_watch()
            for flow in (self.up, self._down):
                flow.stop()
                resets.remove(flow)
        finally:
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
        except OSError as error:
            self._received_nothing(error)
            return
        if not size:
            self._reach_end()
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
        elif size >= LONG and self._can_splice():
            self.source.watch(self.move_long)
        elif self.source.has_pending():
            get_hub().loop.run_callback(self._move_on)

    def move_long(self) -> None:
        """As :meth:`move`, for long pieces between plain sockets: they are not copied."""
        pipe = splicer()
        assert pipe is not None
        try:
            size = pipe.receive(self.source.sock)
        except BlockingIOError:
            # Urgent data, mostly: readable, but not for splice(2).
            self.source.watch(self.move)
            self.move()
            return
        except OSError as error:
            self._received_nothing(error)
            return
        if not size:
            self._reach_end()
            return
        self._count(size)
        try:
            sent = pipe.send(self._sink.sock)
        except OSError:
            self._tunnel.sink_broke(self)
            return
        if not sent:
            self._wait_for_sink(pipe.take())
        elif size < LONG:
            self.source.watch(self.move)

    def _can_splice(self) -> bool:
        return splicer() is not None and not (self.source.is_tls or self._sink.is_tls)

    def _received_nothing(self, error: OSError) -> None:
        if not isinstance(error, BlockingIOError):
            self.source_broke()
        elif self.source.read_event != READ:
            self._block(self.source, self.source.read_event)

    def _reach_end(self) -> None:
        self.at_end = True
        self._pass_end()

    def source_broke(self) -> None:
        """React to an error on the source, found by reading it or told by the kernel."""
        self._tunnel.source_broke(self)

    def callback_failed(self) -> None:
        """End the tunnel, since moving its bytes failed for a reason that nobody foresaw."""
        self._tunnel.reset()

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
        # Known before all is sent, or a reset in answer to OpenSSL's alert (for an end without
        # close_notify) would break what has ended in order.
        self.at_end = self.at_end or self.source.has_met_end()
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
            try:
                self.move()
            except Exception:  # of this kind of callback the loop does not tell whose it was
                self.callback_failed()
                raise

    def _block(self, stream: Stream, event: int) -> None:
        """Wait for ``event`` on ``stream`` instead of for something to read."""
        self.source.pause()
        hangup_watch().add(self)
        self._blocked = get_hub().loop.io(stream.sock.fileno(), event)
        self._blocked.start(self.move)

    def _unblock(self) -> None:
        self._blocked.stop()
        self._blocked.close()
        self._blocked = None
        self.source.watch(self.move)
