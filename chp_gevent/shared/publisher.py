"""The management process's side of the channel: the one writer of the routing table."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

import msgspec

from chp_gevent.routing.route_options import RouteOptions
from chp_gevent.shared import records as messages
from chp_gevent.shared.journal import Journal, JournalReader, JournalWriter
from chp_gevent.shared.segment import FRESH_SLOT, Segment

log = logging.getLogger("chp_gevent.channel")

COMPACT_AT_BYTES: Final = 8 * 1024 * 1024
# Activity slots that are left alone after their routes went. Each takes 48 bytes.
RESTING_SLOTS: Final = 16_384


class RouteLimitReached(RuntimeError):
    """There is no activity slot left for one more route."""


class StoredRoute(msgspec.Struct, frozen=True, gc=False):
    """A route as the management process keeps it.

    Attributes:
        path: the canonical path of the route.
        target: URL of the target.
        slot: index of the route's activity slot.
        data: the JSON object as the API shows it, encoded, without ``last_activity``.
        size: how many bytes the route takes in the journal.
        options: what ``data`` says about how requests are forwarded.
    """

    path: str
    target: str
    slot: int
    data: bytes
    size: int
    options: RouteOptions | None = None


class Publisher:
    """Publishes changes of the table to all workers, and survives its own death.

    When ``add`` or ``remove`` returns, every request that is routed after that, on any
    worker, is routed by a table with the change.

    Not for use by several threads; greenlets are fine, since nothing here switches.

    Args:
        segment: the shared segment.
        journal: the journal on that segment.
        clock: returns the Unix time in seconds.
        compact_at: how many bytes of the journal may be garbage, however small the table.
    """

    def __init__(
        self,
        segment: Segment,
        journal: Journal,
        clock: Callable[[], float] = time.time,
        compact_at: int = COMPACT_AT_BYTES,
        resting_slots: int = RESTING_SLOTS,
    ) -> None:
        self._words = segment.words
        self._activity = segment.activity
        self._journal = journal
        self._writer = JournalWriter(journal)
        self._clock = clock
        self._compact_at = compact_at
        self._resting_slots = resting_slots
        self._routes: dict[str, StoredRoute] = {}
        # Slots that rest, those that have rested longest first, and the paths they belonged to.
        self._freed: dict[int, str] = {}
        self._resting: dict[str, int] = {}
        self._live_bytes = 0
        # After a compaction that failed: the size of the journal at which to try again.
        self._retry_at = 0

    @property
    def routes(self) -> Mapping[str, StoredRoute]:
        """All routes by canonical path; a live, read-only view."""
        return MappingProxyType(self._routes)

    @property
    def generation(self) -> int:
        """The number of the last published change."""
        return self._writer.generation

    def recover(self) -> int:
        """Take the table over from a management process that died; call it at the start.

        Returns:
            The number of routes.
        """
        reader = JournalReader(self._journal)
        routes = self._routes = {}
        # A path that went before the last compaction is not known any more.
        freed = dict.fromkeys(range(self._words[FRESH_SLOT]), "")
        while (batch := reader.read()) is not None:
            for record in batch.records:
                change = messages.decode(record)
                old = routes.pop(change.path, None)
                if old is not None:
                    freed[old.slot] = change.path
                if isinstance(change, messages.Add):
                    size = messages.LENGTH_BYTES + len(record)
                    routes[change.path] = StoredRoute(
                        change.path, change.target, change.slot, change.data, size, change.options
                    )
                    freed.pop(change.slot, None)
        self._freed = freed
        self._resting = {path: slot for slot, path in freed.items() if path}
        self._live_bytes = sum(route.size for route in routes.values())
        self._writer.resume_at(reader.generation)
        return len(routes)

    def add(
        self, path: str, target: str, data: bytes, options: RouteOptions | None = None
    ) -> StoredRoute:
        """Publish a route; its activity is now.

        A route with the same path is replaced and keeps its activity slot. So does one whose
        path had a route before: connections of that time may be busy still, and what passes on
        them is activity on the path.

        Args:
            path: the canonical path (``routing.paths.route_path``).
            target: URL of the target.
            data: the JSON object as the API shows it, encoded, without ``last_activity``.
            options: what ``data`` says about how requests are forwarded.

        Raises:
            RouteLimitReached: there are as many routes as activity slots.
            UnicodeEncodeError: path or target can't be written as UTF-8.
            OSError: the journal can't grow (no memory). After any of these nothing has
                changed, except perhaps the activity.
        """
        old = self._routes.get(path)
        slot = self._take_slot(path) if old is None else old.slot
        try:
            record = messages.encode(messages.Add(path, target, slot, data, options))
            self._activity[slot] = self._clock()
            self._writer.append(record)
        except Exception:
            if old is None:
                self._freed = {slot: path, **self._freed}
                self._resting[path] = slot
            raise
        route = self._routes[path] = StoredRoute(path, target, slot, data, len(record), options)
        self._live_bytes += route.size - (0 if old is None else old.size)
        self._compact_if_due()
        return route

    def remove(self, path: str) -> bool:
        """Publish that a route is gone; return whether there was one.

        Raises:
            OSError: the journal can't grow (no memory); nothing has changed.
        """
        route = self._routes.get(path)
        if route is None:
            return False
        self._writer.append(messages.encode(messages.Remove(path)))
        del self._routes[path]
        self._freed[route.slot] = path
        self._resting[path] = route.slot
        self._live_bytes -= route.size
        self._compact_if_due()
        return True

    def get(self, path: str) -> StoredRoute | None:
        """Return the route with exactly this canonical path, if there is one."""
        return self._routes.get(path)

    def last_activity(self, path: str) -> float:
        """Return the Unix time in seconds of a route's last activity.

        Raises:
            KeyError: there is no such route.
        """
        return self._activity[self._routes[path].slot]

    def _take_slot(self, path: str) -> int:
        """Return the slot that ``path`` had, else one that no route ever had.

        Else the one that is free the longest: a worker may still write the activity of a
        removed route; the longer its slot rests, the less likely it hits a new route's. So a
        slot is reused only when many rest, or none is left.
        """
        slot = self._resting.pop(path, None)
        if slot is not None:
            del self._freed[slot]
            return slot
        fresh = self._words[FRESH_SLOT]
        if fresh < len(self._activity) and len(self._freed) < self._resting_slots:
            self._words[FRESH_SLOT] = fresh + 1
            return fresh
        if not self._freed:
            raise RouteLimitReached(f"all {fresh} activity slots are taken")
        slot = next(iter(self._freed))
        self._resting.pop(self._freed.pop(slot), None)
        return slot

    def _compact_if_due(self) -> None:
        """Compact the journal when its garbage outweighs both a minimum and the table.

        So a change costs a constant share of the next compaction, whatever the size of
        the table, and the active file is at most twice the table, or the table and 8 MiB.
        """
        size = self._writer.size
        garbage = size - self._live_bytes
        if garbage <= max(self._compact_at, self._live_bytes) or size < self._retry_at:
            return
        try:
            self._writer.compact(
                messages.encode(
                    messages.Add(route.path, route.target, route.slot, route.data, route.options)
                )
                for route in self._routes.values()
            )
            self._retry_at = 0
        except OSError as error:
            self._retry_at = size + self._compact_at
            log.warning("The journal of routes can't be compacted: %s", error)
