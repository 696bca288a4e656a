"""Non-blocking byte streams over plain sockets; ``tls_stream`` has those over TLS.

A stream has two faces. Greenlets use :meth:`Stream.read` and :meth:`Stream.write`, which
park until the socket is ready. Event-loop code (the tunnel) uses :meth:`Stream.try_read`
and :meth:`Stream.try_write`, which never block.

gevent's own sockets are not used here: they start and stop a watcher for every wait,
which costs two ``epoll_ctl`` calls and a ``Waiter`` object. A stream's read watcher stays
armed while its owner does something else, so the end of a connection that nobody is
reading is noticed too.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import sys
import termios
from collections.abc import Callable
from fcntl import ioctl
from typing import Any

from gevent import getcurrent
from gevent.monkey import get_original

from chp_gevent.http.h1.heads import Buffer
from chp_gevent.http.turns import turns

READ = 1
WRITE = 2


# Bytes of one read. With 64 KiB, 10 MB take 28% more CPU. See ``allocator`` for its price.
READ_SIZE = 262144

# Up to so many bytes, parts of a message are joined rather than sent as they are: 10 µs for a
# copy of 100 KB, 0.5 µs for ``sendmsg`` with any size.
COPIED = 8192

# The kernel's states of a connection whose peer has closed (<netinet/tcp.h>).
TCP_CLOSE, TCP_CLOSE_WAIT = 7, 8

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Stream:
    """A connected, non-blocking plain socket.

    ``sock`` is a ``socket.socket`` or its C base class in non-blocking mode; the stream owns
    it from now on. ``on_unread``, when set, is called from the event loop each time data
    or the end of the stream arrives while no greenlet is reading; the stream is paused
    before the call and stays so until the next read or :meth:`watch`. ``port`` is what to call
    :meth:`recv_into` and :meth:`send` of: the socket itself if that can be, since methods between
    cost a tunnel's small message 5%.
    """

    __slots__ = (
        "_armed",
        "_hub",
        "_parked",
        "_stalls",
        "_watcher",
        "_writer",
        "on_unread",
        "port",
        "sock",
    )

    is_tls = False
    # Whether the stream ended without its peer saying so: with TLS, anybody may have cut it.
    was_cut = False

    def __init__(self, sock: Any, hub: Any) -> None:
        self.sock = sock
        self.port: Any = sock
        self.on_unread: Callable[[], None] | None = None
        self._hub = hub
        self._watcher = hub.loop.io(sock.fileno(), READ)
        self._writer: Any = None
        self._parked: Any = None
        self._stalls = 0
        self._armed = False

    # -- never blocking

    def try_read(self, size: int = READ_SIZE) -> bytes | None:
        """Return what has arrived, ``b""`` at the end of the stream, None if nothing has.

        Raises ``OSError`` when the connection broke.
        """
        try:
            return self.sock.recv(size)
        except BlockingIOError:
            return None

    def try_write(self, data: Buffer) -> int:
        """Send what the socket takes now; return how many bytes that was, maybe 0.

        A caller that got less than ``len(data)`` must offer the rest, unchanged and whole,
        next time: TLS records are not divisible. Raises ``OSError`` when the connection broke.
        """
        try:
            return self.sock.send(data)
        except BlockingIOError:
            return 0

    def recv_into(self, buffer: memoryview) -> int:
        """Receive as a non-blocking socket does; the end as with :meth:`try_read`."""
        data = self.try_read(len(buffer))
        if data is None:
            raise BlockingIOError
        buffer[: len(data)] = data
        return len(data)

    def send(self, data: Buffer) -> int:
        """Send as a non-blocking socket does, or return 0 as :meth:`try_write` does."""
        return self.try_write(data)

    def has_pending(self) -> bool:
        """Whether a read would return data that no event announces."""
        return False

    def has_met_end(self) -> bool:
        """Whether the read that returned the last data has met the end behind them, too."""
        return False

    @property
    def read_event(self) -> int:
        """What to wait for (READ or WRITE) after :meth:`try_read` returned None."""
        return READ

    @property
    def write_event(self) -> int:
        """What to wait for (READ or WRITE) after :meth:`try_write` took less than all."""
        return WRITE

    # -- parking the current greenlet

    def read(self, size: int = READ_SIZE) -> bytes:
        """Wait for data and return it; ``b""`` at the end. Raises ``OSError``."""
        while True:
            data = self.try_read(size)
            if data is not None:
                return data
            self._wait(self.read_event)

    def read_next(self, size: int = READ_SIZE) -> bytes:
        """As :meth:`read`, for a caller who knows that nothing can have arrived yet.

        Waiting first saves the failing ``recv`` (1.5 µs and an exception).
        """
        self._wait_readable()
        try:
            return self.sock.recv(size)
        except BlockingIOError:
            return self.read(size)

    def write(self, data: Buffer) -> None:
        """Send all of ``data``, waiting as often as it takes. Raises ``OSError``.

        Whatever else is thrown into the caller while it waits, a timeout for instance, resets
        the connection: nothing may follow the half of something (RFC 9112, 8).
        """
        try:
            sent = self.port.send(data)
        except BlockingIOError:
            sent = 0
        if sent != len(data):
            rest = memoryview(data)[sent:]
            try:
                while rest:
                    self._wait(self.write_event)
                    rest = rest[self.try_write(rest) :]
            except BaseException:
                self.reset()
                raise

    def write_all(self, *parts: Buffer) -> None:
        """As :meth:`write`, for parts that are copied together only if they are small."""
        if sum(map(len, parts)) <= COPIED:
            self.write(b"".join(parts))
            return
        try:
            sent = self.sock.sendmsg(parts)
        except BlockingIOError:
            sent = 0
        for part in parts:
            if sent < len(part):
                self.write(memoryview(part)[sent:])
            sent = max(0, sent - len(part))

    def give_way(self) -> None:
        """Let others be served before the caller, who need not wait, goes on: see ``turns``."""
        turns(self._hub).give_way()

    def _wait(self, event: int) -> None:
        if event == WRITE:
            self._wait_writable()
        else:
            self._wait_readable()

    def _wait_readable(self) -> None:
        self._parked = me = getcurrent()
        if not self._armed:
            self.watch()
        try:
            self._hub.switch()
        finally:
            if self._parked is me:
                self._parked = None

    def _wait_writable(self) -> None:
        writer = self._writer
        if writer is None:
            writer = self._writer = self._hub.loop.io(self.sock.fileno(), WRITE)
        self._stalls += 1
        writer.start(getcurrent().switch)
        try:
            self._hub.switch()
        finally:
            writer.stop()

    @property
    def is_reading(self) -> bool:
        """Whether a greenlet waits for something to read."""
        return self._parked is not None

    def write_position(self) -> tuple[int, int] | None:
        """Return how far a write has come that waits for the peer; None if none does.

        It changes with each byte that the peer takes, long before the socket has room again.
        """
        if self._writer is None or not self._writer.active:
            return None
        unsent = ioctl(self.sock.fileno(), termios.TIOCOUTQ, bytes(4))
        return self._stalls, int.from_bytes(unsent, sys.byteorder)

    # -- arrivals that nobody waits for

    def watch(self, callback: Callable[[], None] | None = None) -> None:
        """Arm the read watcher, so that ``on_unread`` is called on the next arrival.

        A ``callback`` is called instead, on every arrival until :meth:`pause`.
        """
        if callback is not None:
            self.pause()
        if not self._armed:
            self._armed = True
            self._watcher.start(callback or self._on_readable)

    def pause(self) -> None:
        """Stop looking for arrivals until the next read or :meth:`watch`."""
        if self._armed:
            self._armed = False
            self._watcher.stop()

    def _on_readable(self) -> None:
        parked = self._parked
        if parked is not None:
            parked.switch()
            return
        self.pause()
        if self.on_unread is not None:
            self.on_unread()

    def callback_failed(self) -> None:
        """End the connection, since what its arrivals caused failed unexpectedly."""
        self.reset()

    def has_unread(self) -> bool:
        """Whether something, or the end, has arrived that nobody has read yet."""
        poller = get_original("select", "poll")()
        poller.register(self.sock.fileno(), select.POLLIN)
        return bool(poller.poll(0))

    def peer_has_finished(self) -> bool:
        """Whether the peer has closed behind data that we are not reading.

        Always False while the stream is armed: then the event loop tells. TCP only.
        """
        if self._armed or self._watcher is None or self.sock.family == socket.AF_UNIX:
            return False
        try:
            state = self.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
            return state in (TCP_CLOSE, TCP_CLOSE_WAIT)
        except OSError:
            return False

    # -- the end

    def hold_back(self) -> None:
        """Have what is written from now on wait for the end of the stream, which comes at once.

        They are in one packet then: each further one takes 5 µs, and wakes the peer. The kernel
        waits for 0.2 s at most, and for no more than a packet's worth.
        """
        if self.sock.family != socket.AF_UNIX:
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)

    def try_shutdown_write(self) -> bool:
        """Tell the peer that nothing more will be sent (FIN; with TLS, close_notify first).

        False when the socket is full: try again when it is writable. Reading goes on.
        Raises ``OSError`` when the connection broke.
        """
        self.sock.shutdown(socket.SHUT_WR)
        return True

    def shutdown_write(self) -> None:
        """As :meth:`try_shutdown_write`, once and as well as it can be done now."""
        with contextlib.suppress(OSError):
            self.try_shutdown_write()

    def release(self) -> Any:
        """Give up the socket without closing it, for a new owner; return it."""
        self._close_watchers()
        return self.sock

    def close(self) -> None:
        """Close the socket; safe to call again."""
        self._close_watchers()
        with contextlib.suppress(OSError):
            self.sock.close()

    def reset(self) -> None:
        """Close so that the peer sees an error (RST), not an ordinary end of the stream."""
        self.reset_on_close()
        Stream.close(self)

    def reset_on_close(self) -> None:
        """Have :meth:`close` reset the connection, and forget what has not been sent."""
        with contextlib.suppress(OSError):
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)

    @property
    def closed(self) -> bool:
        """Whether :meth:`close`, :meth:`reset` or :meth:`release` has been called."""
        return self._watcher is None

    def _close_watchers(self) -> None:
        self.on_unread = None
        self._armed = False
        for watcher in (self._watcher, self._writer):
            if watcher is not None:
                watcher.stop()
                watcher.close()
        self._watcher = self._writer = None
        self.port = self.sock  # also where it was the stream itself, a reference cycle
