"""Files that are read if they are files, and that are whole whenever somebody finds them."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import tempfile
from pathlib import Path


class NotRegularFile(OSError):
    """There is a pipe, a device or a folder in the place of a file; ``strerror`` says so."""


def read_regular(path: str, most: int = -1) -> bytes:
    """Return what is in a file, ``most`` bytes of it at the most.

    A pipe is waited for by nobody. Raises ``NotRegularFile``, and ``OSError``.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        # A file object of a folder can't be made, and would leave the descriptor open.
        os.close(descriptor)
        reason = os.strerror(errno.EISDIR) if stat.S_ISDIR(mode) else "it is not a regular file"
        raise NotRegularFile(errno.EINVAL, reason, path)
    with open(descriptor, "rb") as file:
        return file.read(most)


def replace_file(path: Path, content: bytes, mode: int, *, lasting: bool = False) -> None:
    """Write a file beside its place, with these permissions, and rename it into that.

    ``lasting``: it is there after a loss of power, too. Raises ``OSError``; nothing is left then.
    """
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with open(descriptor, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(content)
            if lasting:
                file.flush()
                os.fsync(file.fileno())
        os.rename(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    if lasting:
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Have the names in a folder outlive a loss of power. Raises ``OSError``."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
