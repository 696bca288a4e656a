"""Bytes from socket to socket without a copy of them in this process: ``splice(2)``."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import socket

# <linux/fcntl.h>; Python has a name for it, but not in all builds.
_F_SETPIPE_SZ = 1031

_FLAGS = getattr(os, "SPLICE_F_NONBLOCK", 0) | getattr(os, "SPLICE_F_MOVE", 0)

# Bytes moved at once, as much as a tunnel reads otherwise.
_MOVED = 131072

# Bytes of the pipe. Its places matter, one for each 4 KB: a segment from the network takes one.
_PIPE_SIZE = 1 << 20


class Splicer:
    """A pipe of the kernel, through which a plain socket's bytes go to another one.

    :meth:`receive` puts bytes in. Before it is called again they have to be taken out: by
    :meth:`send`, and by :meth:`take` if that has left any. Raises ``OSError`` when there are
    no descriptors left.
    """

    def __init__(self) -> None:
        self._outlet, self._inlet = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        with contextlib.suppress(OSError):  # not allowed so much: 16 places
            fcntl.fcntl(self._inlet, _F_SETPIPE_SZ, _PIPE_SIZE)
        self._size = 0

    def receive(self, source: socket.socket) -> int:
        """Take in what has arrived, and return how many bytes; 0 at the end of the stream.

        Raises ``BlockingIOError`` when nothing has, other ``OSError`` when the connection broke.
        """
        self._size = os.splice(source.fileno(), self._inlet, _MOVED, None, None, _FLAGS)
        return self._size

    def send(self, sink: socket.socket) -> bool:
        """Give ``sink`` what it takes now; return whether that was everything.

        Raises ``OSError`` when the connection broke; then the bytes are gone.
        """
        try:
            while self._size:
                self._size -= os.splice(self._outlet, sink.fileno(), self._size, None, None, _FLAGS)
        except BlockingIOError:
            return False
        except OSError:
            self.take()
            raise
        return True

    def take(self) -> bytes:
        """Return what has not been sent."""
        data = b""
        while len(data) < self._size:
            data += os.read(self._outlet, self._size - len(data))
        self._size = 0
        return data


@functools.cache
def splicer() -> Splicer | None:
    """Return the process's one, since it is empty whenever the event loop runs.

    None if the system or the Python build has no such call, or no descriptors were left when
    it was first asked for.
    """
    try:
        return Splicer() if hasattr(os, "splice") else None
    except OSError:
        return None
