"""The HTTP to HTTPS redirect of ``--redirect-port``, as a WSGI application."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import quote

HTTPS_PORT = 443

# Everything that a request target may have in it but non-ASCII bytes.
_KEPT = "".join(map(chr, range(0x21, 0x7F)))


class Redirect:
    """Sends every request to the same place on the HTTPS port, as CHP does.

    Args:
        to_port: the port to redirect to.
        listen_port: the port that the proxy listens on. CHP leaves the port out of the
            location if it is 443, but not if 443 is what ``--redirect-to`` says.
    """

    def __init__(self, to_port: int, listen_port: int | None) -> None:
        self._port = "" if to_port == listen_port == HTTPS_PORT else f":{to_port}"
        self._no_host = (
            f"This server is HTTPS-only on port {to_port}, but an HTTP request was made and the "
            "host could not be determined from the request."
        ).encode()

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        """Answer one request (PEP 3333): 301, or 400 where there is no Host."""
        host = environ.get("HTTP_HOST")
        if host is None:
            start_response("400 Bad Request", [])
            return [self._no_host]
        location = f"https://{_without_port(host)}{self._port}{_path(environ['RAW_URI'])}"
        start_response("301 Moved Permanently", [("Location", location)])
        return []


def _without_port(host: str) -> str:
    """Return the host of a Host header; CHP takes the first colon, also that of ``[::1]``."""
    if host.startswith("["):
        return host[: host.find("]") + 1]
    return host.partition(":")[0]


def _path(target: str) -> str:
    """Return path and query of a request target, whatever its form (RFC 9112, 3.2)."""
    if not target.startswith("/"):
        # Absolute-form, or "*", which CHP sticks to the host as they are.
        _, _, rest = target.partition("://")
        target = "/" + rest.partition("/")[2]
    return quote(target, safe=_KEPT, encoding="latin-1")
