"""The file that holds the id of the main process while it serves (``--pid-file``)."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

from chp_gevent.runtime.files import replace_file


class PidFile:
    """A file with the id of this process.

    Whoever finds the file finds a whole id in it: it is written under a temporary name and
    renamed. What ``path`` leads to and is no regular file, such as a pipe, is written to.

    Attributes:
        is_ours: whether there is one that this process has written, under whatever version.
    """

    def __init__(self, path: str) -> None:
        # The file that a symbolic link leads to is replaced, not the link.
        self._path = Path(os.path.realpath(path))
        self.is_ours = False

    def write(self) -> None:
        """Write the id of this process. Raises ``OSError``."""
        text = str(os.getpid())
        if self._is_special():
            self._path.write_text(text, encoding="ascii")
            return
        # Whoever may write to it can have another process signalled: its owner only.
        replace_file(self._path, text.encode("ascii"), 0o644 & ~_umask())
        self.is_ours = True

    def remove(self) -> None:
        """Remove the file, unless it has another process's id in it by now."""
        if self.is_ours:
            with contextlib.suppress(OSError, ValueError):
                if int(self._path.read_text(encoding="ascii")) == os.getpid():
                    self._path.unlink()

    def _is_special(self) -> bool:
        try:
            return not stat.S_ISREG(self._path.stat().st_mode)
        except FileNotFoundError:
            return False


def _umask() -> int:
    # There is no way to read it without setting it.
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
