"""The HTTP to HTTPS redirect of ``--redirect-port``, as a WSGI application."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from chp_gevent.http.https_location import HTTPS_PORT, https_location


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
        location = https_location(host, self._port, environ["RAW_URI"])
        start_response("301 Moved Permanently", [("Location", location)])
        return []
