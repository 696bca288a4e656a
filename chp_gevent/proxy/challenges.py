"""The proof for an ACME server that a name is ours (HTTP-01, RFC 8555, 8.3), as WSGI middleware."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from typing import Any

from chp_gevent.http.state import WsgiApp

# RFC 8555, 8.3: nothing but base64url. No other name is ever looked for among the files.
_CHALLENGE = re.compile(r"/\.well-known/acme-challenge/([A-Za-z0-9_-]{1,200})")
# A token, a dot and a hash: more is none of ours.
_LONGEST_ANSWER = 1024


class Challenges:
    """Answers the challenges that are open; all other requests are another application's.

    Args:
        app: that application.
        folder: has a file for each open challenge, named after its token.
    """

    def __init__(self, app: WsgiApp, folder: str) -> None:
        self._app = app
        self._folder = folder

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        """Answer one request (PEP 3333), whatever host is asked for."""
        challenge = _CHALLENGE.fullmatch(environ["RAW_URI"])
        if challenge is None or environ["REQUEST_METHOD"] != "GET":
            return self._app(environ, start_response)
        try:
            answer = self._read(challenge[1])
        except OSError:
            return self._app(environ, start_response)
        headers = [("Content-Type", "application/octet-stream"), ("Cache-Control", "no-store")]
        start_response("200 OK", [*headers, ("Content-Length", str(len(answer)))])
        return [answer]

    def _read(self, token: str) -> bytes:
        descriptor = os.open(os.path.join(self._folder, token), os.O_RDONLY | os.O_NOFOLLOW)
        with os.fdopen(descriptor, "rb") as file:
            return file.read(_LONGEST_ANSWER)
