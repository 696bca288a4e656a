"""Options: requests and answers."""

from __future__ import annotations

from typing import Final

from chp_gevent.config.option import Option
from chp_gevent.config.readers import parsed, switch, texts
from chp_gevent.config.values import networks, rewritten_protocol

TITLE: Final = "Requests and answers"

HOST_ROUTING = Option(
    "--host-routing",
    switch,
    help="The host name is the first segment of the routing path.",
    shown_default="off",
    meaning=(
        "The host of a request, without the port, is the first segment of the path that is routed."
    ),
    since="0.3",
    difference="Case, and a dot at the end of the name, don't count.",
)

NO_X_FORWARD = Option(
    "--no-x-forward",
    switch,
    help="Don't add X-Forwarded-* headers.",
    shown_default="add them",
    meaning="Don't add `X-Forwarded-For`, `-Port`, `-Proto` and `-Host`.",
    since="0.2",
)

NO_PREPEND_PATH = Option(
    "--no-prepend-path",
    switch,
    help="Don't put the path of the target URL before the request's.",
    shown_default="prepend",
    meaning="Don't put the path of the target's URL before that of the request.",
    since="0.2",
)

NO_INCLUDE_PREFIX = Option(
    "--no-include-prefix",
    switch,
    help="Cut the route's prefix off the request's path.",
    shown_default="include",
    meaning="Cut the route's prefix off the path of the request.",
    since="0.2",
)

AUTO_REWRITE = Option(
    "--auto-rewrite",
    switch,
    help="Rewrite host and port of Location headers.",
    shown_default="off",
    meaning="Rewrite host and port of `Location` headers that name the target.",
    since="2.0",
    difference="In answers with status 303, too.",
)

PROTOCOL_REWRITE = Option(
    "--protocol-rewrite",
    parsed(rewritten_protocol),
    metavar="PROTO",
    help="Rewrite the protocol of Location headers: http or https.",
    meaning="Rewrite the protocol of such headers to `http` or `https`.",
    since="2.0",
    difference="As before. Other protocols are refused.",
)

CHANGE_ORIGIN = Option(
    "--change-origin",
    switch,
    help="Send the target's host in the Host header.",
    shown_default="off",
    meaning="Send the target's host in the `Host` header.",
    since="3.1",
    difference="A target on a UNIX socket gets `localhost`; CHP sends it the percent-encoded path.",
)

CUSTOM_HEADER = Option(
    "--custom-header",
    texts,
    metavar="HEADER",
    repeatable=True,
    help='Add "Name: value" to requests; may be repeated.',
    meaning=(
        "Add `Name: value` to every request; may be repeated. Split at the first colon, both "
        "sides trimmed; of equal names the last one counts."
    ),
    since="4.2",
    difference=(
        "Headers that can't be sent, and those that frame the message (`Content-Length`, "
        "`Connection`, …), are refused at start."
    ),
)

TRUSTED_PROXIES = Option(
    "--trusted-proxies",
    parsed(networks),
    metavar="LIST",
    help=(
        "Replace the X-Forwarded-* headers of all peers but these: IP addresses and networks "
        "(CIDR), separated by commas, or none. What these say is kept, and their address "
        "appended to -For. Without it, headers of any sender are appended to."
    ),
    shown_default="append for all",
    meaning=(
        "IP addresses and networks (CIDR), separated by commas, of the proxies in front. What "
        "they say in `X-Forwarded-Proto`, `-Port` and `-Host` is kept, and `X-Forwarded-For` "
        "appended to; a port that they don't say is that of the protocol. From all others, "
        "these fields, `Forwarded`, `X-Real-IP` and all that look like them are dropped. `none` "
        "trusts nobody."
    ),
    since="ours",
    difference=("Without it, as CHP: `-For`, `-Port` and `-Proto` of any sender are appended to."),
)

PROXY_PROTOCOL = Option(
    "--proxy-protocol",
    switch,
    help=(
        "The --trusted-proxies begin each connection with a header of the PROXY protocol, "
        "version 1 or 2."
    ),
    shown_default="off",
    meaning=(
        "The `--trusted-proxies`, which must be given, begin each connection with a header of "
        "the PROXY protocol, version 1 or 2, before TLS: the client is the one that it names, "
        "in `X-Forwarded-For`, logs and trust, and it has used HTTPS if a header of version 2 "
        "says that TLS ended there. A connection of theirs without it is closed; all others "
        "speak HTTP as ever. For load balancers that forward bytes."
    ),
    since="ours",
)
