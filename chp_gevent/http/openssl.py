"""What OpenSSL does for a connection when asked, and ``ssl`` has no way to ask for.

The connection's ``SSL *`` is read where CPython keeps it. Where that is not where it is expected,
or OpenSSL can't be called from here, :func:`pointer_to` returns None: callers go without.
"""

from __future__ import annotations

import _ssl
import ctypes
from typing import Any

# <openssl/ssl.h>
_CTRL_CLEAR_MODE = 78
_MODE_AUTO_RETRY = 4
_ERROR_WANT_WRITE = 3

# CPython's PySSLSocket, all versions from 3.7: Socket, ssl, ctx.
_SSL_AT = object.__basicsize__ + ctypes.sizeof(ctypes.c_void_p)
_CONTEXT_AT = _SSL_AT + ctypes.sizeof(ctypes.c_void_p)

_POINTER, _INT = ctypes.c_void_p, ctypes.c_int


def _find_library() -> ctypes.CDLL | None:
    """Return the library that ``ssl`` uses."""
    try:
        library = ctypes.CDLL(_ssl.__file__)
        for name, result, arguments in (
            ("SSL_ctrl", ctypes.c_long, (_POINTER, _INT, ctypes.c_long, _POINTER)),
            ("SSL_shutdown", _INT, (_POINTER,)),
            ("SSL_get_error", _INT, (_POINTER, _INT)),
            ("ERR_clear_error", None, ()),
        ):
            function = getattr(library, name)
            function.restype = result
            function.argtypes = arguments
    except (AttributeError, OSError):
        return None  # linked into the interpreter, and not to be called from elsewhere
    return library


_library = _find_library()


def pointer_to(sslobj: Any) -> int | None:
    """Return where the ``SSL`` of a connection (``SSLSocket._sslobj``) is, for as long as it lives.

    None if OpenSSL's functions can't be called with it.
    """
    if _library is None:
        return None
    address = id(sslobj)
    # The next member is an object that we know: so this one is the pointer that we look for.
    if _POINTER.from_address(address + _CONTEXT_AT).value != id(sslobj.context):
        return None
    return _POINTER.from_address(address + _SSL_AT).value


def stop_at_each_record(pointer: int) -> None:
    """Have OpenSSL come back after each record, whatever is in it.

    Python sets ``SSL_MODE_AUTO_RETRY`` on every TLS connection: ``SSL_read`` then goes on through
    records without data for its caller for as long as any arrive. A peer that sends nothing but
    KeyUpdate (RFC 8446, 4.6.3; 34,000 a second of 27 bytes) would stay inside one call, and hold
    everybody else on its worker for as long as it likes. Without the mode, such a record is a
    reason to wait for the next one, and so to look who else is ready.
    """
    assert _library is not None
    _library.SSL_ctrl(pointer, _CTRL_CLEAR_MODE, _MODE_AUTO_RETRY, None)


def send_close_notify(pointer: int) -> bool:
    """Send close_notify (RFC 8446, 6.1), and read nothing; nothing can be written after it.

    False when the socket is full: call again when it is writable. A connection that can't send it,
    since it is broken or was never made, is no matter.
    """
    assert _library is not None
    done: int = _library.SSL_shutdown(pointer)
    if done >= 0:
        return True
    error: int = _library.SSL_get_error(pointer, done)
    # What is left of it would be taken for an error of the next connection that is looked at.
    _library.ERR_clear_error()
    return error != _ERROR_WANT_WRITE
