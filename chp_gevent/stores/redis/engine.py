"""Where the engine is: a server, or what Sentinels or a cluster say."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import closing
from inspect import signature
from typing import Any

from redis import Connection, SSLConnection, UnixDomainSocketConnection
from redis.backoff import NoBackoff
from redis.connection import AbstractConnection
from redis.crc import key_slot
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.retry import Retry

from chp_gevent.config.storage_options import EnginePlace, SharedStoreOptions
from chp_gevent.stores.redis.link import FAILURES, Link

# Less than the second after which a lost packet is sent again: another attempt is sooner there.
_CONNECT_TIMEOUT = 0.6
_ASK_TIMEOUT = 1.0
# CLIENT SETINFO is nothing that a user of ours need have a right to. Older versions of redis-py
# have other arguments for that.
_WITHOUT_A_NAME: dict[str, None] = (
    {"driver_info": None}
    if "driver_info" in signature(AbstractConnection.__init__).parameters
    else {"lib_name": None, "lib_version": None}
)


class Engine:
    """Finds the server that has our keys, and connects to it.

    Args:
        options: those of the store.
        key: one of its keys: all are on the same node of a cluster.
    """

    def __init__(self, options: SharedStoreOptions, key: str) -> None:
        self._options = options
        self._place: EnginePlace = options.place
        self._key = key

    def find(self) -> tuple[str, int]:
        """Return host and port of the server; ("", 0) for a UNIX socket.

        Raises what is in ``FAILURES``.
        """
        if self._place.kind == "redis+sentinel":
            return self._ask_sentinels()
        if self._place.kind == "redis+cluster":
            return self._ask_cluster()
        return self._place.hosts[0] if self._place.hosts else ("", 0)

    def connect(self, address: tuple[str, int], timeout: float) -> Link:
        """Connect to the server that was found; ``timeout`` is that of answers, in seconds.

        Raises what is in ``FAILURES``.
        """
        options = self._options
        credentials = {"username": options.username, "password": options.password}
        if self._place.kind == "unix":
            common = self._common(timeout, **credentials)
            return Link(UnixDomainSocketConnection(path=self._place.path, **common))
        database = {"db": self._place.database} if self._place.kind == "redis" else {}
        return self._tcp(address, timeout, **credentials, **database)

    def _tcp(self, address: tuple[str, int], timeout: float, **more: Any) -> Link:
        host, port = address
        options = self._options
        if not self._place.is_encrypted:
            return Link(Connection(host=host, port=port, **self._common(timeout, **more)))
        return Link(
            SSLConnection(
                host=host,
                port=port,
                ssl_cert_reqs="required",
                ssl_check_hostname=True,
                ssl_ca_certs=options.ca,
                ssl_certfile=options.cert,
                ssl_keyfile=options.key,
                **self._common(timeout, **more),
            )
        )

    @staticmethod
    def _common(timeout: float, **more: Any) -> dict[str, Any]:
        return {
            "socket_timeout": timeout,
            "socket_connect_timeout": _CONNECT_TIMEOUT,
            "retry": Retry(NoBackoff(), 0),
            "protocol": 2,
            "health_check_interval": 0,
            **_WITHOUT_A_NAME,
            **more,
        }

    def _each(self, **credentials: Any) -> Iterator[tuple[str, Link]]:
        """Connect to one of the hosts after the other, in any order."""
        error: Exception | None = None
        for address in random.sample(self._place.hosts, len(self._place.hosts)):
            try:
                link = self._tcp(address, _ASK_TIMEOUT, **credentials)
            except FAILURES as failure:
                error = failure
                continue
            error = None
            with closing(link):
                yield address[0], link
        if error is not None:
            raise RedisConnectionError(str(error)) from None

    def _ask_sentinels(self) -> tuple[str, int]:
        for _, link in self._each(password=self._options.sentinel_password):
            try:
                answer = link.call("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._place.master)
            except FAILURES:
                continue
            if answer:
                return answer[0].decode(), int(answer[1])
        raise RedisConnectionError(f"no Sentinel knows a master {self._place.master!r}")

    def _ask_cluster(self) -> tuple[str, int]:
        slot = key_slot(self._key.encode())
        options = self._options
        for asked, link in self._each(username=options.username, password=options.password):
            try:
                ranges = link.call("CLUSTER", "SLOTS")
            except FAILURES:
                continue
            for first, last, master, *_ in ranges:
                if first <= slot <= last:
                    return master[0].decode() or asked, int(master[1])
        raise RedisConnectionError("no node of the cluster knows who has the keys")
