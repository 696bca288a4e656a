"""Calls of WSGI applications."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any, NamedTuple
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator


class WsgiAnswer(NamedTuple):
    """What a WSGI application answered; ``status`` is the code."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


Call = Callable[..., WsgiAnswer]


def call_wsgi(application: Any, method: str, target: str, **environ: Any) -> WsgiAnswer:
    """Call ``application`` once.

    Args:
        method: the request method.
        target: the request target as on the wire.
        environ: more of the environ.
    """
    path, _, query = target.partition("?")
    full: dict[str, Any] = {"wsgi.input": io.BytesIO()}
    setup_testing_defaults(full)
    full.update({"REQUEST_METHOD": method, "PATH_INFO": path, "QUERY_STRING": query})
    full["RAW_URI"] = target
    full.update(environ)
    started: list[Any] = []

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        started[:] = [int(status.split(" ")[0]), headers]
        return lambda data: None

    result = application(full, start_response)
    try:
        body = b"".join(result)
    finally:
        getattr(result, "close", lambda: None)()
    return WsgiAnswer(started[0], started[1], body)


def conforming(application: Any) -> Any:
    """Return ``application`` under the eyes of ``wsgiref.validate`` (PEP 3333).

    It insists on a Content-Type, which CHP's answers do without.
    """

    def typed(environ: dict[str, Any], start_response: Any) -> Any:
        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            if not status.startswith("204") and "Content-Type" not in dict(headers):
                headers = [*headers, ("Content-Type", "text/plain")]
            return start_response(status, headers, exc_info)

        return application(environ, start)

    return validator(typed)
