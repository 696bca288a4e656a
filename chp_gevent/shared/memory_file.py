"""Files in memory, without a name: inherited over ``fork`` and ``execve``."""

from __future__ import annotations

import os
import tempfile


def memory_file(name: str) -> int:
    """Return the descriptor of a new empty file; ``name`` shows in ``/proc/PID/fd``.

    Raises ``OSError``.
    """
    if hasattr(os, "memfd_create"):
        return os.memfd_create(name)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
