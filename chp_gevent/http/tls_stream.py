"""Non-blocking byte streams over TLS sockets.

Imported after monkey patching only: it needs gevent's ``ssl``.
"""

from __future__ import annotations

import _socket
import contextlib
import errno
import os
import socket
import ssl
from typing import Any

from chp_gevent.http.h1.heads import Buffer
from chp_gevent.http.openssl import pointer_to, send_close_notify, stop_at_each_record
from chp_gevent.http.stream import READ, READ_SIZE, TCP_CLOSE, WRITE, Stream

# What OpenSSL gives at once is part of one record (RFC 8446, 5.1): more needn't be allocated.
_TLS_RECORD = 16384
# OpenSSL's reason for an end without close_notify.
_NAMED_END = "UNEXPECTED_EOF_WHILE_READING"


class TLSSocket(_socket.socket):
    """A bare socket that a TLS object can be made for: that has a weak reference to it."""

    __slots__ = ("__weakref__",)


class TLSStream(Stream):
    """A connected TLS socket whose handshake is done, or done next by :meth:`handshake`.

    ``sock`` is over a non-blocking descriptor, and ``sslobj`` what ``ssl`` has of it in C: the
    Python methods of both standard library and gevent would block or park on their own terms.
    """

    __slots__ = ("_end", "_farewell", "_pointer", "_read_event", "_ssl", "_write_event", "was_cut")

    is_tls = True

    def __init__(self, sock: Any, hub: Any, sslobj: Any) -> None:
        super().__init__(sock, hub)
        self.port = self
        self._ssl = sslobj
        # What is sent last, or b"" where OpenSSL has sent it itself.
        self._farewell: bytes | None = None
        self.was_cut = False
        # How the stream ended, when a read has met that behind what it returned.
        self._end: bytes | OSError | None = None
        self._read_event = READ
        self._write_event = WRITE
        self._pointer = pointer_to(sslobj)
        if self._pointer is not None:
            stop_at_each_record(self._pointer)

    @classmethod
    def accepted(cls, sock: TLSSocket, hub: Any, context: ssl.SSLContext) -> TLSStream:
        """Return the stream of a client that has connected; the handshake is next.

        ``SSLContext.wrap_socket`` would make two more Python objects and ask the kernel four
        things about the socket, for 30 µs.
        """
        return cls(sock, hub, context._wrap_socket(sock, True))  # type: ignore[attr-defined]

    def handshake(self) -> None:
        """Do the handshake, waiting as often as it takes. Raises ``OSError``."""
        while True:
            try:
                self._ssl.do_handshake()
                return
            except ssl.SSLWantReadError:
                self._wait(READ)
            except ssl.SSLWantWriteError:
                self._wait(WRITE)

    @property
    def is_resumed(self) -> bool:
        """Whether the handshake has resumed a session."""
        return bool(self._ssl.session_reused)

    def use(self, context: ssl.SSLContext) -> None:
        """Take the certificate of another context, before the handshake."""
        self._ssl.context = context

    def without_tls(self) -> Stream:
        """Give up the socket, for a stream of what is below TLS; return that."""
        sock = _socket.socket(fileno=self.release().detach())
        sock.setblocking(False)
        return Stream(sock, self._hub)

    def below_tls(self) -> Stream:
        """Return a stream of what comes before TLS; closing it leaves this one open."""
        sock = _socket.socket(fileno=_socket.dup(self.sock.fileno()))
        sock.setblocking(False)
        return Stream(sock, self._hub)

    def try_read(self, size: int = READ_SIZE) -> bytes | None:
        """As :meth:`Stream.try_read`.

        A connection cut without close_notify ends with ``b""``, too; ``was_cut`` tells.
        """
        end = self._end
        if end is not None:
            if isinstance(end, OSError):
                raise end
            return end
        data = self._read_record(size)
        if data is None or len(data) < _TLS_RECORD or size == _TLS_RECORD:
            return data
        return self._read_on(data, size)

    def _read_on(self, data: bytes, size: int) -> bytes:
        """Return a full record and those that are here behind it, ``size`` bytes at most.

        So pieces are as large as without TLS, and have as much of a turn: with a record each,
        uploads got half as much of a busy worker as downloads.
        """
        records, left = [data], size - len(data)
        while left > 0 and len(data) == _TLS_RECORD:
            try:
                more = self._read_record(left)
            except OSError as error:
                self._end = error
                break
            if not more:
                # OpenSSL tells an end once: it answers with an alert, and a reset may follow.
                self._end = more
                break
            data = more
            records.append(data)
            left -= len(data)
        return b"".join(records)

    def _read_record(self, size: int) -> bytes | None:
        try:
            return self._ssl.read(min(size, _TLS_RECORD))
        except ssl.SSLWantReadError:
            self._read_event = READ
        except ssl.SSLWantWriteError:
            self._read_event = WRITE
        except ssl.SSLZeroReturnError:
            return b""
        except ssl.SSLError as error:
            # OpenSSL 3 names an end without close_notify, and answers it with an alert, so that a
            # reset may follow what was an end. Up to 3.11.2 Python had no class for what it names.
            named = getattr(error, "reason", None) == _NAMED_END
            if not named and not isinstance(error, ssl.SSLEOFError):
                raise
            # Python says the other for a reset too.
            if not named and self._is_reset():
                raise ConnectionResetError(errno.ECONNRESET, "connection reset") from error
            self.was_cut = True
            return b""
        return None

    def try_write(self, data: Buffer) -> int:
        """As :meth:`Stream.try_write`."""
        sent = self._write_record(data)
        if 0 < sent < len(data):
            view = memoryview(data)
            while sent < len(data) and (size := self._write_record(view[sent:])):
                sent += size
        return sent

    def _write_record(self, data: Buffer) -> int:
        try:
            return self._ssl.write(data)
        except ssl.SSLWantReadError:
            self._write_event = READ
        except ssl.SSLWantWriteError:
            self._write_event = WRITE
        except ssl.SSLZeroReturnError as error:
            raise BrokenPipeError("TLS connection closed by its peer") from error
        return 0

    def has_pending(self) -> bool:
        """Whether part of a record that has been decrypted, or the end, has not been read yet."""
        return self._end is not None or self._ssl.pending() > 0

    def has_met_end(self) -> bool:
        """As :meth:`Stream.has_met_end`: records are read on until there is no more of them."""
        return self._end == b""

    @property
    def read_event(self) -> int:
        """READ, or WRITE when TLS has something to send first."""
        return self._read_event

    @property
    def write_event(self) -> int:
        """WRITE, or READ when TLS has to hear from the peer first."""
        return self._write_event

    def write_all(self, *parts: Buffer) -> None:
        """As :meth:`Stream.write_all`; always copied, since a record each would cost more."""
        self.write(b"".join(parts))

    def read_next(self, size: int = READ_SIZE) -> bytes:
        """As :meth:`Stream.read`: decrypted data may be waiting where no event announces it."""
        return self.read(size)

    def try_shutdown_write(self) -> bool:
        """Send close_notify, then FIN; as :meth:`Stream.try_shutdown_write`."""
        self.hold_back()
        if not self._try_farewell():
            return False
        # The methods of SSLSocket would forget the TLS state, and reading goes on.
        _socket.socket.shutdown(getattr(self.sock, "_sock", self.sock), socket.SHUT_WR)
        return True

    def _try_farewell(self) -> bool:
        """Send close_notify; False when the socket is full. Raises ``OSError``."""
        if self._pointer is not None:
            if not send_close_notify(self._pointer):
                return False
            self._farewell = b""
            return True
        if self._farewell is None:
            self._farewell = self._close_notify()
        try:
            # A record of 24 to 31 bytes goes out whole or not at all.
            os.write(self.sock.fileno(), self._farewell)
        except BlockingIOError:
            return False
        return True

    def _close_notify(self) -> bytes:
        """Return the closing record, encrypted, and end the writing side of the TLS state.

        For where OpenSSL's own function can't be called. ``shutdown()`` of Python's SSL objects
        not only sends the record: it goes on to read the peer's, and breaks the connection when
        it meets data instead. So the socket is exchanged for an empty one meanwhile, from which
        there is nothing to read.
        """
        descriptor = self.sock.fileno()
        inner, outer = socket.socketpair()
        with inner, outer:
            inner.setblocking(False)
            outer.setblocking(False)
            kept = os.dup(descriptor)
            try:
                os.dup2(inner.fileno(), descriptor, inheritable=False)
                self._notify_close()
            finally:
                os.dup2(kept, descriptor, inheritable=False)
                os.close(kept)
            try:
                return outer.recv(READ_SIZE)
            except BlockingIOError:
                return b""  # the TLS state was broken or closed before

    def close(self) -> None:
        """Send close_notify if it can go out at once, and close."""
        if not self.closed and self._farewell is None:
            self._notify_close()
        super().close()

    def _is_reset(self) -> bool:
        try:
            state: bytes = self.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)
        except OSError:
            return False  # a UNIX socket
        return state[0] == TCP_CLOSE

    def _notify_close(self) -> None:
        if self._pointer is not None:
            send_close_notify(self._pointer)
            return
        with contextlib.suppress(OSError, ValueError):
            self._ssl.shutdown()


def wrap(sock: Any, hub: Any) -> Stream:
    """Return the stream for a connected socket, plain or TLS."""
    sslobj = getattr(sock, "_sslobj", None)
    if sslobj is not None:
        return TLSStream(sock, hub, sslobj)
    return Stream(sock, hub)
