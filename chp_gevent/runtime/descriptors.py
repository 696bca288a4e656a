"""Descriptors: how many a process may have, and errors that say it has no more."""

from __future__ import annotations

import contextlib
import errno
import resource
from typing import Final

# Errors of accept, socket and connect that pass when the process, or the system, has room again.
NO_DESCRIPTORS: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


def raise_descriptor_limit() -> None:
    """Allow as many open files as the system lets this user have; inherited by children."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
