"""The interface of ``--storage-backend``.

Without a backend the routes live in the journal that the arbiter keeps alive, and a full
restart begins with an empty table.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any

from chp_gevent.config.options import Options

RouteData = dict[str, Any]
"""A route as ``GET /api/routes`` shows it: ``target``, the other fields that were posted, and
perhaps ``last_activity`` (ISO 8601)."""


class StoreSetupError(Exception):
    """A storage backend can't be used; the message is one line that says why."""


class Store(ABC):
    """Keeps routes where they outlive the server. One object per management process.

    Every change is stored before it is published and answered: what the API has confirmed is in
    the store. Methods run in greenlets; calls that change something come one at a time. They
    may block in gevent's way (sockets, locks, ``time.sleep``), not otherwise for long: the
    whole API waits then. Proxying never does.

    Any exception makes the API call that caused it a 503, with one line in the log, and nothing
    changes.

    Args:
        options: the options that the server was started with, without its secrets.

    Attributes:
        is_concurrent: whether calls for different paths may come at the same time.
    """

    is_concurrent = False

    @abstractmethod
    def __init__(self, options: Options) -> None:
        """Connect to the storage; an exception here stops the server."""

    @abstractmethod
    def load(self) -> Iterable[tuple[str, RouteData]]:
        """Return path and data of every route, at each start of the management process.

        The table is made equal to what is returned. An exception stops the server when it
        starts; after a crash of the management process the server keeps the table it has.
        """

    @abstractmethod
    def add(self, path: str, data: RouteData) -> None:
        """Store a route, or replace the one with the same path.

        Args:
            path: decoded, with a leading slash and without trailing ones; ``/`` is the root.
            data: JSON-serialisable, without ``last_activity``: it has just been used.
        """

    @abstractmethod
    def remove(self, path: str) -> None:
        """Forget a route; one that is not there is no error."""

    def begin_with(self, routes: Mapping[str, RouteData]) -> None:  # noqa: B027
        """Store all these routes, or none; optional.

        Called when the management process comes back, and finds routes in the server's memory and
        none at all in the store: that has lost what it had. Without this method, the table is made
        as empty as the store.
        """

    def save_activity(self, activity: Mapping[str, str]) -> None:  # noqa: B027
        """Store the last activity of routes, ISO 8601 by path; optional.

        Called every few seconds with the routes whose activity has changed. An exception is
        logged once; what was to be saved is offered again with the next call.
        """

    def close(self) -> None:  # noqa: B027
        """Let go of the storage when the server stops; optional."""
