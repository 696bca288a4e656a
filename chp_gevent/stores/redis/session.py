"""The connections to one process of the engine's."""

from __future__ import annotations

from typing import Final

from redis.exceptions import ConnectionError as RedisConnectionError

from chp_gevent.stores.redis.engine import Engine
from chp_gevent.stores.redis.link import Link
from chp_gevent.stores.redis.scripts import DIGESTS, TEXTS

BLOCK: Final = 0.5
"""Seconds for which a read of the log waits."""

_OLDEST: Final = (6, 2)


class Session:
    """Four connections, so that none waits for another's answers, to a server known by its run id.

    Attributes:
        read: for the log and the acks, in which it waits.
        beat: for the lease, elections, and what belongs to neither of the others.
        write: for changes.
        bulk: for whole tables, and activity.
        run_id: of the engine's process.
        address: where it is, for the log.
        policy: what it does when its memory is full (``maxmemory-policy``), if it says that.

    Args:
        engine: where to find it.
        unused_key: a key for trying what the user may do.
        waits: whether changes are to wait for replicas of the engine.

    Raises what is in ``link.FAILURES``, also when the user lacks a right.
    """

    def __init__(self, engine: Engine, unused_key: str, *, waits: bool = False) -> None:
        found = engine.find()
        host, port = found
        self.address = f"{host}:{port}" if port else "its socket"
        self.run_id = ""
        self.policy = ""
        self._links: list[Link] = []
        try:
            self.read = self._link(engine, found, BLOCK + 2.5)
            self.beat = self._link(engine, found, 2.0)
            self.write = self._link(engine, found, 2.0)
            self.bulk = self._link(engine, found, 5.0)
            for answer in self.beat.pipeline([("SCRIPT", "LOAD", text) for text in TEXTS.values()]):
                if isinstance(answer, Exception):
                    raise answer
            missing = self.beat.call("EVALSHA", DIGESTS["rights"], 1, unused_key)
            if missing:
                rights = " ".join(f"+{name.decode()}" for name in missing)
                raise RedisConnectionError(f"the user lacks these rights: {rights}")
            if waits:
                self.beat.call("WAIT", 0, 1)
        except BaseException:
            self.close()
            raise

    def _link(self, engine: Engine, found: tuple[str, int], timeout: float) -> Link:
        link = engine.connect(found, timeout)
        self._links.append(link)
        said: dict[str, str] = {}
        for section in ("server", "replication", "memory"):
            for line in link.call("INFO", section).decode().splitlines():
                name, _, value = line.partition(":")
                said[name] = value
        if said.get("role") != "master":
            raise RedisConnectionError(f"{self.address} is not the master")
        version = tuple(int(part) for part in said["redis_version"].split(".")[:2])
        if version < _OLDEST:
            raise RedisConnectionError(f"{self.address} is Redis {said['redis_version']}, not 6.2")
        if self.run_id not in ("", said["run_id"]):
            raise RedisConnectionError(f"{self.address} is two servers")
        self.run_id, self.policy = said["run_id"], said.get("maxmemory_policy", "")
        return link

    def close(self) -> None:
        """Close the connections; whoever waits for an answer gets an error."""
        for link in self._links:
            link.close()
