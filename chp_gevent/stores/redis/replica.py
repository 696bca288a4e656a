"""One server among those that share a table: what it knows, and what is known of it."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from gevent.event import Event

from chp_gevent.config.storage_options import SharedStoreOptions
from chp_gevent.shared.segment import CURRENT_UNTIL, SERVER_ID, TABLE_LOADED
from chp_gevent.stores.base import SharedTable
from chp_gevent.stores.redis.link import Link
from chp_gevent.stores.redis.position import NOWHERE, Position, save, saved
from chp_gevent.stores.redis.scripts import DIGESTS, FORMAT
from chp_gevent.stores.redis.session import Session

CURRENT_SHARE: Final = 0.6
"""The part of a lease after which a server no longer calls itself current: before, nobody goes on
without it."""

BEAT_SHARE: Final = 0.2
"""The part of a lease after which it is renewed at the latest."""

_LOOK_INTERVAL: Final = 0.1


def boot_time() -> float:
    """Return seconds of a clock that goes on while the machine is suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def unix_ms() -> int:
    """Return the Unix time in milliseconds."""
    return int(time.time() * 1000)


@dataclass
class Counts:
    """What happened since the management process began, for metrics."""

    confirmed: int = 0
    absent: int = 0
    failed: int = 0
    unknown: int = 0
    confirm_seconds: float = 0.0
    waited_for_lease: int = 0
    loads_start: int = 0
    loads_gap: int = 0
    loads_epoch: int = 0
    elections: int = 0
    uploads: int = 0
    sessions: int = 0
    activity_pushed: int = 0


