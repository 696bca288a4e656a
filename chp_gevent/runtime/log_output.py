"""Where lines of the log go: descriptors that never make who writes to them wait.

Standard output may be a pipe, or a socket such as journald's, that nobody reads. A plain write
to it waits then, for ever, and with it whoever logs: all processes of the server. So here a line
is written at once and whole, or not at all; and who logs is told how many were lost.

``O_NONBLOCK`` on the descriptor itself would do, but it belongs to the open file, which whoever
started the server shares: their writes would fail too. To ask ``poll`` first is no promise: all
processes of the server, and others, write to the same pipe, and one of them may take the room.
What holds in any race:

- A pipe is opened once more, through ``/proc/self/fd``: that makes an open file of our own, with
  ``O_NONBLOCK``, on the same pipe. A write costs what it cost before (0.7 µs of a line's 4).
- A pipe of another user can't be opened (a container's, whose process is not root). Then a line
  goes into a pipe of the process's own, and is moved from there with ``splice``, which has a flag
  for not waiting: 2 µs more. (``RWF_NOWAIT`` needs Linux 6.4, and stops to work on a pipe as soon
  as anybody has spliced to it.)
- A socket has ``MSG_DONTWAIT``.

Writes of up to ``PIPE_BUF`` (4096) bytes to a pipe are whole or fail, and never mix with others'
(pipe(7)). What is longer is written line by line, and a line that is longer by itself is cut
short, with a mark. Files and terminals are written to as ever: they take lines of any length, and
a terminal that was stopped (^S) stops its program.
"""

from __future__ import annotations

import _socket
import contextlib
import errno
import fcntl
import io
import os
import select
import socket
import stat
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

WHOLE = select.PIPE_BUF
"""Bytes that a pipe takes whole or not at all."""

Write = Callable[[bytes], object]

# <linux/fcntl.h>; Python has names for them, but not in all builds.
_F_SETPIPE_SZ = 1031
_SPLICE_F_NONBLOCK = 2

# Bytes of a pipe that holds the log: what a reader may be behind before lines are lost. With the
# 64 KiB that pipes begin with, one that shares two CPUs with a burst of lines lost half of them.
_PIPE_SIZE = 1 << 20

# Nobody reads: no room at the moment, or no reader any more.
_UNREAD = (errno.EAGAIN, errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN)


class Output:
    """A descriptor that lines are written to, without ever waiting for a reader.

    Attributes:
        lost: how many texts could not be written since that was told.
        whole: how many bytes of a text are written whole; longer ones in pieces.
    """

    def __init__(self, descriptor: int) -> None:
        self._write, self.whole = _way_to(descriptor)
        self.lost = 0
        self._lost_by = 0
        self._lost_since = 0.0
        self._reason = ""

    def put(self, text: bytes) -> bool:
        """Write a text or lose it; return whether it is written. Raises nothing."""
        try:
            if len(text) <= self.whole:
                self._write(text)
            else:
                for piece in whole_pieces(text, self.whole):
                    self._write(piece)
        except OSError as error:
            self.lose(error)
            return False
        return True

    def put_losses(self, text: bytes) -> bool:
        """Write what tells of the losses, and count from 0 again; False if that can't be done."""
        lost = self.lost
        if not self.put(text):
            self.lost = lost
            return False
        self.lost = 0
        return True

    def lose(self, error: OSError | None = None) -> None:
        """Count a text as lost; without an ``error``, for the same reason as the last one."""
        if not self.has_losses():
            self._lost_by = os.getpid()
            self._lost_since = time.monotonic()
        self.lost += 1
        if error is not None:
            unread = error.errno in _UNREAD
            self._reason = "nobody read the log" if unread else error.strerror or str(error)

    def has_losses(self) -> bool:
        """Whether something was lost, and by this process: what its parent lost is forgotten."""
        if self.lost and self._lost_by != os.getpid():
            self.lost = 0
        return self.lost > 0

    def losses(self) -> str:
        """Say how much was lost, why, and within how many seconds."""
        what = "1 log line was" if self.lost == 1 else f"{self.lost} log lines were"
        seconds = int(time.monotonic() - self._lost_since) + 1
        return f"{what} dropped: {self._reason} for {seconds} s"


def whole_pieces(text: bytes, most: int) -> Iterator[bytes]:
    """Yield a text in pieces of at most ``most`` bytes that end where lines do.

    A longer line is cut, and says by how much.
    """
    piece = b""
    for line in text.splitlines(keepends=True):
        if len(line) > most:
            line = _cut(line, most)
        if len(piece) + len(line) > most:
            yield piece
            piece = b""
        piece += line
    yield piece


