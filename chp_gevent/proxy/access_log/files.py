"""Writes batches of lines to the file of the access log.

That may take as long as its disk likes, so a thread does it. It lives for one batch, which costs
50 µs for hundreds of lines. The file is opened anew after it was renamed, or when somebody says so
(SIGUSR1).
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable
from typing import Any, Final

from chp_gevent.runtime.log_output import WHOLE, whole_pieces

LONGEST_LINE: Final = 65536
"""Bytes of a line in a file: more than any that a browser causes."""
# Seconds that a file's name may be missing before it is made anew: logrotate is making it.
_MISSING_FOR: Final = 1.0

_FLAGS: Final = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC
_MODE: Final = 0o640


class FileSink:
    """Appends to a file, or writes to a named pipe, in a thread for each batch.

    Several processes may write to one file: a batch is one ``write(2)``, and none is torn.

    Args:
        start_thread: calls a function with arguments in a thread (``_thread.start_new_thread``).
    """

    longest = LONGEST_LINE

    def __init__(self, path: str, start_thread: Callable[..., Any]) -> None:
        self._path = path
        self._start_thread = start_thread
        self._descriptor = -1
        self._opened: tuple[int, int] | None = None
        self._is_pipe = False
        self._missing_since: float | None = None
        self._torn = b""
        self._reopen = False
        self._busy = False
        self._lost = 0
        self._reason = ""

    @property
    def ready(self) -> bool:
        """See ``Sink``."""
        return not self._busy

    def write(self, lines: list[str]) -> None:
        """See ``Sink``."""
        self._busy = True
        try:
            self._start_thread(self._run, ("".join(lines).encode(),))
        except RuntimeError as error:
            self._lose(len(lines), str(error))
            self._busy = False

    def reopen(self) -> None:
        """See ``Sink``."""
        self._reopen = True

    def losses(self) -> tuple[int, str]:
        """See ``Sink``."""
        if self._busy:
            return 0, ""
        if self._reopen:
            self.write([])  # so that a file that was rotated is let go of
        lost, self._lost = self._lost, 0
        return lost, self._reason

    # -- in the thread

    def _run(self, data: bytes) -> None:
        try:
            self._open_if_needed()
        except OSError as error:
            self._lose(data.count(b"\n"), error.strerror or str(error))
        else:
            # A pipe that several write to takes so much whole (pipe(7)).
            for piece in whole_pieces(data, WHOLE) if self._is_pipe else (data,):
                self._put(piece)
        finally:
            self._busy = False

    def _open_if_needed(self) -> None:
        if self._descriptor >= 0 and not self._reopen and not self._is_rotated():
            return
        self._reopen = False
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        self._descriptor = os.open(self._path, _FLAGS, _MODE)
        status = os.fstat(self._descriptor)
        self._opened = status.st_dev, status.st_ino
        self._is_pipe = stat.S_ISFIFO(status.st_mode)
        self._missing_since, self._torn = None, b""

    def _is_rotated(self) -> bool:
        """Whether the name is another file's now, or has been nobody's for a while."""
        try:
            status = os.stat(self._path)
        except FileNotFoundError:
            now = time.monotonic()
            if self._missing_since is None:
                self._missing_since = now
            return now - self._missing_since >= _MISSING_FOR
        except OSError:
            return False
        self._missing_since = None
        return (status.st_dev, status.st_ino) != self._opened

    def _put(self, data: bytes) -> None:
        if not data:
            return
        data = self._torn + data
        try:
            written = os.write(self._descriptor, data)
        except OSError as error:
            self._lose(data.count(b"\n") - len(self._torn), error.strerror or str(error))
            return
        self._torn = b""
        if written < len(data):  # the disk is full
            rest = data[written:]
            self._torn = b"" if data[:written].endswith(b"\n") else b"\n"
            self._lose(rest.count(b"\n"), os.strerror(errno.ENOSPC))

    def _lose(self, lines: int, reason: str) -> None:
        self._lost += lines
        self._reason = reason


def check_file(path: str) -> None:
    """Try whether a file can be written to. Raises ``OSError``."""
    try:
        os.close(os.open(path, _FLAGS, _MODE))
    except OSError:
        # A pipe that nobody reads yet.
        if not stat.S_ISFIFO(os.stat(path).st_mode):
            raise
