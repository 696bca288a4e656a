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
        on_unused: called with each target whose last route has gone, because it was removed or
            because one with another target took its place. By then the table has all changes:
            a route to the same target may have come again, of another server at its port.

    Attributes:
        generation: the number of the last change that is in the table.
    """

    def __init__(
        self,
        segment: Segment,
        journal: Journal,
        table: RouteTable,
        on_unused: Callable[[str], None] | None = None,
    ) -> None:
        self.generation = 0
        self._words = segment.words
        self._reader = JournalReader(journal)
        self._table = table
        self._on_unused = on_unused
        # While the whole table is read again: routes that it has not mentioned yet.
        self._unconfirmed: set[str] = set()

    def catch_up(self) -> None:
        """Bring the table to the last published change; doesn't wait for anything.

        Raises:
            JournalDamaged: the published change is not in the journal.
        """
        unused: list[str] = []
        looks = 0
        while self._reader.generation < self._words[GENERATION]:
            if looks == _LOOKS:
                raise JournalDamaged(f"change {self._words[GENERATION]} is not in the journal")
            looks += 1
            while (batch := self._reader.read()) is not None:
                self._apply(batch, unused)
        for prefix in self._unconfirmed:
            self._remove(prefix, unused)
        self._unconfirmed.clear()
        self.generation = self._reader.generation
        if self._on_unused is not None:
            for target in unused:
                self._on_unused(target)

    def _apply(self, batch: Batch, unused: list[str]) -> None:
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
                self._remove(change.path, unused)
                continue
            target = targets.setdefault(change.target, change.target)
            replaced = table.add(Route(change.path, target, change.slot, change.options))
            if unconfirmed:
                unconfirmed.discard(change.path)
            if replaced is not None:
                self._note_if_unused(replaced, unused)

    def _remove(self, prefix: str, unused: list[str]) -> None:
        route = self._table.remove(prefix)
        if route is not None:
            self._note_if_unused(route, unused)

    def _note_if_unused(self, gone: Route, unused: list[str]) -> None:
        if not self._table.leads_to(gone.target):
            unused.append(gone.target)
