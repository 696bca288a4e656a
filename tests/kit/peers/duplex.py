"""One end of a plain or TLS connection whose two directions end one by one."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading

from tests.kit.peers.loopback import reset_on_close

PIECE = 65536


class DuplexPeer:
    """A blocking connection that can shut its writing side and read on.

    With ``tls`` that is close_notify and FIN, which ``ssl.SSLSocket`` can't send without
    waiting for the other side's. One thread may send while another one receives.
    Everything raises TimeoutError after ``timeout`` seconds.
    """

    def __init__(
        self,
        sock: socket.socket,
        *,
        tls: ssl.SSLContext | None = None,
        server_side: bool = False,
        timeout: float = 20.0,
    ) -> None:
        self.socket = sock
        sock.settimeout(timeout)
        # Held while the TLS state is touched, never while waiting for the socket.
        self._tls_lock = threading.Lock()
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls: ssl.SSLObject | None = None
        if tls is not None:
            self._tls = tls.wrap_bio(
                self._incoming,
                self._outgoing,
                server_side=server_side,
                server_hostname=None if server_side else "localhost",
            )

    def handshake(self) -> None:
        """Shake hands, if this is TLS."""
        tls = self._tls
        while tls is not None:
            try:
                tls.do_handshake()
                tls = None
            except ssl.SSLWantReadError:
                self._flush()
                self._fill()
        self._flush()

    def send(self, data: bytes | memoryview) -> None:
        """Send all of ``data``."""
        if self._tls is None:
            self.socket.sendall(data)
            return
        for start in range(0, len(data), PIECE):
            with self._tls_lock:
                self._tls.write(data[start : start + PIECE])
            self._flush()

    def on_the_wire(self, data: bytes) -> bytes:
        """Return the bytes that ``send`` would put on the wire, for sending in pieces."""
        if self._tls is None:
            return data
        self._tls.write(data)
        return self._outgoing.read()

    def receive(self, size: int = PIECE) -> bytes:
        """Return what comes next, ``b""`` at the end. Raises ConnectionError on a reset."""
        if self._tls is None:
            return self.socket.recv(size)
        while True:
            try:
                with self._tls_lock:
                    return self._tls.read(size)
            except ssl.SSLWantReadError:
                self._fill()
            except ssl.SSLZeroReturnError:
                return b""

    def receive_exactly(self, size: int) -> bytes:
        """Return the next ``size`` bytes. Raises AssertionError when the stream ends first."""
        received = bytearray()
        while len(received) < size:
            piece = self.receive(min(PIECE, size - len(received)))
            assert piece, f"the stream ended after {len(received)} of {size} bytes"
            received += piece
        return bytes(received)

    def receive_all(self) -> bytes:
        """Return everything until the end of the stream (with TLS: its close_notify)."""
        received = bytearray()
        while piece := self.receive():
            received += piece
        return bytes(received)

    def shut_writing(self) -> None:
        """Say that nothing more will be sent, and go on receiving."""
        if self._tls is not None:
            with contextlib.suppress(ssl.SSLError):
                self._tls.unwrap()
            self._flush()
        self.socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Break the connection off with a reset."""
        reset_on_close(self.socket)
        self.socket.close()

    def close(self) -> None:
        """Close the connection, TLS or not, without ceremony."""
        self.socket.close()

    def __enter__(self) -> DuplexPeer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _flush(self) -> None:
        with self._tls_lock:
            data = self._outgoing.read()
        if data:
            self.socket.sendall(data)

    def _fill(self) -> None:
        data = self.socket.recv(PIECE)
        with self._tls_lock:
            if data:
                self._incoming.write(data)
            else:
                self._incoming.write_eof()
