"""Validated, immutable options: what every other module is given.

Times are in seconds and sizes in bytes, whatever the unit on the command line.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network

from chp_gevent.config.acme_options import AcmeOptions
from chp_gevent.config.storage_options import SharedStoreOptions
from chp_gevent.http.limits import LimitOptions


class OptionError(ValueError):
    """A value that the server can't be started with; the message is one line naming the flag."""


@dataclass(frozen=True)
class TcpAddress:
    """A TCP listening address.

    ``ip`` is an address or a host name, empty for all interfaces (IPv4 and IPv6). Port 0 is any
    free port.
    """

    ip: str
    port: int


@dataclass(frozen=True)
class UnixAddress:
    """A UNIX listening socket."""

    path: str


Address = TcpAddress | UnixAddress


@dataclass(frozen=True)
class ServerTlsOptions:
    """TLS towards clients of the proxy or of the API (``--ssl-*``, ``--api-ssl-*``).

    ``request_cert`` means that a client must show a certificate that ``ca`` vouches for, also
    without ``reject_unauthorized``: Node rejects unless told not to, and CHP has no flag for that.
    With ``comes_later``, key and certificate are files that need not be there at start.
    """

    key: str | None
    cert: str | None
    ca: str | None = None
    request_cert: bool = False
    reject_unauthorized: bool = False
    protocol: str | None = None
    ciphers: str | None = None
    dhparam: str | None = None
    passphrase: str | None = field(default=None, repr=False)
    flag_prefix: str = "--ssl"
    """What the names of its flags begin with, for error messages: ``--ssl`` or ``--api-ssl``."""
    comes_later: bool = False


def passphrase_variable(flag_prefix: str) -> str:
    """Name the environment variable with the passphrase of ``--ssl-key`` or ``--api-ssl-key``."""
    return f"CONFIGPROXY{flag_prefix.replace('-', '_')[1:].upper()}_KEY_PASSPHRASE"


SECRET_VARIABLES = (
    "CONFIGPROXY_AUTH_TOKEN",
    passphrase_variable("--ssl"),
    passphrase_variable("--api-ssl"),
    "CONFIGPROXY_STORAGE_USERNAME",
    "CONFIGPROXY_STORAGE_PASSWORD",
    "CONFIGPROXY_STORAGE_SENTINEL_PASSWORD",
)
"""The environment variables with secrets."""


@dataclass(frozen=True)
class ClientTlsOptions:
    """TLS towards targets (``--client-ssl-*``, ``--insecure``)."""

    key: str | None = None
    cert: str | None = None
    ca: str | None = None
    verify: bool = True


@dataclass(frozen=True)
class RedirectOptions:
    """The HTTP to HTTPS redirect server: where it listens and the port it points to."""

    address: TcpAddress
    to_port: int


@dataclass(frozen=True)
class StatsdOptions:
    """Where to send statsd packets."""

    host: str
    port: int = 8125
    prefix: str = "chp"


@dataclass(frozen=True)
class ProxyOptions:
    """What the data plane needs to know.

    ``timeout`` (a silent client is disconnected) and ``proxy_timeout`` (a silent target is a 503)
    are None for never. ``connect_timeout`` is how long a connection to a target may take: the
    look-up of its name, connecting and the TLS handshake. ``trusted_proxies`` is None when
    X-Forwarded-* of every peer is appended to, as CHP does; otherwise those of any peer outside
    the networks are replaced, and what one inside says of protocol, port and host is kept. With
    ``proxy_protocol`` those inside begin each connection with a header of the PROXY protocol.
    """

    x_forward: bool = True
    prepend_path: bool = True
    include_prefix: bool = True
    auto_rewrite: bool = False
    change_origin: bool = False
    protocol_rewrite: str | None = None
    custom_headers: tuple[tuple[str, str], ...] = ()
    host_routing: bool = False
    error_target: str | None = None
    error_path: str | None = None
    timeout: float | None = None
    proxy_timeout: float | None = None
    connect_timeout: float = 10.0
    keep_alive_timeout: float = 5.0
    client_tls: ClientTlsOptions = ClientTlsOptions()
    limits: LimitOptions = field(default_factory=LimitOptions)
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] | None = None
    proxy_protocol: bool = False
    https_port: int | None = None


@dataclass(frozen=True)
class Notice:
    """A line about the options that is logged once at start, when logging is set up."""

    level: str
    """``info`` or ``warn``."""
    message: str


@dataclass(frozen=True)
class Options:
    """Everything one server is started with.

    ``max_requests`` is the number of requests after which a worker is replaced, 0 for never.
    ``worker_connections`` are open client connections of one worker, tunnels included.
    ``log_format`` is ``chp`` or ``json``; ``access_log`` is a file, ``-`` for standard output, or
    None for no access log.
    """

    listen: Address
    api: Address
    metrics: Address | None = None
    redirect: RedirectOptions | None = None
    tls: ServerTlsOptions | None = None
    acme: AcmeOptions | None = None
    api_tls: ServerTlsOptions | None = None
    proxy: ProxyOptions = ProxyOptions()
    default_target: str | None = None
    auth_token: str | None = field(default=None, repr=False)
    statsd: StatsdOptions | None = None
    storage_backend: str | None = None
    shared_store: SharedStoreOptions | None = None
    pid_file: str | None = None
    log_level: str = "info"
    log_format: str = "chp"
    access_log: str | None = None
    workers: int = 1
    drain_timeout: float = 30.0
    reload_drain_timeout: float = 86_400.0
    max_draining: int = 8
    worker_connections: int = 10_000
    backlog: int = 2048
    max_requests: int = 0
    notices: tuple[Notice, ...] = ()
