"""How a server gets from the state that it has to the one that all have, or gives them its own.

There is one procedure for all losses of the engine's: each server says what it has, and whoever has
most provides it, unless the engine's own state is as good. Described in docs/architecture.md.
"""

from __future__ import annotations

import json
import os
import time
from typing import Any, Final

import gevent
from redis.exceptions import ConnectionError as RedisConnectionError

from chp_gevent import __version__
from chp_gevent.stores.redis.answers import (
    activity_since,
    fields_of,
    number_of,
    pairs_of,
    path_of,
)
from chp_gevent.stores.redis.changes import Changes
from chp_gevent.stores.redis.position import NOWHERE, Position, random_tag
from chp_gevent.stores.redis.replica import Replica, unix_ms
from chp_gevent.stores.redis.scripts import FORMAT
from chp_gevent.stores.redis.session import Session

# Seconds for which an election waits for servers without a lease, and how long the one that is
# chosen has to provide its table.
_WINDOW: Final = 1.5
_SEED_TIMEOUT: Final = 15.0
# An upload that was given up is forgotten after so many ms.
_SEED_LIFETIME: Final = 60_000
_ROUTES_AT_ONCE: Final = 500
_CHANGES_AT_ONCE: Final = 1000


class Recovery:
    """Repairs what the engine or this server has lost.

    Args:
        replica: this server.
        changes: those that it makes.
    """

    def __init__(self, replica: Replica, changes: Changes) -> None:
        self._replica = replica
        self._changes = changes

    def repair(self, session: Session, status: str) -> None:
        """Do what the engine's answer asks for. Raises what is in ``link.FAILURES``."""
        replica = self._replica
        replica.state = status.lower()
        replica.joined_at = None
        replica.publish_state()
        if status == "EPOCH":
            self._join_epoch(session)
            return
        if status == "FORMAT":
            raise RedisConnectionError(
                "the data are of a later version than this one (--storage-prefix has it apart)"
            )
        if replica.is_loaded:
            replica.log.warning(
                "Redis does not have what this server knows (%s): offering %d routes, change %d",
                status,
                len(replica.table),
                replica.position.change,
            )
        replica.counts.elections += 1
        while (verdict := self._offer(session)) == "WAIT":
            pass
        if verdict == "SEED":
            self._provide(session)
        elif verdict != "DONE":
            raise RedisConnectionError(f"the election ended with {verdict}")

    # -- elections

    def _offer(self, session: Session) -> str:
        """Say what this server has; return what is to be done. Waits if it is to."""
        replica = self._replica
        answer = replica.run(
            session.beat,
            "adopt",
            replica.position.epoch_number,
            len(replica.table) if replica.is_loaded else 0,
            int(_WINDOW * 1000),
            random_tag(),
            int(_SEED_TIMEOUT * 1000),
            int(replica.current_for * 1000),
        )
        verdict: str = answer[0].decode()
        if verdict == "WAIT":
            gevent.sleep(int(answer[1]) / 1000 + 0.005)
        return verdict

    def _provide(self, session: Session) -> None:
        """Upload the table, and have it taken for the state of all."""
        replica = self._replica
        began = time.monotonic()
        # Other names each time: an earlier attempt may still have something on its way.
        keys = replica.seed_keys(os.urandom(4).hex())
        routes = replica.table.items() if replica.is_loaded else []
        for start in range(0, len(routes), _ROUTES_AT_ONCE):
            self._upload(session, keys, routes[start : start + _ROUTES_AT_ONCE])
        position = replica.position
        answer = replica.run(
            session.beat,
            "commit",
            position.epoch_number,
            len(routes),
            random_tag(),
            keys=keys,
        )
        if answer[0] != b"OK":
            return  # somebody else was faster
        epoch, number, tag = (part.decode() for part in answer[1:4])
        self._changes.forget_acks()
        replica.move_to(position.in_epoch(epoch).after(int(number), tag))
        replica.counts.uploads += 1
        if routes:
            replica.log.warning(
                "Redis has lost data; this server has provided its %d routes in %.1f s",
                len(routes),
                time.monotonic() - began,
            )

    def _upload(self, session: Session, keys: list[str], routes: list[tuple[str, bytes]]) -> None:
        table = self._replica.table
        now = unix_ms()
        activity: list[Any] = []
        for path, _ in routes:
            activity += (table.last_activity(path) or now, path)
        commands = [
            ("HSET", keys[0], *(part for route in routes for part in route)),
            ("PEXPIRE", keys[0], _SEED_LIFETIME),
            ("ZADD", keys[1], *activity),
            ("PEXPIRE", keys[1], _SEED_LIFETIME),
        ]
        _raise_first_error(session.bulk.pipeline(commands))

    # -- the state of all

    def _join_epoch(self, session: Session) -> None:
        """Go on in another epoch: as it is, if this server knows its history, or load the table."""
        replica = self._replica
        self._changes.forget_acks()
        state = self._state(session)
        if state is None:
            return
        if replica.is_loaded:
            have = replica.position
            if have.change <= state.change and self._tag_of(session, have, state) == have.tag:
                replica.move_to(have.in_epoch(state.epoch))
                return
            if have.change > state.change:
                self._tell_losses(state.change)
            replica.counts.loads_epoch += 1
        else:
            replica.counts.loads_start += 1
        self.load(session)

    def _tell_losses(self, kept: int) -> None:
        lost = self._changes.confirmed_after(kept)
        if lost:
            self._replica.log.error(
                "%d changes were confirmed here and are lost: %s%s",
                len(lost),
                ", ".join(lost[:10]),
                " and others" if len(lost) > 10 else "",
            )

    def _state(self, session: Session) -> Position | None:
        """Return where the shared table stands; None if there is none any more."""
        command = ("HMGET", self._replica.meta_key, "format", "epoch", "seq", "tag")
        data_format, epoch, change, tag = session.beat.call(*command)
        if epoch is None or int(data_format) > FORMAT:
            return None
        return NOWHERE.in_epoch(epoch.decode()).after(int(change), tag.decode())

    def _tag_of(self, session: Session, have: Position, state: Position) -> str | None:
        if have.change == state.change:
            return state.tag
        number = f"{have.change}-0"
        found = session.beat.call("XRANGE", self._replica.log_key, number, number)
        return fields_of(found[0][1])[b"t"].decode() if found else None

    def load(self, session: Session) -> None:
        """Make the table equal to the shared one.

        Raises what is in ``link.FAILURES``, and ``TableFull``.
        """
        replica = self._replica
        replica.state = "loading"
        began = time.monotonic()
        while True:
            loaded = self._read(session)
            if loaded is not None:
                break
            gevent.sleep(0.05)
        routes, position = loaded
        activity: dict[str, int] = {}
        if not replica.is_loaded:
            # A route that is loaded has not been used by that.
            activity = dict(activity_since(session.bulk, replica.activity_key, 0))
        self._replace(routes, activity)
        replica.move_to(position)
        replica.log.info("Loaded %d routes in %.1f s", len(routes), time.monotonic() - began)

    def _read(self, session: Session) -> tuple[dict[str, bytes], Position] | None:
        """Return the shared table, and which change it has; None if it was replaced meanwhile."""
        before = self._state(session)
        if before is None:
            raise RedisConnectionError("the shared table has gone")
        routes: dict[str, bytes] = {}
        cursor = b"0"
        while True:
            cursor, flat = session.bulk.call(
                "HSCAN", self._replica.routes_key, cursor, "COUNT", _CHANGES_AT_ONCE
            )
            routes.update((path_of(path), data) for path, data in pairs_of(flat))
            if cursor == b"0":
                break
            gevent.sleep(0)
        after = self._state(session)
        if after is None or after.epoch != before.epoch:
            return None
        return self._catch_up(session, routes, before, after)

    def _catch_up(
        self, session: Session, routes: dict[str, bytes], position: Position, until: Position
    ) -> tuple[dict[str, bytes], Position] | None:
        """Make the changes that came while the table was read; None if the log lacks some."""
        while position.change < until.change:
            entries = session.bulk.call(
                *("XRANGE", self._replica.log_key),
                *(f"{position.change + 1}-0", f"{until.change}-0", "COUNT", _CHANGES_AT_ONCE),
            )
            for entry, flat in entries:
                if number_of(entry) != position.change + 1:
                    return None
                fields = fields_of(flat)
                path = path_of(fields[b"p"])
                if fields[b"o"] == b"a":
                    routes[path] = fields[b"d"]
                else:
                    routes.pop(path, None)
                position = position.after(position.change + 1, fields[b"t"].decode())
            if not entries:
                return None
        return routes, position

    def _replace(self, routes: dict[str, bytes], activity: dict[str, int]) -> None:
        """Publish the differences: meanwhile, each route is the old one or the new one."""
        table = self._replica.table
        for number, (path, data) in enumerate(routes.items()):
            if table.get(path) != data:
                table.put(path, data, activity.get(path) or table.last_activity(path) or None)
            if number % _ROUTES_AT_ONCE == 0:
                gevent.sleep(0)
        for path, _ in table.items():
            if path not in routes:
                table.remove(path)

    def introduce(self, session: Session) -> None:
        """Tell people who looks into the engine which servers there are."""
        about = {
            "host": self._replica.id.rpartition("-")[0],
            "pid": os.getpid(),
            "version": __version__,
            "formats": [FORMAT],
            "since": int(time.time()),
        }
        session.beat.call("HSET", self._replica.servers_key, self._replica.id, json.dumps(about))


def _raise_first_error(answers: list[Any]) -> None:
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