def _cut(line: bytes, most: int) -> bytes:
    # The mark with the number of bytes, and what is left of a character, fit into 40 bytes.
    kept = line[: most - 40].decode("utf-8", "ignore").encode()
    return b"%b [%d more bytes]\n" % (kept, len(line.rstrip(b"\n")) - len(kept))


# -- ways to write


def _way_to(descriptor: int) -> tuple[Write, int]:
    """Return how to write to a descriptor, and how many bytes are whole then."""
    mode = 0
    with contextlib.suppress(OSError):
        mode = os.fstat(descriptor).st_mode
    if stat.S_ISFIFO(mode):
        return _way_into_pipe(descriptor), WHOLE
    if stat.S_ISSOCK(mode):
        sink = _Socket(descriptor)
        return sink.write, sink.whole
    return partial(os.write, descriptor), sys.maxsize


def _way_into_pipe(descriptor: int) -> Write:
    with contextlib.suppress(OSError):  # not allowed so much: it stays as it is
        fcntl.fcntl(descriptor, _F_SETPIPE_SZ, _PIPE_SIZE)
    try:
        own = os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return _Spliced(descriptor).write
    return partial(os.write, own)


class _Spliced:
    """Writes to a pipe that can't be opened once more, by way of one of the process's own."""

    def __init__(self, sink: int) -> None:
        self._sink = sink
        self._pid = 0
        self._ends: tuple[int, ...] = ()

    def write(self, text: bytes) -> None:
        """Write at most ``WHOLE`` bytes: a page, of which ``splice`` moves all or nothing."""
        if self._pid != os.getpid():
            self._open()
        outlet, inlet = self._ends
        os.write(inlet, text)
        try:
            os.splice(outlet, self._sink, len(text), flags=_SPLICE_F_NONBLOCK)
        except OSError:
            os.read(outlet, len(text))
            raise

    def _open(self) -> None:
        """Make the pipe; the one that a forked process finds is its parent's."""
        inherited, self._ends = self._ends, ()
        for end in inherited:
            os.close(end)
        self._ends = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._pid = os.getpid()


class _Socket:
    """Writes to a stream socket.

    Attributes:
        whole: bytes that a UNIX socket takes whole or not at all.
    """

    def __init__(self, descriptor: int) -> None:
        # Not one of gevent's, whoever calls this.
        self._socket = _socket.socket(fileno=os.dup(descriptor))
        room = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
        # unix_stream_sendmsg() cuts what is longer than half of that into several buffers.
        self.whole = min(WHOLE, room // 2 - 64)
        self._torn = b""

    def write(self, text: bytes) -> None:
        """Write at most ``whole`` bytes.

        Of a TCP connection's buffer a part may be taken; then that line ends where it is cut.
        """
        text = self._torn + text
        sent = self._socket.send(text, socket.MSG_DONTWAIT)
        self._torn = b""
        if sent < len(text):
            self._torn = b"\n"
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))


# -- standard output and standard error

# By device and inode. Standard descriptors stay open, so that neither becomes another's.
_standard: dict[tuple[int, int], Output] = {}


def standard_output(descriptor: int) -> Output:
    """Return the output to a standard descriptor, always the same.

    Standard output and standard error have one if they are one pipe, and count what is lost there
    together.
    """
    status = os.fstat(descriptor)
    key = status.st_dev, status.st_ino
    if key not in _standard:
        _standard[key] = Output(descriptor)
    return _standard[key]


class _Unhindered(io.RawIOBase):
    """What is printed to a pipe or a socket, which may lose it, and does not wait for it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._output = standard_output(descriptor)

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def write(self, data: bytes | bytearray | memoryview) -> int:  # type: ignore[override]
        self._output.put(bytes(data))
        return len(data)


def secure_standard_streams() -> None:
    """Have whatever else is printed, e.g. tracebacks, neither wait nor fail nor go astray.

    Standard descriptors that are closed are opened on ``/dev/null``: they would become those of
    a socket or a file, and be written to. ``sys.stdout`` and ``sys.stderr``, where they are pipes
    or sockets, get what makes no writer wait below them. What is printed below Python, by a C
    library that is about to end the process, is not concerned.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
            os.set_inheritable(opened, True)
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        mode = os.fstat(descriptor).st_mode
        secured = isinstance(getattr(getattr(stream, "buffer", None), "raw", None), _Unhindered)
        if stream is None or ((stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)) and not secured):
            setattr(sys, name, _stream_to(descriptor))


def _stream_to(descriptor: int) -> io.TextIOWrapper:
    buffer: Any = io.BufferedWriter(_Unhindered(descriptor))
    return io.TextIOWrapper(buffer, "utf-8", "backslashreplace", line_buffering=True)
