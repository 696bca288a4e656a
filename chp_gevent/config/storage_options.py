"""What ``--storage-*`` say of a table that servers share. Imports nothing of ``[redis]``."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_PORTS = {"redis": 6379, "redis+sentinel": 26379, "redis+cluster": 6379}
_TLS = {"rediss": "redis", "rediss+sentinel": "redis+sentinel", "rediss+cluster": "redis+cluster"}
_PREFIX = re.compile(r"[A-Za-z0-9._-]{1,64}")
_NAME = re.compile(r"[A-Za-z0-9._-]{1,128}")
_HOST = re.compile(r"\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<name>[^\s\[\]:@/?#]+)")


@dataclass(frozen=True)
class EnginePlace:
    """Where Redis or Valkey is to be found.

    Attributes:
        kind: ``redis`` (one server), ``redis+sentinel``, ``redis+cluster`` or ``unix``.
        hosts: host and port of the server, the Sentinels, or some nodes of the cluster.
        path: the socket of ``unix``.
        master: the name under which Sentinels know the master.
        database: its number.
        is_encrypted: whether it is spoken to over TLS.
    """

    kind: str
    hosts: tuple[tuple[str, int], ...] = ()
    path: str = ""
    master: str = ""
    database: int = 0
    is_encrypted: bool = False

    def __str__(self) -> str:
        if self.kind == "unix":
            return self.path
        return ", ".join(map(_shown, self.hosts))


@dataclass(frozen=True)
class SharedStoreOptions:
    """A table that several servers share (``--storage-backend redis://…``).

    Attributes:
        place: where the engine is.
        prefix: what its keys begin with.
        lease: for how many seconds others wait at the most for a server that has gone silent.
        replicas_to_wait_for: how many replicas of the engine have to have a change, too.
        start_timeout: seconds to wait for the engine at the first start.
        name: how this server is called in log and metrics; empty for the host's name.
        ca: file with the authorities of the engine's certificate; None for the usual ones.
        cert: file with the certificate that the engine is shown.
        key: file with its private key.
        username: of a user of the engine's (ACL); None for the default one.
        password: that user's.
        sentinel_password: what Sentinels ask for.
    """

    place: EnginePlace
    prefix: str = "chp"
    lease: float = 5.0
    replicas_to_wait_for: int = 0
    start_timeout: float = 30.0
    name: str = ""
    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    sentinel_password: str | None = field(default=None, repr=False)


def _shown(address: tuple[str, int]) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_engine_url(value: str) -> bool:
    """Whether a value of ``--storage-backend`` is meant for Redis."""
    scheme, colon, _ = value.partition("://")
    return bool(colon) and (scheme in _PORTS or scheme in _TLS or scheme == "unix")


def engine_place(value: str) -> EnginePlace:
    """Return what a URL says. Raises ``ValueError``."""
    scheme, _, rest = value.partition("://")
    if "@" in rest:
        raise ValueError(
            "has a user or a password, which others could see: they go into"
            " CONFIGPROXY_STORAGE_USERNAME and CONFIGPROXY_STORAGE_PASSWORD"
        )
    if "?" in rest or "#" in rest:
        raise ValueError("has more than hosts and a path")
    if scheme == "unix":
        if not rest.startswith("/") or rest.endswith("/") or "\0" in rest:
            raise ValueError("names no socket, as unix:///run/redis/redis.sock does")
        return EnginePlace("unix", path=rest)
    kind = _TLS.get(scheme, scheme)
    netloc, _, path = rest.partition("/")
    hosts = tuple(_host(each, _PORTS[kind]) for each in netloc.split(","))
    if kind == "redis" and len(hosts) != 1:
        raise ValueError("names several hosts: redis+sentinel:// or redis+cluster:// may")
    encrypted = scheme in _TLS
    if kind == "redis+sentinel":
        if not _NAME.fullmatch(path):
            raise ValueError("does not end with /NAME of the master")
        return EnginePlace(kind, hosts, master=path, is_encrypted=encrypted)
    if path and (kind == "redis+cluster" or not re.fullmatch("[0-9]{1,5}", path)):
        raise ValueError("may end with /NUMBER of a database, of redis:// and rediss:// only")
    return EnginePlace(kind, hosts, database=int(path or 0), is_encrypted=encrypted)


def _host(text: str, default_port: int) -> tuple[str, int]:
    matched = _HOST.match(text)
    rest = text[matched.end() :] if matched else ""
    port = re.fullmatch(r"(?::([0-9]{1,5}))?", rest)
    if matched is None or port is None or not 0 < int(port[1] or default_port) < 65536:
        raise ValueError("names no host, or not as HOST:PORT")
    return matched["v6"] or matched["name"], int(port[1] or default_port)


def prefix(value: str) -> str:
    """Return what keys begin with, as it stands. Raises ``ValueError``."""
    if not _PREFIX.fullmatch(value):
        raise ValueError("is not 1 to 64 letters, digits, dots, hyphens and underscores")
    return value


def server_name(value: str) -> str:
    """Return a name of this server, as it stands. Raises ``ValueError``."""
    if not _NAME.fullmatch(value):
        raise ValueError("is not 1 to 128 letters, digits, dots, hyphens and underscores")
    return value
