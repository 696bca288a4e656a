"""Answers that the proxy makes itself when there is no other: pages and the error target."""

from __future__ import annotations

import logging
from http.client import responses as REASONS
from pathlib import Path
from urllib.parse import quote

import gevent

from chp_gevent.config.options import ProxyOptions
from chp_gevent.http.h1.heads import serialise_head
from chp_gevent.http.response import Headers
from chp_gevent.proxy.upstream.connection import TargetError, response_body
from chp_gevent.proxy.upstream.pools import Upstream
from chp_gevent.proxy.upstream.target import joined_path

log = logging.getLogger("chp_gevent.proxy")

# An error target slower than this (seconds), or with more to say (bytes), is not waited for.
ERROR_TARGET_TIMEOUT = 5.0
ERROR_TARGET_LIMIT = 1 << 20

_PAGE = """\
<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>{code} {reason}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
body {{ font: 1rem/1.5 system-ui, sans-serif; color: #333; margin: 15vh auto; max-width: 32rem;
       padding: 0 1rem }}
h1 {{ font-size: 1.5rem }}
</style></head>
<body><h1>{code} {reason}</h1><p>{explanation}</p></body>
</html>
"""
_EXPLANATIONS = {
    404: "There is nothing at this address. If your server was just started, try again soon.",
    503: "What should answer here is not running, or does not answer. Try again in a moment.",
}


class ErrorPages:
    """Makes the body of 404, 503 and 500 answers, as ``--error-path`` and co. say."""

    def __init__(self, options: ProxyOptions, upstream: Upstream) -> None:
        self._path = Path(options.error_path) if options.error_path else None
        self._target = options.error_target
        self._upstream = upstream

    def page(self, code: int, request_target: str) -> tuple[Headers, bytes]:
        """Return the header fields that describe the page for ``code``, and the page.

        Raises nothing that a file or an error target can cause: the next best thing is
        used, and a line logged.
        """
        if self._target is not None:
            try:
                return self._from_target(self._target, code, request_target)
            except (TargetError, gevent.Timeout) as error:
                log.error("Failed to get custom error page: %s", error)
        if self._path is not None:
            return self._from_path(self._path, code)
        return _plain(code) if self._target is not None else _default(code)

    def _from_path(self, path: Path, code: int) -> tuple[Headers, bytes]:
        for name in (f"{code}.html", "error.html"):
            try:
                return [("Content-Type", "text/html")], (path / name).read_bytes()
            except FileNotFoundError:
                log.debug("No error file %s", path / name)
            except OSError as error:
                log.error("Error reading %s: %s", path / name, error.strerror)
                return _plain(code)
        log.error("No error file %s", path / "error.html")
        return _plain(code)

    def _from_target(self, url: str, code: int, request_target: str) -> tuple[Headers, bytes]:
        """Ask the error target: ``GET TARGET/CODE?url=<escaped request target>``."""
        target, pool = self._upstream.target(url)
        base, mark, query = target.path.partition("?")
        base = base if base.endswith("/") else base + "/"
        escaped = quote(request_target.encode("latin-1"), safe="*-._").replace("~", "%7E")
        asked = f"url={escaped}"  # as JavaScript's URLSearchParams writes it
        path = f"{base}{code}?{query}{'&' if mark else ''}{asked}"
        request = serialise_head(
            f"GET {joined_path('/', path)} HTTP/1.1", [("Host", target.origin)]
        )
        log.debug("Requesting custom error page: %s%s", target.origin, path)
        connection = pool.acquire()
        try:
            with gevent.Timeout(ERROR_TARGET_TIMEOUT):
                connection.send_head(request)
                head = connection.read_response("GET", _ignore)
                decoder, received = response_body(head, connection.take_received())
                pieces, size = [received], len(received)
                while not decoder.done:
                    piece = connection.receive_body(decoder)
                    pieces.append(piece)
                    size += len(piece)
                    if size > ERROR_TARGET_LIMIT:
                        raise TargetError("error page too large")
        except BaseException:
            connection.close()
            raise
        if head.keep_alive and not decoder.rest:
            pool.release(connection)
        else:
            connection.close()
        kept = ("content-type", "content-encoding")
        headers = [(field.name, field.value) for field in head.fields if field.lower in kept]
        return headers, b"".join(pieces)


def _ignore(interim: object) -> None:
    """Interim responses of an error target are for nobody."""


def _plain(code: int) -> tuple[Headers, bytes]:
    return [("Content-Type", "text/plain")], REASONS[code].encode()


def _default(code: int) -> tuple[Headers, bytes]:
    explanation = _EXPLANATIONS.get(code, "Something about this request went wrong.")
    page = _PAGE.format(code=code, reason=REASONS[code], explanation=explanation)
    # As CHP's, without a charset: the page tells it.
    return [("Content-Type", "text/html")], page.encode()
