"""The REST API, as a WSGI application: what configurable-http-proxy 5.3 answers.

Described for users in ``docs/api.md``.
"""

from __future__ import annotations

import hmac
import logging
import re
from collections.abc import Callable, Iterable
from http.client import responses as REASONS
from typing import Any, NamedTuple
from urllib.parse import parse_qs

import msgspec

from chp_gevent.http.errors import WireError
from chp_gevent.management.counters import API_ROUTE_ADD, API_ROUTE_DELETE, API_ROUTE_GET
from chp_gevent.management.foreign_pages import ForeignPages
from chp_gevent.management.routes import InvalidRoute, Routes, StoreWriteError, decode, encode
from chp_gevent.management.timestamps import parse_iso8601
from chp_gevent.routing.paths import is_utf8, request_path
from chp_gevent.runtime.tracebacks import log_traceback
from chp_gevent.shared.publisher import RouteLimitReached
from chp_gevent.shared.readiness import READY_PATHS, readiness
from chp_gevent.shared.segment import STATUS

ROOT = "/api/routes"

_TOKEN = re.compile(r"token\s+(\S+)")
_JSON_TYPE = (("Content-Type", "application/json"),)
# Texts about what was sent quote it, and have no type: a browser is not to find HTML in them.
_NO_SNIFFING = (("X-Content-Type-Options", "nosniff"),)
_LOGGED_DATA_LENGTH = 200

Environ = dict[str, Any]
StartResponse = Callable[..., Any]


class Answer(NamedTuple):
    """What a call gets: the status, the body, headers, and what the log says besides."""

    status: int
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    note: str = ""


def _failure(status: int, message: str) -> Answer:
    return Answer(status, message.encode("utf-8", "replace"), _NO_SNIFFING, note=message)


