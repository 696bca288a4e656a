"""OpenSSL told to come back after each record, whatever is in it.

Python sets ``SSL_MODE_AUTO_RETRY`` on every TLS connection: ``SSL_read`` then goes on through
records without data for its caller for as long as any arrive. A peer that sends nothing but
KeyUpdate (RFC 8446, 4.6.3; 34,000 a second of 27 bytes) would stay inside one call, and hold
everybody else on its worker for as long as it likes. Without the mode, such a record is a reason
to wait for the next one, and so to look who else is ready.

``ssl`` has no way to it, so the connection's ``SSL *`` is read where CPython keeps it. Where that
is not where it is expected, the mode stays as Python sets it.
"""

from __future__ import annotations

import _ssl
import ctypes
from collections.abc import Callable
from typing import Any

# <openssl/ssl.h>
_CTRL_CLEAR_MODE = 78
_MODE_AUTO_RETRY = 4

# CPython's PySSLSocket, all versions from 3.7: Socket, ssl, ctx.
_SSL_AT = object.__basicsize__ + ctypes.sizeof(ctypes.c_void_p)
_CONTEXT_AT = _SSL_AT + ctypes.sizeof(ctypes.c_void_p)


def _find_control() -> Callable[[int, int, int, None], int] | None:
    """Return OpenSSL's ``SSL_ctrl``, that of the library which ``ssl`` uses."""
    try:
        control = ctypes.CDLL(_ssl.__file__).SSL_ctrl
    except (AttributeError, OSError):
        return None  # linked into the interpreter, and not to be called from elsewhere
    control.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_long, ctypes.c_void_p)
    control.restype = ctypes.c_long
    return control


_control = _find_control()


def stop_at_each_record(sslobj: Any) -> bool:
    """Clear the mode for a connection (``SSLSocket._sslobj``); return whether that was possible."""
    if _control is None:
        return False
    address = id(sslobj)
    # The next member is an object that we know: so this one is the pointer that we look for.
    if ctypes.c_void_p.from_address(address + _CONTEXT_AT).value != id(sslobj.context):
        return False
    pointer = ctypes.c_void_p.from_address(address + _SSL_AT).value
    assert pointer is not None
    _control(pointer, _CTRL_CLEAR_MODE, _MODE_AUTO_RETRY, None)
    return True