class Replica:
    """What the greenlets of the store share.

    Args:
        options: the store's.
        words: the header of the segment.
        table: this server's.
        log: the server's logger.

    Attributes:
        id: of this server; that of its next management process too.
        position: the last change that the table has.
        session: the connections that changes may use; None while there are none.
        cut_off_at: since when there are none, monotonic seconds.
        state: what it is doing, for readiness and errors.
        lease_until: until when it is current, if it has all (``boot_time``).
        joined_at: the change that it must have to be current; None: not known yet.
        seen: the number of the last change that the engine has told of.
        servers: how many have a lease.
        activity_is_missing: whether the engine has lost the activity of routes.
        clock_offset: by how many seconds the engine's clock is ahead of ours.
        counts: for metrics.
    """

    def __init__(
        self,
        options: SharedStoreOptions,
        words: memoryview[int],
        table: SharedTable,
        log: logging.Logger,
    ) -> None:
        self.options = options
        self.table = table
        self.log = log
        self._words = words
        if not words[SERVER_ID]:
            words[SERVER_ID] = int.from_bytes(os.urandom(4), "big") or 1
        self.id = f"{options.name or socket.gethostname()}-{words[SERVER_ID]:08x}"
        key = f"{{{options.prefix}}}:"
        self.keys = [
            key + name for name in ("meta", "routes", "log", "activity", "leases", "acks", "adopt")
        ]
        self.meta_key, self.routes_key, self.log_key, self.activity_key = self.keys[:4]
        self.servers_key = key + "replicas"
        self.unused_key = key + "unused"
        self._seed_key = f"{key}seed"
        self._ack_key = f"{key}ack:"
        self.position = saved(words)
        # The process before this one had a lease, perhaps: nobody has gone on without this server.
        until = words[CURRENT_UNTIL] / 1000
        goes_on = self.position != NOWHERE and until > boot_time()
        self.session: Session | None = None
        self.cut_off_at = time.monotonic()
        self.state = "starting"
        self.lease_until = until if goes_on else 0.0
        self.joined_at = self.position.change if goes_on else None
        self.seen = 0
        self.servers = 0
        self.activity_is_missing = False
        self.clock_offset = 0.0
        self.counts = Counts()
        # When the engine said what time it was, and what (ms): boot_time, Unix ms.
        self.clock = (0.0, 0)
        self._run_id = ""
        self._watchers: set[Event] = set()

    # -- what it is

    @property
    def is_loaded(self) -> bool:
        """Whether the table is one that the servers have had."""
        return self.position != NOWHERE

    @property
    def has_joined(self) -> bool:
        """Whether the table has all that was confirmed before this server had its lease."""
        return (
            self.is_loaded and self.joined_at is not None and self.position.change >= self.joined_at
        )

    @property
    def is_current(self) -> bool:
        """Whether the table has everything that any server may have confirmed."""
        return self.has_joined and boot_time() < self.lease_until

    def publish_state(self) -> None:
        """Tell the workers whether this server is current, and until when."""
        if self.is_loaded:
            self._words[TABLE_LOADED] = 1
        until = int(self.lease_until * 1000) if self.has_joined else 0
        if self._words[CURRENT_UNTIL] != until:
            self._words[CURRENT_UNTIL] = until

    # -- what happens to it

    def move_to(self, position: Position) -> None:
        """Take note of which change the table has now."""
        self.position = position
        save(self._words, position)
        self.publish_state()
        self.tell_watchers()

    def apply(self, adds: bool, path: str, data: bytes, change: int, tag: str) -> None:
        """Make the next change. Raises ``TableFull``."""
        if adds:
            self.table.put(path, data)
        else:
            self.table.remove(path)
        self.move_to(self.position.after(change, tag))

    def wait_for(self, holds: Callable[[], bool], deadline: Callable[[], float]) -> bool:
        """Wait until something holds; return False if it does not by a monotonic time.

        Looks whenever something has gone on, and now and then: a lease is renewed without a word.
        """
        event = Event()
        self._watchers.add(event)
        try:
            while not holds():
                left = deadline() - time.monotonic()
                if left <= 0:
                    return False
                event.clear()
                event.wait(min(left, _LOOK_INTERVAL))
        finally:
            self._watchers.discard(event)
        return True

    def tell_watchers(self) -> None:
        """Wake whoever waits for something to go on."""
        for event in self._watchers:
            event.set()

    # -- what it says to the engine

    def cut_off(self) -> None:
        """Have no change made by this server, until it is connected again."""
        if self.session is not None:
            self.session = None
            self.cut_off_at = time.monotonic()

    def meet(self, session: Session) -> None:
        """Take note of the process that is spoken to."""
        self._run_id = session.run_id

    def command(self, script: str, *arguments: Any, keys: Sequence[str] = ()) -> tuple[Any, ...]:
        """Return the command that runs a script with what this server believes."""
        position = self.position
        return (
            "EVALSHA",
            DIGESTS[script],
            len(self.keys) + len(keys),
            *self.keys,
            *keys,
            FORMAT,
            self._run_id,
            position.epoch,
            position.change,
            position.tag,
            self.id,
            *arguments,
        )

    def run(self, link: Link, script: str, *arguments: Any, keys: Sequence[str] = ()) -> list[Any]:
        """Run a script. Raises what is in ``link.FAILURES``."""
        answer: list[Any] = link.call(*self.command(script, *arguments, keys=keys))
        return answer

    def ack_key(self, server: str) -> str:
        """Return the key of the stream that tells a server who has applied its changes."""
        return self._ack_key + server

    def seed_keys(self, token: str) -> list[str]:
        """Return the keys under which a table is uploaded: of its routes, and its activity."""
        return [f"{self._seed_key}:{self.id}:{token}", f"{self._seed_key}act:{self.id}:{token}"]

    @property
    def lease_ms(self) -> int:
        """For how long others wait for this server."""
        return int(self.options.lease * 1000)

    @property
    def current_for(self) -> float:
        """For how many seconds it is current after it has spoken with the engine."""
        return self.options.lease * CURRENT_SHARE

    @property
    def beat_interval(self) -> float:
        """Seconds between two renewals of the lease."""
        return self.options.lease * BEAT_SHARE
