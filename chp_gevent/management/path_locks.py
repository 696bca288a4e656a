"""Who may change which route now: changes of one path come one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from gevent.lock import Semaphore


class PathLocks:
    """Locks by path, or one for all paths.

    Args:
        each: whether each path has one of its own.
    """

    def __init__(self, *, each: bool) -> None:
        self._each = each
        self._one = Semaphore(1)
        # Locks that are held or waited for, and by how many.
        self._locks: dict[str, tuple[Semaphore, int]] = {}

    @contextmanager
    def held(self, path: str | None) -> Iterator[None]:
        """Hold the lock of a path, or of what concerns all of them (None)."""
        if not self._each:
            with self._one:
                yield
        elif path is None:
            # No change waits for the others then.
            yield
        else:
            lock, holders = self._locks.get(path, (None, 0))
            lock = lock or Semaphore(1)
            self._locks[path] = lock, holders + 1
            try:
                with lock:
                    yield
            finally:
                _, holders = self._locks[path]
                if holders == 1:
                    del self._locks[path]
                else:
                    self._locks[path] = lock, holders - 1
