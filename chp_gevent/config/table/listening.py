"""Options: where to listen for clients."""

from __future__ import annotations

from typing import Final

from chp_gevent.config.option import Option
from chp_gevent.config.readers import host, port, required, socket_path, switch

TITLE: Final = "Where to listen for clients"

IP = Option(
    "--ip",
    host,
    metavar="IP",
    help="Address or host name; all interfaces, IPv4 and IPv6, when not given or empty.",
    shown_default="all interfaces",
    meaning=(
        "Address or host name to listen on for clients. Not given or empty is all interfaces, "
        "IPv4 and IPv6; `*` is the same, with a warning."
    ),
    since="0.0",
)

PORT = Option(
    "--port",
    required(port()),
    metavar="N",
    default="8000",
    help="Port; 0 is any free one.",
    meaning="Port to listen on for clients.",
    since="0.0",
    difference="0 is any free port (CHP: 8000).",
)

SOCKET = Option(
    "--socket",
    socket_path,
    metavar="PATH",
    help="UNIX socket, instead of an address and a port.",
    meaning="UNIX socket to listen on for clients. Not together with `--ip` or `--port`.",
    since="5.2",
    difference=(
        "As for all UNIX sockets here: one that a dead server left behind is replaced, and one "
        "that somebody listens on is one line and exit 1; it is removed at the end. CHP logs "
        "`EADDRINUSE` for both, goes on without listening, and removes none."
    ),
)

REDIRECT_PORT = Option(
    "--redirect-port",
    port(),
    metavar="N",
    help="Redirect HTTP requests on this port to HTTPS (all interfaces).",
    meaning=(
        "Answer HTTP requests on this port, on all interfaces, with a redirection (301) to "
        "HTTPS. The workers do. Needs `--ssl-key` and `--ssl-cert`. No effect when the proxy "
        "listens on port 80 or on a UNIX socket."
    ),
    since="0.4",
)

REDIRECT_TO = Option(
    "--redirect-to",
    port(1),
    metavar="N",
    help="Port that redirections name, if not that of --port.",
    shown_default="that of `--port`",
    meaning="The port that redirections name.",
    since="4.1",
)

REDIRECT_HTTP = Option(
    "--redirect-http",
    switch,
    help=(
        "Redirect requests to HTTPS that came to a trusted proxy in front over HTTP "
        "(X-Forwarded-Proto: http), to port 443 or that of --redirect-to. Needs "
        "--trusted-proxies."
    ),
    shown_default="off",
    meaning=(
        "For a server behind a proxy that ends TLS: requests that this proxy got over plain "
        "HTTP (`X-Forwarded-Proto: http`) are redirected to the same place over HTTPS, on port "
        "443 or that of `--redirect-to`: 301 to GET and HEAD, 308 to all others. Only who is in "
        "`--trusted-proxies`, which must be given, is believed. Not WebSocket handshakes, which "
        "browsers don't follow anywhere, nor `/_chp_healthz`."
    ),
    since="ours",
)
