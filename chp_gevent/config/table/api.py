"""Options: the REST API."""

from __future__ import annotations

from typing import Final

from chp_gevent.config.option import Option
from chp_gevent.config.readers import host, parsed, port, required, socket_path, switch, text
from chp_gevent.config.values import storage_backend

TITLE: Final = "The REST API (its token is in the environment variable CONFIGPROXY_AUTH_TOKEN)"

API_IP = Option(
    "--api-ip",
    required(host),
    metavar="IP",
    default="localhost",
    help="Address or host name; empty for all interfaces.",
    meaning="Address or host name to listen on for the REST API; empty is all interfaces.",
    since="0.0",
    difference=(
        "`localhost` is loopback also on a system that does not know that name. Without a "
        "token, addresses other than loopback are a second warning."
    ),
)

API_PORT = Option(
    "--api-port",
    port(),
    metavar="N",
    help="Port (default: the one after --port).",
    shown_default="one after `--port`",
    meaning="Port of the REST API; 8001 when the proxy listens on a UNIX socket.",
    since="0.0",
    difference="0 is any free port (CHP: the one after `--port`).",
)

API_SOCKET = Option(
    "--api-socket",
    socket_path,
    metavar="PATH",
    help="UNIX socket, instead of an address and a port.",
    meaning="UNIX socket of the REST API. Wins over `--api-ip` and `--api-port`.",
    since="5.2",
    difference="The two without effect are a warning.",
)

API_SSL_KEY = Option(
    "--api-ssl-key",
    text,
    metavar="FILE",
    help="As --ssl-key; CONFIGPROXY_API_SSL_KEY_PASSPHRASE.",
    meaning="As `--ssl-key`, for the API; `CONFIGPROXY_API_SSL_KEY_PASSPHRASE`.",
    since="0.0.3",
    difference="As `--ssl-key`.",
)

API_SSL_CERT = Option(
    "--api-ssl-cert",
    text,
    metavar="FILE",
    help="As --ssl-cert.",
    meaning="As `--ssl-cert`, for the API.",
    since="0.0.3",
    difference="As `--ssl-cert`.",
)

API_SSL_CA = Option(
    "--api-ssl-ca",
    text,
    metavar="FILE",
    help="As --ssl-ca.",
    shown_default="those of the system",
    meaning="As `--ssl-ca`, for the API.",
    since="1.0",
    difference="As `--ssl-ca`.",
)

API_SSL_REQUEST_CERT = Option(
    "--api-ssl-request-cert",
    switch,
    help="As --ssl-request-cert.",
    shown_default="off",
    meaning="As `--ssl-request-cert`, for the API.",
    since="1.1",
    difference="As `--ssl-request-cert`.",
)

API_SSL_REJECT_UNAUTHORIZED = Option(
    "--api-ssl-reject-unauthorized",
    switch,
    help="As --ssl-reject-unauthorized.",
    shown_default="implied",
    meaning="As `--ssl-reject-unauthorized`, for the API.",
    since="1.1",
)

STORAGE_BACKEND = Option(
    "--storage-backend",
    parsed(storage_backend),
    metavar="STORE",
    help="Where routes outlive the server: sqlite:PATH, redis://HOST:PORT, or a class of yours,"
    " package.module.Class (default: they are kept in memory).",
    shown_default="in memory",
    meaning="Where [routes outlive the server](storage.md): `sqlite:PATH`, a URL of Redis, or a"
    " Python class, `package.module.Class`.",
    since="3.1",
    difference="`sqlite:PATH` and Redis are ours. A Python class instead of a Node module.",
)
