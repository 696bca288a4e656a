"""What an application is told of a request: the environ of PEP 3333. Pure."""

from __future__ import annotations

import sys
from typing import Any
from urllib.parse import unquote_to_bytes

from chp_gevent.http.h1.heads import RequestHead
from chp_gevent.http.request import ClientRequest
from chp_gevent.http.settings import ServerSettings


def base_environ(settings: ServerSettings) -> dict[str, Any]:
    """Return what all requests of a server have in their environ."""
    return {
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "https" if settings.tls is not None else "http",
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": settings.multiprocess,
        "wsgi.run_once": False,
        "SERVER_SOFTWARE": "chp-gevent",
        "SERVER_NAME": settings.server_name,
        "SERVER_PORT": settings.server_port,
        "SCRIPT_NAME": "",
    }


def request_environ(
    connection: dict[str, Any], head: RequestHead, request: ClientRequest
) -> dict[str, Any]:
    """Return the environ of a request; ``connection`` is what all on its connection have."""
    environ = connection.copy()
    path, _, query = head.target.partition("?")
    environ["REQUEST_METHOD"] = head.method
    environ["PATH_INFO"] = unquote_to_bytes(path).decode("latin-1") if "%" in path else path
    environ["QUERY_STRING"] = query
    environ["SERVER_PROTOCOL"] = "HTTP/1.0" if head.http_1_0 else "HTTP/1.1"
    environ["RAW_URI"] = head.target
    environ["wsgi.input"] = request.body
    environ["chp.request"] = request
    section = head.section
    variables = section.variables
    if variables is None:
        variables = section.variables = _header_variables(head)
    environ.update(variables)
    return environ


def _header_variables(head: RequestHead) -> dict[str, str]:
    """Return the header fields as PEP 3333 wants them, lines of the same name joined."""
    variables: dict[str, str] = {}
    for _, value, _, cgi in head.fields:
        variables[cgi] = f"{variables[cgi]},{value}" if cgi in variables else value
    return variables
