"""The table of this server, as a store changes it that several servers share."""

from __future__ import annotations

import logging

import msgspec

from chp_gevent.management.timestamps import slot_value
from chp_gevent.routing.paths import is_utf8
from chp_gevent.routing.route_options import route_options
from chp_gevent.routing.target_url import check_target_url
from chp_gevent.shared.publisher import Publisher, RouteLimitReached
from chp_gevent.shared.segment import FRESH_SLOT, WORD, Segment
from chp_gevent.stores import TableFull

# Slots that are compared at once with what they were.
_SLOTS_AT_ONCE = 512

_decode = msgspec.json.Decoder(dict[str, object]).decode


class PublishedTable:
    """See ``stores.SharedTable``.

    Args:
        publisher: publishes changes to the workers.
        segment: where the activity is.
        log: the server's logger.
    """

    def __init__(self, publisher: Publisher, segment: Segment, log: logging.Logger) -> None:
        self._publisher = publisher
        self._words = segment.words
        self._activity = segment.activity
        self._log = log
        self._paths = {route.slot: path for path, route in publisher.routes.items()}
        # The activity that has been told; of slots beyond it, none.
        self._told = bytearray()

    def __len__(self) -> int:
        return len(self._publisher.routes)

    def get(self, path: str) -> bytes | None:
        """See ``SharedTable``."""
        route = self._publisher.get(path)
        return None if route is None else route.data

    def items(self) -> list[tuple[str, bytes]]:
        """See ``SharedTable``."""
        return [(path, route.data) for path, route in self._publisher.routes.items()]

    def put(self, path: str, data: bytes, activity: int | None = None) -> None:
        """See ``SharedTable``."""
        try:
            found = _decode(data)
            target = found.get("target")
            if not isinstance(target, str):
                raise ValueError("it has no target")
            if not path.startswith("/") or not is_utf8(path):
                raise ValueError("its path can't be one")
            check_target_url(target)
            options = route_options(found)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            shown = path.encode(errors="backslashreplace").decode()
            self._log.error("Shared route %s is left out: %s", shown, error)
            return
        try:
            route = self._publisher.add(path, target, data, options)
        except (RouteLimitReached, OSError) as error:
            raise TableFull(str(error)) from None
        if activity is not None:
            self._activity[route.slot] = slot_value(activity)
        self._paths[route.slot] = path
        self._note_told(route.slot)

    def remove(self, path: str) -> None:
        """See ``SharedTable``."""
        try:
            self._publisher.remove(path)
        except OSError as error:
            raise TableFull(str(error)) from None

    def last_activity(self, path: str) -> int:
        """See ``SharedTable``."""
        route = self._publisher.get(path)
        return 0 if route is None else int(self._activity[route.slot] * 1000)

    def used(self) -> list[tuple[str, int]]:
        """See ``SharedTable``."""
        now = bytes(self._activity[: self._words[FRESH_SLOT]])
        told, self._told = self._told, bytearray(now)
        step = _SLOTS_AT_ONCE * WORD
        used = []
        for start in range(0, len(now), step):
            if now[start : start + step] == told[start : start + step]:
                continue
            for at in range(start, min(start + step, len(now)), WORD):
                if now[at : at + WORD] != told[at : at + WORD]:
                    slot = at // WORD
                    path = self._paths.get(slot)
                    route = None if path is None else self._publisher.get(path)
                    if path is not None and route is not None and route.slot == slot:
                        used.append((path, int(self._activity[slot] * 1000)))
        return used

    def _note_told(self, slot: int) -> None:
        """Take it that the engine knows of a slot: the change itself has told it."""
        end = (slot + 1) * WORD
        if len(self._told) < end:
            self._told.extend(bytes(end - len(self._told)))
        self._told[slot * WORD : end] = bytes(self._activity[slot : slot + 1])
