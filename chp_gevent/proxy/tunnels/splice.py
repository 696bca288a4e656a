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
    :meth:`send`, and by :meth:`take` if that has left any. If something kept them from being
    taken, the pipe is given up with what is in it: one connection's bytes never come out to
    another one. Raises ``OSError`` when there are no descriptors left.
    """

    def __init__(self) -> None:
        self._open()

    def _open(self) -> None:
        self._outlet, self._inlet = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        with contextlib.suppress(OSError):  # not allowed so much: 16 places
            fcntl.fcntl(self._inlet, _F_SETPIPE_SZ, _PIPE_SIZE)
        # Bytes in the pipe; None while that is not known for certain.
        self._size: int | None = 0

    def receive(self, source: socket.socket) -> int:
        """Take in what has arrived, and return how many bytes; 0 at the end of the stream.

        Raises ``BlockingIOError`` when the kernel moves nothing: nothing has arrived, or it is
        urgent data, in front of which ``splice`` stops for ever while ``poll`` calls the socket
        readable; ``recv`` passes it by. Raises other ``OSError`` when the connection broke.
        """
        if self._size != 0:
            self._renew()
        self._size = None
        try:
            self._size = size = os.splice(source.fileno(), self._inlet, _MOVED, None, None, _FLAGS)
        except OSError:
            self._size = 0
            raise
        return size

    def _renew(self) -> None:
        """Go on with an empty pipe. Raises ``BlockingIOError`` if there is none to be had."""
        with contextlib.suppress(OSError):
            os.close(self._outlet)
        with contextlib.suppress(OSError):
            os.close(self._inlet)
        # Until there is another one: numbers of descriptors that are somebody else's soon.
        self._outlet = self._inlet = -1
        try:
            self._open()
        except OSError as error:
            raise BlockingIOError(error.errno, error.strerror) from error

    def send(self, sink: socket.socket) -> bool:
        """Give ``sink`` what it takes now; return whether that was everything.

        Raises ``OSError`` when the connection broke; then the bytes are gone.
        """
        left = self._size
        try:
            while left:
                left -= os.splice(self._outlet, sink.fileno(), left, None, None, _FLAGS)
                self._size = left
        except BlockingIOError:
            return False
        except OSError:
            self.take()
            raise
        return True

    def take(self) -> bytes:
        """Return what has not been sent."""
        data = b""
        size = self._size or 0
        while len(data) < size:
            data += os.read(self._outlet, size - len(data))
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
