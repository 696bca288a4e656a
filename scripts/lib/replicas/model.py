"""What may be the target of each route, after changes that were confirmed, and others."""

from __future__ import annotations

import threading
from collections import Counter


class Model:
    """The targets that each path may have: one, if its last change was confirmed.

    None stands for no route. Attributes: ``faults``, lines about what was wrong; ``counts``.
    """

    def __init__(self) -> None:
        self._allowed: dict[str, set[str | None]] = {}
        self._lock = threading.Lock()
        self.faults: list[str] = []
        self.counts: Counter[str] = Counter()

    def begins(self, path: str, target: str | None) -> None:
        """Take note that a change is on its way: from now on, it may hold."""
        with self._lock:
            self._allowed.setdefault(path, {None}).add(target)

    def confirmed(self, path: str, target: str | None) -> None:
        """Take note that it holds."""
        with self._lock:
            self._allowed[path] = {target}
            self.counts["changes confirmed"] += 1

    def refused(self) -> None:
        """Take note that a change was not confirmed: it may hold, or not."""
        self.counts["changes not confirmed"] += 1

    def allowed(self, path: str) -> set[str | None]:
        """Return what may be the target of a path."""
        with self._lock:
            return set(self._allowed.get(path, {None}))

    def fault(self, text: str) -> None:
        """Take note that something was wrong."""
        with self._lock:
            self.faults.append(text)

    def paths(self) -> list[str]:
        """Return all paths that were ever changed."""
        with self._lock:
            return list(self._allowed)
