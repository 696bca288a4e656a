"""Targets: what a route's URL says about where and how to send a request. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from chp_gevent.proxy.headers import origin_host

_SCHEMES = {
    "http": ("http", 80),
    "https": ("https", 443),
    "http+unix": ("http+unix", 80),
    "unix+http": ("http+unix", 80),
}


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
    parts = urlsplit(url)
    if parts.scheme not in _SCHEMES:
        raise ValueError(f"unsupported protocol in target {url!r}")
    scheme, default_port = _SCHEMES[parts.scheme]
    path = parts.path + (f"?{parts.query}" if parts.query else "")
    if scheme == "http+unix":
        socket_path = unquote(parts.netloc)
        if not socket_path:
            raise ValueError(f"no socket path in target {url!r}")
        return Target(url, scheme, socket_path, default_port, path or "/", "localhost")
    host = parts.hostname
    if not host:
        raise ValueError(f"no host in target {url!r}")
    port = parts.port or default_port
    return Target(url, scheme, host, port, path or "/", origin_host(scheme, host, port))


def origin_form(request_target: str) -> str:
    """Return the path and query of a request target (RFC 9112, 3.2), byte for byte.

    Origin-form is what it is; absolute-form loses its scheme and authority.
    """
    if request_target.startswith("/") or "://" not in request_target:
        return request_target
    after_scheme = request_target.index("://") + 3
    ends = (request_target.find(mark, after_scheme) for mark in "/?#")
    authority_end = min((end for end in ends if end >= 0), default=len(request_target))
    rest = request_target[authority_end:]
    return rest if rest.startswith("/") else "/" + rest


def without_prefix(request_target: str, prefix: str) -> str:
    """Return a request target without its route's prefix (``--no-include-prefix``).

    As many path segments are cut as ``prefix`` has, whatever their encoding.
    """
    if prefix == "/":
        return request_target
    position = 0
    for _ in range(prefix.count("/")):
        while request_target.startswith("//", position):
            position += 1
        following = request_target.find("/", position + 1)
        query = request_target.find("?", position + 1)
        if following < 0 or 0 <= query < following:
            return "/" + request_target[query:] if query >= 0 else "/"
        position = following
    return request_target[position:]


def joined_path(target_path: str, request_target: str) -> str:
    """Return what to request from a target: its own path, then the request's.

    As http-proxy-3 joins them: one slash between the two, all others kept, queries merged
    with the target's first. A target without a path changes nothing.
    """
    if target_path == "/" and request_target.startswith("/"):
        return request_target
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
