"""A TLS peer that sends nothing but KeyUpdate (RFC 8446, 4.6.3); Python's ``ssl`` has no way to."""

from __future__ import annotations

import _ssl
import contextlib
import ctypes
import ssl
import threading
from collections.abc import Iterator

# CPython's PySSLSocket: Socket, ssl, ctx.
_POINTER = ctypes.sizeof(ctypes.c_void_p)
_SSL_AT = object.__basicsize__ + _POINTER


def can_update_keys() -> bool:
    """Whether OpenSSL's functions can be reached beside ``ssl``."""
    try:
        return hasattr(ctypes.CDLL(_ssl.__file__), "SSL_key_update")
    except (AttributeError, OSError):
        return False


@contextlib.contextmanager
def updating_keys(sock: ssl.SSLSocket) -> Iterator[list[int]]:
    """Update the keys of a TLS 1.3 connection without end, until the block ends.

    Yields a list whose only item is how many updates have been sent.
    """
    library = ctypes.CDLL(_ssl.__file__)
    address = id(sock._sslobj)  # type: ignore[attr-defined]
    context = ctypes.c_void_p.from_address(address + _SSL_AT + _POINTER).value
    assert context == id(sock.context), "another layout"
    connection = ctypes.c_void_p(ctypes.c_void_p.from_address(address + _SSL_AT).value)
    sent = [0]
    over = threading.Event()

    def update() -> None:
        while not over.is_set():
            # No more than this when the connection has been closed.
            if library.SSL_key_update(connection, 0) != 1:
                return
            if library.SSL_do_handshake(connection) != 1:
                return
            sent[0] += 1

    thread = threading.Thread(target=update, daemon=True)
    thread.start()
    try:
        yield sent
    finally:
        over.set()
        thread.join(10)
