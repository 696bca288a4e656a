"""A storage backend of one's own, as docs/storage.md describes them: a JSON file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from chp_gevent.config.options import Options
from chp_gevent.stores import RouteData, Store


class FileStore(Store):
    """Keeps routes in the file that the environment variable CHP_ROUTES names."""

    def __init__(self, options: Options) -> None:
        assert options.auth_token is None, "a store has no use for it"
        self._file = Path(os.environ["CHP_ROUTES"])
        self._routes: dict[str, RouteData] = {}
        if self._file.exists():
            self._routes = json.loads(self._file.read_text())

    def _write(self) -> None:
        temporary = self._file.with_suffix(".new")
        temporary.write_text(json.dumps(self._routes))
        temporary.rename(self._file)

    def load(self) -> Iterable[tuple[str, RouteData]]:
        """See ``Store``."""
        return list(self._routes.items())

    def add(self, path: str, data: RouteData) -> None:
        """See ``Store``."""
        self._routes[path] = data
        self._write()

    def remove(self, path: str) -> None:
        """See ``Store``."""
        self._routes.pop(path, None)
        self._write()

    def save_activity(self, activity: Mapping[str, str]) -> None:
        """See ``Store``."""
        for path, when in activity.items():
            if path in self._routes:
                self._routes[path]["last_activity"] = when
        self._write()
