"""The routing table as the management process changes and shows it.

Every change goes: validate, store, publish; the caller then answers.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec

from chp_gevent.management.path_locks import PathLocks
from chp_gevent.management.timestamps import IsoFormatter, parse_iso8601, slot_value
from chp_gevent.routing.paths import host_route_path, is_utf8, route_path
from chp_gevent.routing.route_options import RouteOptions, route_options
from chp_gevent.routing.target_url import check_target_url
from chp_gevent.shared.publisher import Publisher, RouteLimitReached, StoredRoute
from chp_gevent.stores import Figure, RouteData, SharedStore, Store, StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder().decode


class InvalidRoute(ValueError):
    """The data of a route can't be used; the message is for whoever sent it."""


class StoreWriteError(RuntimeError):
    """The storage backend did not take a change, and nothing has changed."""


class Routes:
    """Adds, removes and shows routes.

    Args:
        publisher: publishes changes to the workers.
        activity: the activity slots of the segment.
        log: the server's logger.
        host_routing: whether the first segment of a path is a host (``--host-routing``).
        store: the storage backend of this server alone, if any.
        shared: the store that several servers share, if any.
    """

    def __init__(
        self,
        publisher: Publisher,
        activity: memoryview[float],
        log: logging.Logger,
        *,
        host_routing: bool = False,
        store: Store | None = None,
        shared: SharedStore | None = None,
    ) -> None:
        self._publisher = publisher
        self._table = publisher.routes
        self._activity = activity
        self._log = log
        self._host_routing = host_routing
        self._canonical = host_route_path if host_routing else route_path
        self._store = store
        self._shared = shared
        # Changes of a path in store and table must come in the same order. Without a store
        # nothing here ever yields to another greenlet.
        self._changing = PathLocks(each=store is not None and store.is_concurrent)
        self._iso = IsoFormatter()
        self._saved_activity: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._table)

    def __contains__(self, path: str) -> bool:
        return path in self._table

    # -- changes

    def add(self, path: str, data: RouteData) -> None:
        """Add a route, or replace the one with the same path; its last activity is now.

        Args:
            path: the decoded path, in any form.
            data: what was posted; ``last_activity`` is dropped from it, and ``host`` added
                with host routing, as in CHP.

        Raises:
            InvalidRoute: there is no ``target`` that could be one, or an option of the route can't
                be used.
            RouteLimitReached: there are as many routes as the server can hold.
            StoreWriteError: the storage backend did not take it.
            OSError: there is no memory left for it.
        """
        path = self._canonical(path)
        target = data.get("target")
        if not isinstance(target, str):
            raise InvalidRoute("Must specify 'target' as string")
        try:
            check_target_url(target)
        except ValueError as error:
            raise InvalidRoute(f"Invalid target: it {error}") from None
        options = _options(data)
        data.pop("last_activity", None)
        if self._host_routing and path != "/":
            data["host"] = path.split("/", 2)[1]
        self._log.info("Adding route %s -> %s", path, target)
        if self._shared is not None:
            with _store_failures():
                self._shared.add(path, encode(data))
        elif self._store is None:
            self._publisher.add(path, target, encode(data), options)
        else:
            self._store_and_publish(self._store, path, target, data, options)
        self._log.info("Route added %s -> %s", path, target)

    def remove(self, path: str) -> bool:
        """Remove a route; return whether there was one.

        Raises:
            StoreWriteError: the storage backend did not take it.
            OSError: there is no memory left to publish it.
        """
        path = self._canonical(path)
        if self._shared is not None:
            self._log.info("Removing route %s", path)
            with _store_failures():
                return self._shared.remove(path)
        if path not in self._table:
            return False
        self._log.info("Removing route %s", path)
        if self._store is None:
            return self._publisher.remove(path)
        with self._changing.held(path):
            with _store_failures():
                self._store.remove(path)
            return self._publisher.remove(path)

    def _store_and_publish(
        self,
        store: Store,
        path: str,
        target: str,
        data: RouteData,
        options: RouteOptions | None,
    ) -> None:
        with self._changing.held(path):
            before = self._publisher.get(path)
            with _store_failures():
                store.add(path, dict(data))
            try:
                self._publisher.add(path, target, encode(data), options)
            except (RouteLimitReached, OSError):
                with _store_failures():
                    if before is None:
                        store.remove(path)
                    else:
                        store.add(path, decode(before.data))
                raise

    # -- views

    def one_as_json(self, path: str) -> bytes | None:
        """Return a route as a JSON object, or None if there is none with this path."""
        route = self._publisher.get(self._canonical(path))
        if route is None:
            return None
        ms = max(self._activity_ms(route), self._others_activity().get(route.path, 0))
        return b'%b,"last_activity":"%b"}' % (route.data[:-1], self._iso(ms))

    def all_as_json(self, inactive_since: int | None = None) -> bytes:
        """Return the table as a JSON object of routes by path.

        Args:
            inactive_since: Unix time in milliseconds; only routes whose last activity was
                before it.
        """
        activity, iso = self._activity, self._iso
        others = self._others_activity()
        # The data are JSON already: joining pieces instead of encoding objects lets the table
        # of 100,000 routes take 0.1 s.
        pieces = []
        for path, route in self._table.items():
            ms = int(activity[route.slot] * 1000)
            if others:
                ms = max(ms, others.get(path, 0))
            if inactive_since is None or ms < inactive_since:
                pieces.append(
                    b'%b:%b,"last_activity":"%b"}' % (encode(path), route.data[:-1], iso(ms))
                )
        return b"{%b}" % b",".join(pieces)

    def store_figures(self) -> Iterable[Figure]:
        """Return what metrics say of a table that servers share."""
        return () if self._shared is None else self._shared.figures()

    def seconds_behind(self) -> float:
        """Return for how many seconds others may have changed the table; 0 if it is current."""
        return 0.0 if self._shared is None else self._shared.seconds_behind()

    def _others_activity(self) -> Mapping[str, int]:
        return {} if self._shared is None else self._shared.others_activity()

    def _activity_ms(self, route: StoredRoute) -> int:
        return int(self._activity[route.slot] * 1000)

    # -- the storage backend

    def load(self) -> None:
        """Make the table equal to what the storage backend has.

        Routes that are the same already keep their activity; a route that can't be used is
        left out, with a line in the log. A store that has lost all it had is given the table.

        Raises:
            StoreWriteError: the storage backend can't be read; the table is unchanged.
        """
        if self._store is None:
            return
        with _store_failures():
            stored = [(self._canonical(path), dict(data)) for path, data in self._store.load()]
        if not stored and self._table and type(self._store).begin_with is not Store.begin_with:
            self._store_all(self._store)
            return
        known = set()
        for path, data in stored:
            try:
                self._publish_loaded(path, data)
                known.add(path)
            except (InvalidRoute, RouteLimitReached) as error:
                shown = path.encode(errors="backslashreplace").decode()
                self._log.error("Stored route %s is left out: %s", shown, error)
        for path in [path for path in self._table if path not in known]:
            self._publisher.remove(path)

    def _store_all(self, store: Store) -> None:
        """Give a store that has lost everything (its file was removed, or damaged) the table."""
        routes = {path: decode(route.data) for path, route in self._table.items()}
        with _store_failures():
            store.begin_with(routes)
        self._log.warning(
            "The storage backend had no routes: it has the server's %d again", len(routes)
        )

    def _publish_loaded(self, path: str, data: RouteData) -> None:
        last_activity = parse_iso8601(str(data.pop("last_activity", "")))
        target = data.get("target")
        if not isinstance(target, str):
            raise InvalidRoute("it has no target")
        if not is_utf8(path):
            raise InvalidRoute("its path is not UTF-8")
        options = _options(data)
        try:
            check_target_url(target)
            encoded = encode(data)
        except (msgspec.MsgspecError, ValueError, TypeError) as error:
            raise InvalidRoute(str(error)) from None
        present = self._publisher.get(path)
        if present is not None and present.data == encoded:
            return
        route = self._publisher.add(path, target, encoded, options)
        if last_activity is not None and present is None:
            self._activity[route.slot] = slot_value(last_activity)

    @property
    def saves_activity(self) -> bool:
        """Whether there is a storage backend that wants to know about activity."""
        return (
            self._store is not None and type(self._store).save_activity is not Store.save_activity
        )

    def save_activity(self) -> None:
        """Tell the storage backend which routes have been used since the last call.

        Raises:
            StoreWriteError: it did not take it; it gets the same again with the next call.
        """
        if self._store is None or not self.saves_activity:
            return
        with self._changing.held(None):
            now = {path: self._activity_ms(route) for path, route in self._table.items()}
            saved = self._saved_activity
            changed = {path: ms for path, ms in now.items() if saved.get(path) != ms}
            if changed:
                with _store_failures():
                    self._store.save_activity(
                        {path: self._iso(ms).decode() for path, ms in changed.items()}
                    )
            self._saved_activity = now

    def add_default(self, target: str) -> None:
        """Add a route for everything else; among servers that share their routes, unless one has.

        Raises what :meth:`add` does.
        """
        if self._shared is None:
            self.add("/", {"target": target})
            return
        with _store_failures():
            self._shared.add_if_absent("/", encode({"target": target}))

    def close_store(self, *, for_good: bool) -> None:
        """Let go of the storage backend; ``for_good``: there is no other process that goes on.

        Raises StoreWriteError.
        """
        if self._shared is not None:
            self._shared.stop(leave=for_good)
        if self._store is not None:
            with _store_failures():
                self._store.close()


def _options(data: RouteData) -> RouteOptions | None:
    """Return the options in what was posted. Raises ``InvalidRoute``."""
    try:
        return route_options(data)
    except ValueError as error:
        raise InvalidRoute(str(error)) from None


@contextmanager
def _store_failures() -> Iterator[None]:
    """Turn whatever a storage backend raises into StoreWriteError."""
    try:
        yield
    except StoreUnavailable as error:
        raise StoreWriteError(f"The shared routes can't be changed: {error}") from None
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise StoreWriteError(f"The storage backend failed: {reason}") from error
