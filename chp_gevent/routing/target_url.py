"""What may be the URL of a target. Pure."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import SplitResult, unquote, urlsplit

SCHEMES = ("http", "https", "http+unix", "unix+http")

SUN_PATH_MAX = 107
"""Bytes of a UNIX socket's path: Linux keeps it in 108, the last of them zero."""

_NOT_PRINTABLE_ASCII = re.compile(r"[^\x21-\x7e]")
# Whether there is a host of this name is the resolver's business: spawners make names with
# underscores, and with hyphens at either end.
_HOST_NAME = re.compile(r"[A-Za-z0-9_.-]*[A-Za-z0-9][A-Za-z0-9_.-]*")


# Targets as JupyterHub sends them: the check takes 3 µs for one of these, and 30 for others.
_USUAL = re.compile(
    r"https?://[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?"
    r":(?:[1-9][0-9]{0,3}|[1-5][0-9]{4})(?:/[A-Za-z0-9/._~-]*)?"
)


def check_target_url(url: str) -> None:
    """Check the URL of a target: ``proto://host[:port][/path][?query]``.

    The host of ``http+unix`` and ``unix+http`` is a socket's path, percent-encoded.

    Raises ValueError with a reason that reads on from the URL ("has no host"). CHP takes
    everything here, and answers the requests with 500 later.
    """
    if not _USUAL.fullmatch(url):
        _check_parts(url)


def _check_parts(url: str) -> None:
    if _NOT_PRINTABLE_ASCII.search(url) or "\\" in url:
        raise ValueError("has characters that must be percent-encoded in a URL")
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ValueError("has a malformed host") from None
    if parts.scheme not in SCHEMES or not url[len(parts.scheme) :].startswith("://"):
        raise ValueError(f"does not begin with one of {', '.join(f'{s}://' for s in SCHEMES)}")
    if not parts.netloc:
        hint = ": write the socket's path as in http+unix://%2Frun%2Fx.sock"
        raise ValueError("has no host" + (hint if "unix" in parts.scheme else ""))
    if "@" in parts.netloc:
        raise ValueError("has credentials, which are not sent to targets")
    if "#" in url:
        raise ValueError("has a fragment, which is never sent to a server")
    if "unix" in parts.scheme:
        check_socket_path(unquote(parts.netloc, errors="surrogateescape"))
    else:
        _check_host(parts)


def check_socket_path(path: str) -> None:
    """Check that a UNIX socket can have this path; raises ValueError with a reason if not."""
    if "\0" in path or len(path.encode(errors="surrogateescape")) > SUN_PATH_MAX:
        raise ValueError(f"is not a path for a UNIX socket (at most {SUN_PATH_MAX} bytes)")


def check_host(host: str) -> None:
    """Check an IP address (without brackets) or host name; raises ValueError with a reason."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        if not _HOST_NAME.fullmatch(host):
            raise ValueError("is neither an IP address nor a host name") from None


def _check_host(parts: SplitResult) -> None:
    try:
        port = parts.port
    except ValueError:
        port = 0
    if port == 0:
        raise ValueError("has a port that is not a number from 1 to 65535")
    host = parts.hostname or ""
    try:
        check_host(host)
    except ValueError:
        raise ValueError("has a host that is neither an IP address nor a host name") from None
    if ":" in host and not parts.netloc.startswith("["):
        raise ValueError("has an IPv6 address without brackets")
