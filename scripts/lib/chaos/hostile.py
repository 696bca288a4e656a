"""Clients that mean harm: bodies in tiny chunks, and connections that say nothing."""

from __future__ import annotations

import resource
import socket
import ssl
import threading
import time
from contextlib import ExitStack, suppress

from scripts.lib.chaos.flood_target import CHUNKS, READ_SIZE

_CONNECT_TIMEOUT = 10.0
# Descriptors that the rest of a run needs.
_SPARE = 500


def tiny_chunks(
    address: tuple[str, int], tls: ssl.SSLContext | None, path: str, seconds: float, *, up: bool
) -> None:
    """Send a body in chunks of one byte, or read one, as fast as it goes."""
    end = time.monotonic() + seconds
    with suppress(OSError), socket.create_connection(address, timeout=_CONNECT_TIMEOUT) as plain:
        # After the handshake it may be refused, or its worker killed: it is nobody's loss.
        sock = tls.wrap_socket(plain) if tls is not None else plain
        with sock:
            sock.sendall(_head(path, up=up))
            while (left := end - time.monotonic()) > 0:
                sock.settimeout(left)
                if up:
                    sock.sendall(CHUNKS)
                elif not sock.recv(READ_SIZE):
                    return


def _head(path: str, *, up: bool) -> bytes:
    framing = "Transfer-Encoding: chunked\r\n" if up else ""
    return f"{'POST' if up else 'GET'} {path} HTTP/1.1\r\nHost: h\r\n{framing}\r\n".encode()


def hold_silent(
    address: tuple[str, int], count: int, seconds: float, opened: threading.Event
) -> None:
    """Open connections, say when that is done, and nothing on them for so many seconds."""
    with ExitStack() as held:
        with suppress(OSError):
            for _ in range(count):
                held.enter_context(socket.create_connection(address, _CONNECT_TIMEOUT))
        opened.set()
        time.sleep(seconds)


def room_for(count: int) -> int:
    """Return how many of so many connections this process may open beside the rest of a run."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count + _SPARE:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(count + _SPARE, hard), hard))
    return min(count, hard - _SPARE)
