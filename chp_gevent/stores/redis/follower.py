"""The greenlet that follows the shared table: it reads, applies, and renews the lease.

All of that in one place, in order: a follower that hangs loses its lease, and nobody goes on
waiting for it. There is no heartbeat that could say otherwise.
"""

from __future__ import annotations

import random
import time
from typing import Any, Final

import gevent

from chp_gevent.runtime.tracebacks import log_traceback
from chp_gevent.stores.base import TableFull
from chp_gevent.stores.redis.answers import fields_of, number_of, path_of, reason_of
from chp_gevent.stores.redis.changes import Changes
from chp_gevent.stores.redis.engine import Engine
from chp_gevent.stores.redis.link import FAILURES
from chp_gevent.stores.redis.position import NOWHERE
from chp_gevent.stores.redis.recovery import Recovery
from chp_gevent.stores.redis.replica import Replica, boot_time
from chp_gevent.stores.redis.session import BLOCK, Session

# Seconds between two attempts to connect: at first, and at the most.
_FIRST_PAUSE: Final = 0.06
_LONGEST_PAUSE: Final = 0.4
# A session that has lasted so long has begun well.
_LASTING: Final = 5.0
# Seconds before another attempt of a server that can't hold the table.
_FULL_PAUSE: Final = 10.0
_ENTRIES_AT_ONCE: Final = 1000
# How many seconds clocks may differ before that is a warning.
_CLOCK_TOLERANCE: Final = 2.0


class _Gap(Exception):
    """The log does not go on where the table stands."""


