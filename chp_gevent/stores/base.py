"""The interface of ``--storage-backend``.

Without a backend the routes live in the journal that the arbiter keeps alive, and a full
restart begins with an empty table.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Protocol

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


class StoreUnavailable(Exception):
    """A change can't be confirmed; the message says why, for the log."""


class TableFull(Exception):
    """This server can't hold what the others do: no slot, or no memory, for another route."""


class SharedTable(Protocol):
    """The table of this server, as a store changes it that servers share.

    Paths are canonical; data are JSON objects as the API shows them, encoded, without
    ``last_activity``. Times are Unix times in milliseconds.
    """

    def __len__(self) -> int:
        """Return the number of routes."""
        ...

    def get(self, path: str) -> bytes | None:
        """Return the data of a route."""
        ...

    def items(self) -> list[tuple[str, bytes]]:
        """Return all routes."""
        ...

    def put(self, path: str, data: bytes, activity: int | None = None) -> None:
        """Publish a route, to all workers; its last activity is now, or ``activity``.

        Raises ``TableFull``. Data that no route can have are left out, with a line in the log.
        """
        ...

    def remove(self, path: str) -> None:
        """Publish that there is no such route. Raises ``TableFull``."""
        ...

    def last_activity(self, path: str) -> int:
        """Return when a route was used last on this server; 0 if there is none."""
        ...

    def used(self) -> list[tuple[str, int]]:
        """Return the routes that were used since this was called last, and when."""
        ...


class Figure(NamedTuple):
    """A value for metrics: a gauge, or a counter since the management process began."""

    name: str
    text: str
    value: float
    is_counter: bool = False
    label: tuple[str, str] | None = None


class SharedStore(ABC):
    """Keeps one table for several servers, each of which changes it and is told of changes.

    A change is published by the store, on all servers in the same order, whoever has made it; when
    the call returns, it holds for every request that any current server accepts.
    """

    @abstractmethod
    def start(self, table: SharedTable) -> None:
        """Begin to follow the shared table, and to change this one accordingly."""

    @abstractmethod
    def wait_until_loaded(self, timeout: float) -> None:
        """Wait until the table is, or once was, as the shared one.

        Raises ``StoreUnavailable`` after so many seconds.
        """

    @abstractmethod
    def add(self, path: str, data: bytes) -> None:
        """Add a route, or replace the one with the same path. Raises ``StoreUnavailable``."""

    @abstractmethod
    def add_if_absent(self, path: str, data: bytes) -> None:
        """Add a route if there is none with this path, without waiting for other servers.

        Raises ``StoreUnavailable``.
        """

    @abstractmethod
    def remove(self, path: str) -> bool:
        """Remove a route; return whether there was one. Raises ``StoreUnavailable``."""

    @abstractmethod
    def others_activity(self) -> Mapping[str, int]:
        """Return when routes were used last, on any server, as far as that can be known now."""

    @abstractmethod
    def seconds_behind(self) -> float:
        """Return for how many seconds others may have changed the table; 0 if it is current."""

    @abstractmethod
    def figures(self) -> Iterable[Figure]:
        """Return what metrics say of it."""

    @abstractmethod
    def stop(self, *, leave: bool) -> None:
        """End; ``leave``: nobody is to wait for this server, which does not come back."""
