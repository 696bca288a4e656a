"""Where a request is to be asked again over HTTPS. Pure."""

from __future__ import annotations

from urllib.parse import quote

HTTPS_PORT = 443

# Everything that a request target may have in it but non-ASCII bytes.
_KEPT = "".join(map(chr, range(0x21, 0x7F)))


def https_location(host: str, port: str, target: str) -> str:
    """Return the https URL of the same place.

    Args:
        host: what the ``Host`` header says; its port is dropped.
        port: what stands behind the host instead: ``:8443``, or nothing.
        target: the request target, whatever its form (RFC 9112, 3.2).
    """
    return f"https://{_without_port(host)}{port}{_path(target)}"


def _without_port(host: str) -> str:
    """Return the host of a Host header; CHP takes the first colon, also that of ``[::1]``."""
    if host.startswith("["):
        return host[: host.find("]") + 1]
    return host.partition(":")[0]


def _path(target: str) -> str:
    """Return path and query of a request target."""
    if not target.startswith("/"):
        # Absolute-form, or "*", which CHP sticks to the host as they are.
        _, _, rest = target.partition("://")
        target = "/" + rest.partition("/")[2]
    return quote(target, safe=_KEPT, encoding="latin-1")
