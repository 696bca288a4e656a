"""The workers' side of the channel: keeps a routing table as the publisher's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from chp_gevent.routing.table import Route, RouteTable
from chp_gevent.shared import records as messages
from chp_gevent.shared.journal import Batch, Journal, JournalDamaged, JournalReader
from chp_gevent.shared.segment import GENERATION, Segment

# How often to look for a change that is announced but not in the journal. One look is
# enough on x86-64; other processors may show the announcement a few nanoseconds early.
_LOOKS: Final = 1000


class Subscriber:
    """Follows the published changes; make it after the fork.

    The worker asks before it routes a request, which costs one look into shared memory::

        if words[GENERATION] != subscriber.generation:
            subscriber.catch_up()

    Args:
        segment: the shared segment.
        journal: the journal on that segment.
        table: the table to change, empty.
        on_removed: called with each route that is no longer in the table, because it was
            removed or because one with another target took its place. By then the table
            has all changes; other routes may have the same target.

    Attributes:
        generation: the number of the last change that is in the table.
    """

    def __init__(
        self,
        segment: Segment,
        journal: Journal,
        table: RouteTable,
        on_removed: Callable[[Route], None] | None = None,
    ) -> None:
        self.generation = 0
        self._words = segment.words
        self._reader = JournalReader(journal)
        self._table = table
        self._on_removed = on_removed
        # While the whole table is read again: routes that it has not mentioned yet.
        self._unconfirmed: set[str] = set()

    def catch_up(self) -> None:
        """Bring the table to the last published change; doesn't wait for anything.

        Raises:
            JournalDamaged: the published change is not in the journal.
        """
        removed: list[Route] = []
        looks = 0
        while self._reader.generation < self._words[GENERATION]:
            if looks == _LOOKS:
                raise JournalDamaged(f"change {self._words[GENERATION]} is not in the journal")
            looks += 1
            while (batch := self._reader.read()) is not None:
                self._apply(batch, removed)
        for prefix in self._unconfirmed:
            self._remove(prefix, removed)
        self._unconfirmed.clear()
        self.generation = self._reader.generation
        if self._on_removed is not None:
            for route in removed:
                self._on_removed(route)

    def _apply(self, batch: Batch, removed: list[Route]) -> None:
        if batch.starts_over:
            self._unconfirmed = {route.prefix for route in self._table}
        decode = messages.decode_with_raw_data
        table = self._table
        unconfirmed = self._unconfirmed
        # Targets that several routes share are kept once.
        targets: dict[str, str] = {}
        for record in batch.records:
            change = decode(record)
            if isinstance(change, messages.Remove):
                self._remove(change.path, removed)
                continue
            target = targets.setdefault(change.target, change.target)
            replaced = table.add(Route(change.path, target, change.slot, change.options))
            if unconfirmed:
                unconfirmed.discard(change.path)
            if replaced is not None and replaced.target != target:
                removed.append(replaced)

    def _remove(self, prefix: str, removed: list[Route]) -> None:
        route = self._table.remove(prefix)
        if route is not None:
            removed.append(route)