class Api:
    """The WSGI application.

    Needs ``RAW_URI`` in the environ, the request target as it came: paths of routes may have
    ``%2F`` in them.

    Args:
        routes: the routing table.
        auth_token: what clients must send in ``Authorization: token …``; None or empty to let
            everybody in.
        words: the header of the segment, which says whether the server is ready.
        row: the management process's row of counters.
        log: the server's logger.
        own_names: see ``ForeignPages``, which calls are refused by if there is no token.
    """

    def __init__(
        self,
        routes: Routes,
        auth_token: str | None,
        words: memoryview[int],
        row: memoryview[int],
        log: logging.Logger,
        own_names: frozenset[str] | None = None,
    ) -> None:
        self._routes = routes
        self._auth_token = (auth_token or "").encode()
        self._words = words
        self._row = row
        self._log = log
        self._foreign_pages = ForeignPages(own_names)
        self._handlers = {"GET": self._get, "POST": self._post, "DELETE": self._delete}

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one call (PEP 3333). Raises ``WireError`` for a body that can't be read."""
        if environ["RAW_URI"] in READY_PATHS:
            return self._answer_ready(environ["RAW_URI"], start_response)
        try:
            answer = self._answer(environ)
        except WireError:
            raise
        except Exception as error:
            answer = self._crashed(environ, error)
        status = answer.status
        self._row[STATUS + status] += 1
        self._log_answer(answer, environ["REQUEST_METHOD"], environ["RAW_URI"])
        start_response(f"{status} {REASONS[status]}", list(answer.headers))
        return [answer.body] if answer.body else []

    def _answer_ready(self, target: str, start_response: StartResponse) -> Iterable[bytes]:
        """Say whether the server is ready. Such checks have no line, and no account counts them."""
        is_ready, body = readiness(self._words, target)
        status = 200 if is_ready else 503
        start_response(f"{status} {REASONS[status]}", list(_JSON_TYPE))
        return [body]

    def _answer(self, environ: Environ) -> Answer:
        """Check a call, and handle it."""
        if not self._auth_token and (reason := self._foreign_pages.refusal(environ)):
            return _failure(403, reason)
        path = request_path(environ["RAW_URI"])
        if not is_utf8(path):
            return _failure(400, "Malformed path")
        if not path.startswith(ROOT) or path[len(ROOT) : len(ROOT) + 1] not in ("", "/"):
            return Answer(404, b"Not Found")
        handler = self._handlers.get(environ["REQUEST_METHOD"])
        if handler is None:
            return _failure(405, "Method not supported")
        return handler(path[len(ROOT) :], environ)

    def _log_answer(self, answer: Answer, method: str, target: str) -> None:
        status = answer.status
        level = logging.INFO if status < 400 else logging.WARNING if status < 500 else logging.ERROR
        if self._log.isEnabledFor(level):
            url = target.partition("?")[0]
            self._log.log(level, "%s %s %s %s", status, method, url, answer.note)

    def _crashed(self, environ: Environ, error: Exception) -> Answer:
        url = environ["RAW_URI"].partition("?")[0]
        reason = f"{type(error).__name__}: {error}"
        self._log.error("Error in handler for %s %s: %s", environ["REQUEST_METHOD"], url, reason)
        log_traceback(self._log, error)
        return Answer(500, b"Internal Server Error")

    def _authorized(self, environ: Environ) -> bool:
        if not self._auth_token:
            return True
        match = _TOKEN.search(environ.get("HTTP_AUTHORIZATION", ""))
        if match and hmac.compare_digest(match[1].encode("latin-1"), self._auth_token):
            return True
        self._log.debug("Rejecting API request from: %s", environ.get("REMOTE_ADDR") or "unknown")
        return False

    # -- handlers; ``path`` is the decoded path of the route, empty where there is none

    def _get(self, path: str, environ: Environ) -> Answer:
        if not self._authorized(environ):
            return Answer(403)
        if path not in ("", "/"):
            body = self._routes.one_as_json(path)
            if body is None:
                return Answer(404)
            return Answer(200, body, (*_JSON_TYPE, *self._staleness()))
        since = None
        text = _inactive_since(environ.get("QUERY_STRING", ""))
        if text:
            since = parse_iso8601(text)
            if since is None:
                return _failure(400, f"Invalid datestamp '{text}' must be ISO8601.")
        body = self._routes.all_as_json(since)
        self._row[API_ROUTE_GET] += 1
        return Answer(200, body, (*_JSON_TYPE, *self._staleness()))

    def _staleness(self) -> tuple[tuple[str, str], ...]:
        """Return a field that says so if other servers may have changed the table."""
        behind = self._routes.seconds_behind()
        return (("X-Chp-Stale", f"{behind:.0f}"),) if behind else ()

    def _post(self, path: str, environ: Environ) -> Answer:
        # Before the body, other than in CHP: nobody without the token makes us read one.
        if not self._authorized(environ):
            return Answer(403)
        try:
            data = decode(environ["wsgi.input"].read())
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            return _failure(400, f"Body not valid JSON: {error}")
        if not isinstance(data, dict):
            # null, numbers, lists, strings: none has a target.
            return self._bad_data(data or {}, "Must specify 'target' as string")
        try:
            self._routes.add(path, data)
        except InvalidRoute as error:
            return self._bad_data(data, str(error))
        except (RouteLimitReached, OSError) as error:
            return _failure(507, f"No room for another route: {error}")
        except StoreWriteError as error:
            return self._store_failed(error)
        self._row[API_ROUTE_ADD] += 1
        return Answer(201)

    def _delete(self, path: str, environ: Environ) -> Answer:
        if not self._authorized(environ):
            return Answer(403)
        try:
            removed = self._routes.remove(path)
        except StoreWriteError as error:
            return self._store_failed(error)
        self._row[API_ROUTE_DELETE] += 1
        return Answer(204 if removed else 404)

    def _bad_data(self, data: object, message: str) -> Answer:
        if isinstance(data, dict) and "headers" in data:
            data = {**data, "headers": "..."}  # which may hold secrets of the target
        shown = encode(data)[:_LOGGED_DATA_LENGTH].decode("utf-8", "replace")
        self._log.warning("Bad POST data: %s", shown)
        return _failure(400, message)

    @staticmethod
    def _store_failed(error: StoreWriteError) -> Answer:
        # What exactly failed is for the log: it may have addresses and passwords in it.
        return Answer(503, b"The storage backend failed", note=str(error))


def _inactive_since(query: str) -> str:
    """Return the time limit of a GET, by its new name or its old one; empty if there is none."""
    if not query:
        return ""
    fields = parse_qs(query.partition("#")[0], keep_blank_values=True)
    for name in ("inactiveSince", "inactive_since"):
        value = fields.get(name, [""])[0]
        if value:
            return value
    return ""
