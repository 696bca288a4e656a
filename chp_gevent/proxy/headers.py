"""Header fields on their way through the proxy. Pure functions.

Order, case and duplicates of what is forwarded are kept. Hop-by-hop fields (RFC 9110,
7.6.1) are dropped both ways; ``X-Forwarded-*`` are set as CHP sets them.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterable, Mapping
from functools import lru_cache
from urllib.parse import quote, urlsplit, urlunsplit

from chp_gevent.http.h1.fields import Field
from chp_gevent.http.peer import Peer
from chp_gevent.http.response import Headers

HOP_BY_HOP = frozenset(
    "connection keep-alive proxy-authenticate proxy-authorization proxy-connection te "
    "transfer-encoding upgrade".split()
)

_X_FORWARDED = ("x-forwarded-for", "x-forwarded-port", "x-forwarded-proto", "x-forwarded-host")

# Other names under which targets look for what X-Forwarded-* say (tornado: the X-Real-IP
# and X-Scheme), so a peer that is not trusted may not send them either.
_FORWARDED_LIKE = frozenset("forwarded x-real-ip x-scheme x-client-ip".split())


_TO_HYPHENS = str.maketrans(dict.fromkeys(string.punctuation, "-"))


@lru_cache(maxsize=1024)
def _meaning(lower: str) -> str:
    """Return the name, in lower case, that a CGI or WSGI target may take a field for.

    To it ``X_Forwarded_For``, ``X.Forwarded.For`` and ``X-Forwarded-For`` are one variable, since
    variables have letters, digits and ``_`` only. What is no ``Content-Length`` but looks like
    one is as bad as a ``Transfer-Encoding``.
    """
    name = lower.translate(_TO_HYPHENS)
    return "transfer-encoding" if name == "content-length" != lower else name


_REWRITTEN = HOP_BY_HOP.union(_X_FORWARDED)

# What a client may not have dropped by naming it in Connection: without these the
# message would mean something else.
_NEVER_NAMED = frozenset(
    ("host", "content-length", "transfer-encoding", "close", "keep-alive", "upgrade")
)

# RFC 9110, 6.5.1: what has to be known before the body has no place behind it. A recipient
# that merges trailers into the header section would be told something else than we were.
_NOT_IN_TRAILERS = HOP_BY_HOP.union(
    _X_FORWARDED,
    _FORWARDED_LIKE,
    "age authorization cache-control content-encoding content-length content-location "
    "content-range content-type cookie date expect expires host if-match if-modified-since "
    "if-none-match if-range if-unmodified-since location max-forwards pragma range "
    "retry-after set-cookie trailer vary warning www-authenticate".split(),
)

_port_of = re.compile(r":([0-9]+)\Z").search
_REDIRECTS = frozenset((201, 301, 302, 303, 307, 308))


def request_headers(
    fields: Iterable[Field],
    named: frozenset[str],
    forwarded: Headers | None,
    *,
    trusted: bool = True,
) -> Headers:
    """Return the fields of a request that go on to the target.

    ``named`` are the options of ``Connection``; ``forwarded`` what
    :func:`forwarded_headers` gave, or None with ``--no-x-forward``. ``trusted`` is the
    peer's: if it is not, every field that says on whose behalf it asks is dropped. Framing
    and ``Upgrade`` are the caller's to add.
    """
    dropped = HOP_BY_HOP if forwarded is None else _REWRITTEN
    if named and not named <= _NEVER_NAMED:
        # Nor may it have dropped what a proxy in front of us added about it.
        named = frozenset(n for n in named - _NEVER_NAMED if not _speaks_for_others(_meaning(n)))
        fields = [field for field in fields if field.lower not in named]
    if not trusted:
        fields = [field for field in fields if not _speaks_for_others(_meaning(field.lower))]
    headers = [(name, value) for name, value, lower, _ in fields if _meaning(lower) not in dropped]
    if forwarded is not None:
        headers += forwarded
    return headers


def _speaks_for_others(name: str) -> bool:
    return name.startswith("x-forwarded-") or name in _FORWARDED_LIKE


def forwarded_headers(
    fields: Iterable[Field],
    peer: Peer,
    host: str,
    *,
    websocket: bool = False,
    kept: bool = False,
) -> Headers:
    """Return the ``X-Forwarded-*`` fields for a request, as CHP sets them.

    For, Port and Proto are appended to what a trusted peer sent, with a comma and no
    space; Host is set only if absent, and not at all on WebSocket upgrades. The port is
    that of ``host`` (the Host header), else 80 or 443.

    Args:
        fields: those of the request.
        peer: who sent it.
        host: its Host.
        websocket: whether it asks for a WebSocket.
        kept: whether Port and Proto of a trusted peer are kept as they are
            (``--trusted-proxies``): it knows how the client reached it. To ``https,http``
            tornado says http.
    """
    sent: dict[str, str] = {}
    for _, value, lower, _ in fields:
        if lower.startswith("x-forwarded-") and lower in _X_FORWARDED and peer.trusted:
            sent[lower] = f"{sent[lower]}, {value}" if lower in sent else value
    if kept and sent:
        return _kept_headers(sent, peer, host, websocket)
    match = _port_of(host)
    port = match[1] if match else ("443" if peer.secure else "80")
    proto = _scheme(peer.secure, websocket)
    headers = [("X-Forwarded-For", peer.address)] if peer.address else []
    headers.append(("X-Forwarded-Port", port))
    headers.append(("X-Forwarded-Proto", proto))
    if sent:
        headers = [
            (name, f"{before},{value}" if (before := sent.get(name.lower())) else value)
            for name, value in headers
        ]
        if not peer.address and "x-forwarded-for" in sent:
            # A proxy on a UNIX socket has no address to append.
            headers.insert(0, ("X-Forwarded-For", sent["x-forwarded-for"]))
    if not websocket:
        headers.append(("X-Forwarded-Host", sent.get("x-forwarded-host") or host))
    elif "x-forwarded-host" in sent:
        headers.append(("X-Forwarded-Host", sent["x-forwarded-host"]))
    return headers


def _kept_headers(sent: dict[str, str], peer: Peer, host: str, websocket: bool) -> Headers:
    """Return ``X-Forwarded-*`` where a trusted peer told some of them, in lower-case names.

    What it did not tell is made from what it did: who says only that its client speaks TLS
    means port 443.
    """
    clients = [text for text in (sent.get("x-forwarded-for"), peer.address) if text]
    proto = sent.get("x-forwarded-proto") or _scheme(peer.secure, websocket)
    host_of_client = sent.get("x-forwarded-host") or host
    port = sent.get("x-forwarded-port")
    if not port:
        match = _port_of(host_of_client.partition(",")[0].strip())
        secure = proto.partition(",")[0].strip().lower() in ("https", "wss")
        port = match[1] if match else ("443" if secure else "80")
    headers = [("X-Forwarded-For", ",".join(clients))] if clients else []
    headers += (("X-Forwarded-Port", port), ("X-Forwarded-Proto", proto))
    if not websocket or sent.get("x-forwarded-host"):
        headers.append(("X-Forwarded-Host", host_of_client))
    return headers


def with_prefix(headers: Headers, prefix: str, *, kept: bool) -> Headers:
    """Return ``headers`` with ``X-Forwarded-Prefix``: what was cut off the path of a request.

    If it was cut in several places, the outermost comes first, in one path: what a trusted peer
    has cut (``/outer``), then we (``/inner``), is ``/outer/inner``.

    Args:
        headers: those of the request as they go on.
        prefix: of the route, decoded; nothing was cut off if it is ``/``.
        kept: whether the peer is believed that it cut something off before us.
    """
    result, cut = [], ""
    for name, value in headers:
        if _meaning(name.lower()) != "x-forwarded-prefix":
            result.append((name, value))
        elif kept and name.lower() == "x-forwarded-prefix":
            cut += "".join(part.strip(" \t").rstrip("/") for part in value.split(","))
    if prefix != "/":
        # Some take a comma for the end of one prefix.
        cut += quote(prefix, safe="/:@!$&'()*+;=~")
    if cut:
        result.append(("X-Forwarded-Prefix", cut))
    return result


def _scheme(secure: bool, websocket: bool) -> str:
    return ("ws" if websocket else "http") + ("s" if secure else "")


def replaced(headers: Headers, overrides: Mapping[str, tuple[str, str]]) -> Headers:
    """Return ``headers`` with fields replaced or added (``--custom-header``, new Host).

    ``overrides`` maps lower-case names to (name, value). The first field of that name is
    replaced where it stands, further ones are dropped.
    """
    pending = dict(overrides)
    result = []
    for name, value in headers:
        lower = name.lower()
        if lower in overrides:
            override = pending.pop(lower, None)
            if override is not None:
                result.append(override)
        else:
            result.append((name, value))
    result += pending.values()
    return result


def response_headers(fields: Iterable[Field], named: frozenset[str]) -> Headers:
    """Return the fields of a response that go back to the client."""
    dropped = HOP_BY_HOP
    if named and not named <= _NEVER_NAMED:
        dropped = dropped | (named - _NEVER_NAMED)
    return [(name, value) for name, value, lower, _ in fields if lower not in dropped]


def trailer_headers(fields: Iterable[Field]) -> Headers:
    """Return the trailer fields that go on, in either direction."""
    return [
        (name, value) for name, value, lower, _ in fields if _meaning(lower) not in _NOT_IN_TRAILERS
    ]


def rewrites_location(status: int) -> bool:
    """Whether the ``Location`` of a response with this status is rewritten.

    CHP's statuses, and 303, which CHP forgets.
    """
    return status in _REDIRECTS


def rewritten_location(
    location: str, target_host: str, new_host: str | None, new_scheme: str | None
) -> str:
    """Return ``location`` pointing to where the client came in.

    Only a location on the target itself (``target_host``: ``host[:port]``, lower case, no
    default port) is changed: its host and port to ``new_host`` (``--auto-rewrite``), its
    scheme to ``new_scheme`` (``--protocol-rewrite``).
    """
    try:
        parts = urlsplit(location)
        if origin_host(parts.scheme, parts.hostname, parts.port) != target_host:
            return location
    except ValueError:
        return location
    credentials, at, _ = parts.netloc.rpartition("@")
    netloc = credentials + at + new_host if new_host else parts.netloc
    scheme = new_scheme.rstrip(":/") if new_scheme else parts.scheme
    return urlunsplit((scheme, netloc, parts.path or "/", parts.query, parts.fragment))


def origin_host(scheme: str, host: str | None, port: int | None) -> str:
    """Return ``host[:port]`` in lower case, without the scheme's default port."""
    name = (host or "").lower()
    if ":" in name:
        name = f"[{name}]"
    if port is None or port == {"http": 80, "https": 443}.get(scheme):
        return name
    return f"{name}:{port}"
