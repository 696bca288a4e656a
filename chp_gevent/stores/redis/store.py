"""The store of ``--storage-backend redis://…``, put together."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress

import gevent

from chp_gevent.config.storage_options import SharedStoreOptions
from chp_gevent.runtime.tracebacks import log_traceback
from chp_gevent.shared.segment import CURRENT_UNTIL
from chp_gevent.stores.base import Figure, SharedStore, SharedTable, StoreUnavailable
from chp_gevent.stores.redis.activity import Activity
from chp_gevent.stores.redis.changes import Changes
from chp_gevent.stores.redis.engine import Engine
from chp_gevent.stores.redis.figures import figures
from chp_gevent.stores.redis.follower import Follower
from chp_gevent.stores.redis.link import FAILURES
from chp_gevent.stores.redis.replica import Replica, boot_time


class RedisStore(SharedStore):
    """One table for several servers.

    Args:
        options: the store's.
        words: the header of the segment, where workers see whether this server is current.
        log: the server's logger.
    """

    def __init__(
        self, options: SharedStoreOptions, words: memoryview[int], log: logging.Logger
    ) -> None:
        self._options = options
        self._words = words
        self._log = log
        self._greenlets: list[gevent.Greenlet[..., None]] = []
        self._started_at = boot_time()

    def start(self, table: SharedTable) -> None:
        """See ``SharedStore``."""
        self.replica = replica = Replica(self._options, self._words, table, self._log)
        engine = Engine(self._options, replica.meta_key)
        self._changes = Changes(replica)
        self.follower = Follower(replica, self._changes, engine)
        self._activity = Activity(replica)
        routines = (self.follower.run, self._changes.send, self._changes.look, self._activity.push)
        self._greenlets = [gevent.spawn(self._keep, each) for each in routines]

    def _keep(self, routine: Callable[[], None]) -> None:
        """Run a routine that does not end, again if it does so by a fault of ours."""
        while True:
            try:
                routine()
            except Exception as error:
                self._log.error("A fault in the store: %s: %s", type(error).__name__, error)
                log_traceback(self._log, error)
            gevent.sleep(1.0)

    def wait_until_loaded(self, timeout: float) -> None:
        """See ``SharedStore``."""
        replica = self.replica
        deadline = time.monotonic() + timeout
        if not replica.wait_for(lambda: replica.is_loaded, lambda: deadline):
            raise StoreUnavailable(
                f"no routes from {self._options.place} in {timeout:g} s: {replica.state}"
            )

    def add(self, path: str, data: bytes) -> None:
        """See ``SharedStore``."""
        self._changes.make("a", path, data)

    def add_if_absent(self, path: str, data: bytes) -> None:
        """See ``SharedStore``."""
        self._changes.make("n", path, data, confirm=False)

    def remove(self, path: str) -> bool:
        """See ``SharedStore``."""
        return self._changes.make("d", path)

    def others_activity(self) -> Mapping[str, int]:
        """See ``SharedStore``."""
        return self._activity.of_others()

    def seconds_behind(self) -> float:
        """See ``SharedStore``."""
        if self.replica.is_current:
            return 0.0
        until = self.replica.lease_until or self._started_at
        return max(0.001, boot_time() - until)

    def figures(self) -> Iterable[Figure]:
        """See ``SharedStore``."""
        return figures(self.replica)

    def stop(self, *, leave: bool) -> None:
        """See ``SharedStore``."""
        session = self.replica.session
        self.follower.is_ending = True
        gevent.killall(self._greenlets)
        if session is None:
            return
        if leave:
            # What workers still accept is routed by this table, which nobody waits for any more.
            self._words[CURRENT_UNTIL] = 0
            with suppress(*FAILURES):
                self.replica.run(session.write, "leave")
        session.close()