class Follower:
    """Follows the shared table for as long as the process lives.

    Attributes:
        is_ending: whether the last session is still needed when the greenlet is killed.

    Args:
        replica: this server.
        changes: those that it makes.
        engine: where the shared table is.
    """

    def __init__(self, replica: Replica, changes: Changes, engine: Engine) -> None:
        self._replica = replica
        self._changes = changes
        self._engine = engine
        self._recovery = Recovery(replica, changes)
        self._away_since: float | None = None
        self._was_full = False
        self._last_ack = b"0-0"
        # Servers whose changes have been applied since the last beat.
        self._sources: set[str] = set()
        self._beaten_at = float("-inf")
        self._warned_of: set[str] = set()
        self.is_ending = False

    def run(self) -> None:
        """Connect, follow, and do so again whatever happens."""
        pause = _FIRST_PAUSE
        while True:
            began = time.monotonic()
            wait = 0.0
            try:
                self._follow_one()
            except TableFull as error:
                wait = _FULL_PAUSE
                self._note_full(error)
            except FAILURES as error:
                self._note_away(error)
            except Exception as error:
                log_traceback(self._replica.log, error)
                self._note_away(error)
            if time.monotonic() - began > _LASTING:
                pause = _FIRST_PAUSE
            gevent.sleep(wait or pause * random.uniform(0.5, 1.0))
            pause = min(pause * 2, _LONGEST_PAUSE)

    def _follow_one(self) -> None:
        """Follow by one session, until it fails."""
        session = None
        try:
            session = Session(
                self._engine,
                self._replica.unused_key,
                waits=self._replica.options.replicas_to_wait_for > 0,
            )
            self._replica.counts.sessions += 1
            self._replica.meet(session)
            self._warn_of_policy(session)
            self._follow(session)
        except TableFull:
            if session is not None:
                # Whoever can't go on is not waited for.
                self._replica.run(session.beat, "leave")
            raise
        finally:
            if not self.is_ending:
                self._replica.cut_off()
                if session is not None:
                    session.close()

    # -- what is said of it

    def _note_away(self, error: Exception) -> None:
        reason = reason_of(error).rstrip(".")
        replica = self._replica
        replica.state = f"Redis is away: {reason}"
        if self._away_since is None:
            self._away_since = time.monotonic()
            replica.log.error(
                "Redis at %s is away: %s; routing goes on with %d routes",
                replica.options.place,
                reason,
                len(replica.table),
            )

    def _note_full(self, error: TableFull) -> None:
        replica = self._replica
        replica.state = f"the table can't be held: {error}"
        replica.joined_at = None
        replica.lease_until = 0.0
        replica.publish_state()
        if not self._was_full:
            self._was_full = True
            replica.log.error(
                "This server can't hold the table that the others have, and goes on with an older "
                "one of %d routes: %s",
                len(replica.table),
                error,
            )

    def _note_current(self) -> None:
        replica = self._replica
        replica.state = "current"
        self._was_full = False
        if self._away_since is not None:
            replica.log.info(
                "Redis is back after %.1f s; current at change %d of epoch %d",
                time.monotonic() - self._away_since,
                replica.position.change,
                replica.position.epoch_number,
            )
            self._away_since = None

    def _warn_of_policy(self, session: Session) -> None:
        if session.policy.startswith("allkeys") and session.run_id not in self._warned_of:
            self._warned_of.add(session.run_id)
            self._replica.log.warning(
                "maxmemory-policy is %s: Redis may throw routes away when its memory is full; each "
                "time, this server provides them again",
                session.policy,
            )

    # -- following

    def _follow(self, session: Session) -> None:
        replica = self._replica
        self._last_ack = b"0-0"
        session.beat.call("DEL", replica.ack_key(replica.id))
        self._recovery.introduce(session)
        if boot_time() >= replica.lease_until:
            replica.joined_at = None  # others have gone on without this server
        status = self._beat(session)
        while True:
            while status != "OK":
                replica.cut_off()
                self._recovery.repair(session, status)
                status = self._beat(session)
            if replica.has_joined and replica.session is None:
                replica.session = session
                self._note_current()
                replica.tell_watchers()
            try:
                self._read(session)
            except _Gap:
                replica.cut_off()
                replica.counts.loads_gap += 1
                replica.joined_at = None
                self._recovery.load(session)
                self._beaten_at = float("-inf")
            # Nobody waits for this server's word on its own changes.
            if self._sources or boot_time() - self._beaten_at > replica.beat_interval:
                status = self._beat(session)

    def _beat(self, session: Session) -> str:
        """Renew the lease, and say what has been applied; return the engine's word."""
        replica = self._replica
        sent = boot_time()
        sources, self._sources = self._sources, set()
        answer = replica.run(
            session.beat, "beat", replica.lease_ms, keys=[replica.ack_key(each) for each in sources]
        )
        self._beaten_at = sent
        status: str = answer[0].decode()
        if status != "OK":
            return status
        replica.seen = int(answer[1])
        replica.clock = (boot_time(), int(answer[2]))
        replica.servers = answer[4]
        self._compare_clocks(int(answer[2]))
        if replica.joined_at is None or sent >= replica.lease_until:
            replica.joined_at = replica.seen
        replica.lease_until = sent + replica.current_for
        replica.publish_state()
        if replica.position.change == replica.seen:
            replica.activity_is_missing = answer[3] < len(replica.table)
        return status

    def _compare_clocks(self, engine_ms: int) -> None:
        offset = self._replica.clock_offset = engine_ms / 1000 - time.time()
        if abs(offset) > _CLOCK_TOLERANCE and "clock" not in self._warned_of:
            self._warned_of.add("clock")
            self._replica.log.warning(
                "The clock differs by %.1f s from that of Redis: so does the activity of routes",
                abs(offset),
            )

    def _read(self, session: Session) -> None:
        """Wait for changes and acks, and take them."""
        replica = self._replica
        answer = session.read.call(
            *("XREAD", "BLOCK", int(BLOCK * 1000), "COUNT", _ENTRIES_AT_ONCE, "STREAMS"),
            *(replica.log_key, replica.ack_key(replica.id)),
            *(f"{replica.position.change}-0", self._last_ack),
        )
        for key, entries in answer or ():
            if key.decode() == replica.log_key:
                self._take_changes(entries)
            else:
                self._last_ack = entries[-1][0]
                self._take_acks(entries)
        if answer is None and replica.position.change < replica.seen:
            raise _Gap

    def _take_acks(self, entries: list[Any]) -> None:
        for _, flat in entries:
            fields = fields_of(flat)
            self._changes.take_ack(fields[b"i"].decode(), int(fields[b"s"]))
        self._replica.tell_watchers()

    def _take_changes(self, entries: list[Any]) -> None:
        replica = self._replica
        for entry, flat in entries:
            fields, number = fields_of(flat), number_of(entry)
            source = fields[b"s"].decode()
            if number > replica.position.change:
                if number != replica.position.change + 1 or replica.position == NOWHERE:
                    raise _Gap
                replica.apply(
                    fields[b"o"] == b"a",
                    path_of(fields[b"p"]),
                    fields[b"d"],
                    number,
                    fields[b"t"].decode(),
                )
            if source != replica.id:
                self._sources.add(source)
