"""When routes were used last: told to the engine, and asked of it when somebody wants to know."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

import gevent

from chp_gevent.stores.redis.answers import activity_since
from chp_gevent.stores.redis.link import FAILURES
from chp_gevent.stores.redis.replica import Replica, unix_ms
from chp_gevent.stores.redis.session import Session

_PUSH_INTERVAL: Final = 1.0
# Paths of one script, and of one pipeline.
_PATHS_AT_ONCE: Final = 500
_PATHS_IN_A_ROW: Final = 4000
# Seconds between two times that the engine is asked, and for which an answer is waited.
_PULL_INTERVAL: Final = 1.0
_PULL_TIMEOUT: Final = 0.5
# How far clocks may differ, in ms: what was used after the last look, less that, is asked for.
_OVERLAP: Final = 60_000
# Seconds between two times that everything is told again.
_TELL_ALL_INTERVAL: Final = 30.0


class Activity:
    """The last activity of routes, beyond this server.

    Args:
        replica: this server.
    """

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._others: dict[str, int] = {}
        self._pulled_at: float | None = None
        self._pulling: gevent.Greenlet[..., None] | None = None
        self._told_all_at = float("-inf")
        # What was not taken, to be told again.
        self._untold: dict[str, int] = {}

    def push(self) -> None:
        """Tell the engine once a second what has been used, for as long as the process lives."""
        while True:
            gevent.sleep(_PUSH_INTERVAL)
            session = self._replica.session
            if session is None:
                continue
            used = {**self._untold, **dict(self._replica.table.used())}
            now = time.monotonic()
            if self._replica.activity_is_missing and now - self._told_all_at > _TELL_ALL_INTERVAL:
                self._told_all_at = now
                used = self._all()
            self._untold = used
            try:
                self._tell(session, list(used.items()))
            except FAILURES:
                session.close()  # the follower makes another one

    def _all(self) -> dict[str, int]:
        table, others, now = self._replica.table, self._others, unix_ms()
        return {
            path: max(table.last_activity(path), others.get(path, 0)) or now
            for path, _ in table.items()
        }

    def _tell(self, session: Session, used: list[tuple[str, int]]) -> None:
        replica = self._replica
        for start in range(0, len(used), _PATHS_IN_A_ROW):
            row = used[start : start + _PATHS_IN_A_ROW]
            parts = [row[at : at + _PATHS_AT_ONCE] for at in range(0, len(row), _PATHS_AT_ONCE)]
            commands = [
                replica.command("activity", *(each for pair in part for each in pair))
                for part in parts
            ]
            answers: list[Any] = session.bulk.pipeline(commands)
            for part, answer in zip(parts, answers, strict=True):
                if not isinstance(answer, Exception) and answer[0] == b"OK":
                    replica.counts.activity_pushed += len(part)
                    for path, _ in part:
                        self._untold.pop(path, None)

    def of_others(self) -> Mapping[str, int]:
        """Return when routes were used last, on any server, as far as is known within a moment."""
        session = self._replica.session
        now = time.monotonic()
        if session is not None and (
            self._pulled_at is None or now - self._pulled_at > _PULL_INTERVAL
        ):
            # Not ended when it takes too long: the answers of a connection can't be left out.
            if self._pulling is None or self._pulling.ready():
                self._pulling = gevent.spawn(self._pull, session, now)
            self._pulling.join(_PULL_TIMEOUT)
        return self._others

    def _pull(self, session: Session, now: float) -> None:
        try:
            self._take(session, now)
        except FAILURES:
            session.close()

    def _take(self, session: Session, now: float) -> None:
        since = 0
        if self._pulled_at is not None:
            since = unix_ms() - _OVERLAP - int((now - self._pulled_at) * 1000)
        others = self._others
        others.update(activity_since(session.bulk, self._replica.activity_key, since))
        self._pulled_at = now
        if len(others) > 2 * len(self._replica.table) + 1000:
            table = self._replica.table
            self._others = {path: when for path, when in others.items() if table.get(path)}
