"""A TLS client that sends nothing but KeyUpdate (RFC 8446, 4.6.3); Python's ``ssl`` has no way to.

A program, since it has to be quick: ``python -m tests.kit.peers.key_updates PORT`` prints a line
when it has begun, and goes on until it is killed.
"""

from __future__ import annotations

import _ssl
import contextlib
import ctypes
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

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
def updating_keys(port: int) -> Iterator[None]:
    """Run the program against a port of 127.0.0.1 until the block ends."""
    command = [sys.executable, "-m", __spec__.name, str(port)]
    root = Path(__file__).parents[3]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "begun\n"
            yield
            assert process.poll() is None, "it has been doing so all the time"
        finally:
            process.kill()


def _run(port: int) -> None:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    sock = context.wrap_socket(socket.create_connection(("127.0.0.1", port)))
    library = ctypes.CDLL(_ssl.__file__)
    address = id(sock._sslobj)  # type: ignore[attr-defined]
    kept = ctypes.c_void_p.from_address(address + _SSL_AT + _POINTER).value
    assert kept == id(sock.context), "another layout"
    connection = ctypes.c_void_p(ctypes.c_void_p.from_address(address + _SSL_AT).value)
    begun = False
    while library.SSL_key_update(connection, 0) == 1:
        if library.SSL_do_handshake(connection) != 1:
            break
        if not begun:
            begun = True
            print("begun", flush=True)


if __name__ == "__main__":
    _run(int(sys.argv[1]))
