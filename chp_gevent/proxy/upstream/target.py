"""Targets: what a route's URL says about where and how to send a request. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import islice
from urllib.parse import quote, unquote, urlsplit

from chp_gevent.proxy.headers import origin_host
from chp_gevent.routing.paths import request_path
from chp_gevent.routing.target_url import check_target_url

_SCHEMES = {
    "http": ("http", 80),
    "https": ("https", 443),
    "http+unix": ("http+unix", 80),
    "unix+http": ("http+unix", 80),
}

# What makes a path's segments other than those that it is routed by.
_not_as_routed = re.compile(r"^//|/\.|%2e|\\", re.IGNORECASE).search
_leading_slashes = re.compile(r"(?:/|%2f)*", re.IGNORECASE).match
# One byte of a decoded path: an escape, or a character, which is one of latin-1.
_escape_or_character = re.compile(r"%[0-9A-Fa-f]{2}|.", re.DOTALL).finditer


@dataclass(frozen=True, slots=True)
class Target:
    """A parsed target URL.

    ``scheme`` is ``http``, ``https`` or ``http+unix``; ``host`` has no brackets and is the
    socket's path for ``http+unix``. ``path`` is the URL's own path and query, which
    requests are prefixed with. ``origin`` is ``host[:port]`` as in a Host header.
    """

    url: str
    scheme: str
    host: str
    port: int
    path: str
    origin: str


def parse_target(url: str) -> Target:
    """Parse the ``target`` of a route.

    ``http://host[:port][/path]``, ``https://…``, and ``http+unix://%2Fpath%2Fto.sock[/path]``
    or ``unix+http://…`` with the socket's path percent-encoded. Raises ``ValueError`` with
    the reason.
    """
    try:
        check_target_url(url)
    except ValueError as error:
        raise ValueError(f"target {url!r} {error}") from None
    parts = urlsplit(url)
    scheme, default_port = _SCHEMES[parts.scheme]
    path = parts.path + (f"?{parts.query}" if parts.query else "")
    if scheme == "http+unix":
        socket_path = unquote(parts.netloc, errors="surrogateescape")
        return Target(url, scheme, socket_path, default_port, path or "/", "localhost")
    host = parts.hostname or ""
    if ":" in host:
        host = _with_plain_zone(host)
    port = parts.port or default_port
    # The interface of a link-local address means nothing to the target (RFC 6874, 4).
    origin = origin_host(scheme, host.partition("%")[0], port)
    return Target(url, scheme, host, port, path or "/", origin)


def _with_plain_zone(host: str) -> str:
    """Return an IPv6 address whose interface is as the system has it: ``fe80::1%eth0``.

    In a URL the mark is written ``%25`` (RFC 6874, 2); many write ``%`` all the same.
    """
    address, mark, zone = host.partition("%")
    return address + mark + (zone[2:] if zone.startswith("25") and len(zone) > 2 else zone)


def origin_form(request_target: str, method: str) -> str:
    """Return the path and query of a request target (RFC 9112, 3.2), byte for byte.

    Origin-form is what it is; absolute-form loses its scheme and authority. With OPTIONS and
    nothing else it becomes ``*`` (3.2.4).
    """
    if request_target.startswith("/") or "://" not in request_target:
        return request_target
    after_scheme = request_target.index("://") + 3
    ends = (request_target.find(mark, after_scheme) for mark in "/?#")
    authority_end = min((end for end in ends if end >= 0), default=len(request_target))
    rest = request_target[authority_end:]
    if method == "OPTIONS" and not rest:
        return "*"
    return rest if rest.startswith("/") else "/" + rest


def without_prefix(request_target: str, prefix: str) -> str:
    """Return a request target without its route's prefix (``--no-include-prefix``).

    What is left stays as it was sent, unless there are dot segments or the like: then it
    is what is left of the normalised path.
    """
    if prefix == "/":
        return request_target
    path, mark, query = request_target.partition("?")
    if _not_as_routed(path):
        routed = request_path(path).lstrip("/")
        rest = routed[len(prefix.lstrip("/")) :]
        rest = quote(rest, safe="/:@!$&'()*+,;=~", errors="surrogateescape")
    else:
        rest = path[_encoded_length(path, prefix) :]
        if rest[:3].lower() == "%2f":
            rest = rest[3:]
    return (rest if rest.startswith("/") else "/" + rest) + mark + query


def _encoded_length(path: str, prefix: str) -> int:
    """Return how many characters of ``path``, in whatever encoding, are ``prefix``.

    Slashes before it don't count, escaped or not: a route is looked up without them.
    """
    if prefix.isascii() and "%" not in prefix and path.startswith(prefix):
        return len(prefix)
    end = _leading_slashes(path).end()  # type: ignore[union-attr]
    # Each match is one byte.
    size = len(prefix.lstrip("/").encode())
    for match in islice(_escape_or_character(path, end), size):
        end = match.end()
    return end


def joined_path(target_path: str, request_target: str) -> str:
    """Return what to request from a target: its own path, then the request's.

    As http-proxy-3 joins them: one slash between the two, all others kept, queries merged
    with the target's first. A target without a path changes nothing.
    """
    if target_path == "/" and request_target.startswith("/"):
        return request_target
    if request_target == "*":
        return "*"  # RFC 9112, 3.2.4: the server itself, wherever the route points to
    path, mark, query = request_target.partition("?")
    base, _, base_query = target_path.partition("?")
    if not path:
        joined = base
    elif base.endswith("/"):
        joined = base + path.removeprefix("/")
    else:
        joined = base + (path if path.startswith("/") else "/" + path)
    if base_query:
        joined += "?" + base_query + ("&" + query if query else "")
    else:
        joined += mark + query
    return joined
