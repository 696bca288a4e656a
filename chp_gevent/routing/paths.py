"""Paths as CHP sees them: those of requests and those of routes. Pure functions.

CHP looks a request up with ``decodeURIComponent(new URL(target, base).pathname)``. The
URL parser behind it is the one of https://url.spec.whatwg.org/: the names of its states
("special authority ignore slashes" …) help to compare it with the functions here.
"""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from typing import Final

# What makes a path that starts with "/" more than the text up to the "?".
_needs_parsing = re.compile(r"[\x00-\x20#\\]").search

_C0_CONTROLS_AND_SPACE: Final = "".join(map(chr, range(0x21)))
_TABS_AND_NEWLINES: Final = str.maketrans("", "", "\t\n\r")

_split_scheme = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*):(.*)", re.DOTALL).fullmatch
_BASE_SCHEME: Final = "http"
_SPECIAL_SCHEMES: Final = frozenset({"http", "https", "ws", "wss", "ftp"})

_split_port = re.compile(r"(\[[^\]]*\]|[^:\[\]]+)(?::([0-9]*))?").fullmatch
_forbidden_in_domain = re.compile(r"[\x00-\x20#%/:<>?@\[\\\]^|\x7f-\x9f]").search
_IGNORED_IN_DOMAIN: Final = str.maketrans("", "", "\xad\u200b\u2060\ufeff")
_MAX_PORT: Final = 65535

_DOT: Final = frozenset({".", "%2e"})
_DOT_DOT: Final = frozenset({"..", ".%2e", "%2e.", "%2e%2e"})

_BYTES_OF_HEX: Final = {
    (a + b).encode(): bytes([int(a + b, 16)])
    for a in "0123456789ABCDEFabcdef"
    for b in "0123456789ABCDEFabcdef"
}


class MalformedPath(ValueError):
    """The request target has no path that CHP could route: it answers 500."""


def route_path(path: str) -> str:
    """Return the canonical form of a decoded path, under which its route is stored.

    One leading slash and no trailing ones; ``/`` is the root. Slashes inside stay.
    """
    return "/" + path.strip("/")


def request_path(target: str) -> str:
    """Return the decoded, normalised path that a request's route is looked up with.

    As CHP's ``decodeURIComponent(new URL(target, "http://example.com").pathname)``, with
    two exceptions where no route could be meant: absolute targets of schemes that have
    nothing to do with HTTP are always malformed, and of non-ASCII host names only the
    characters are checked.

    Args:
        target: the request target as on the wire, decoded as latin-1.

    Raises:
        MalformedPath: JavaScript would throw.
    """
    # Most targets are plain and cost 0.2 µs: one scan for rare characters, two for the
    # sequences that have a meaning.
    path = target.partition("?")[0]
    if path[:1] != "/" or _needs_parsing(path) or "//" in path or "/." in path:
        path = _pathname(target)
    if "%" in path:
        if "%2e" in path.lower():
            path = _without_dot_segments(path)
        path = _decode_uri_component(path)
    return path


def _pathname(target: str) -> str:
    """Return ``new URL(target, "http://example.com").pathname``.

    Characters that the URL parser would percent-encode stay as they are: decoding, which
    follows, makes up for it.
    """
    rest = target.strip(_C0_CONTROLS_AND_SPACE).translate(_TABS_AND_NEWLINES)
    rest = rest.partition("#")[0].partition("?")[0]
    scheme = _BASE_SCHEME
    if match := _split_scheme(rest):
        scheme, rest = match[1].lower(), match[2]
        if scheme not in _SPECIAL_SCHEMES:
            raise MalformedPath(f"a target of scheme {scheme!r}")
    rest = rest.replace("\\", "/")
    if rest.startswith("//") or scheme != _BASE_SCHEME:
        # "//host/path" too is a URL with a host. Any number of slashes may come before it.
        authority, _, rest = rest.lstrip("/").partition("/")
        _check_authority(authority)
    elif rest.startswith("/"):
        rest = rest[1:]
    return _without_dot_segments("/" + rest)


def _without_dot_segments(path: str) -> str:
    """Resolve the segments ``.`` and ``..``, percent-encoded or not."""
    kept: list[str] = []
    segment = ""
    for part in path.split("/")[1:]:
        segment = part.lower()
        if segment in _DOT_DOT:
            del kept[-1:]
        elif segment not in _DOT:
            kept.append(part)
    if segment in _DOT or segment in _DOT_DOT:
        kept.append("")
    return "/" + "/".join(kept)


def _decode_uri_component(text: str) -> str:
    """Decode percent-escapes as strictly as JavaScript's ``decodeURIComponent``.

    Raises:
        MalformedPath: an escape is incomplete, or what they spell is not UTF-8.
    """
    first, *others = text.encode("utf-8", "surrogatepass").split(b"%")
    parts = [first]
    try:
        for part in others:
            parts.append(_BYTES_OF_HEX[part[:2]])
            parts.append(part[2:])
        return b"".join(parts).decode()
    except (KeyError, UnicodeDecodeError) as error:
        raise MalformedPath("bad percent-escapes") from error


def _check_authority(authority: str) -> None:
    """Raise MalformedPath where the URL parser refuses ``[user[:password]@]host[:port]``."""
    match = _split_port(authority.rpartition("@")[2])
    if match is None:
        raise MalformedPath("no valid host and port")
    host, port = match[1], match[2] or "0"
    if len(port.lstrip("0")) > len(str(_MAX_PORT)) or int(port) > _MAX_PORT:
        raise MalformedPath("a port out of range")
    if host.startswith("["):
        _check_ipv6(host[1:-1])
    else:
        _check_domain(host)


def _check_ipv6(address: str) -> None:
    try:
        if "%" in address:
            raise ValueError("a zone")
        ipaddress.IPv6Address(address)
    except ValueError as error:
        raise MalformedPath("no valid IPv6 address") from error


def _check_domain(host: str) -> None:
    if "%" in host:
        host = _decode_uri_component(host)
    if not host.isascii():
        host = unicodedata.normalize("NFKC", host.translate(_IGNORED_IN_DOMAIN))
    if not host or _forbidden_in_domain(host):
        raise MalformedPath("no valid host")
    numbers = host.removesuffix(".").split(".")
    if re.fullmatch(r"[0-9]+|0[xX][0-9A-Fa-f]*", numbers[-1]):
        _check_ipv4(numbers)


def _check_ipv4(numbers: list[str]) -> None:
    """Check an address of 1 to 4 numbers, of which the last fills what the others leave."""
    try:
        *values, last = [_ipv4_number(number) for number in numbers[:5]]
    except ValueError as error:
        raise MalformedPath("no valid IPv4 address") from error
    if len(values) > 3 or max(values, default=0) > 255 or last >> 8 * (4 - len(values)):
        raise MalformedPath("no valid IPv4 address")


def _ipv4_number(text: str) -> int:
    if match := re.fullmatch(r"0[xX]([0-9A-Fa-f]*)", text):
        return int(match[1] or "0", 16)
    if not re.fullmatch(r"[0-9]+", text):
        raise ValueError("not a number")
    return int(text, 8 if text.startswith("0") else 10)
