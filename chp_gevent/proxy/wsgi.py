"""``chp_gevent.proxy.wsgi:application``: the proxy under the name that gunicorn loads.

Any WSGI middleware can wrap it; a configuration file then names the wrapped one in
``wsgi_app``. Each worker installs its proxy when it starts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

_proxy: Callable[..., Iterable[bytes]] | None = None


def install(proxy: Callable[..., Iterable[bytes]]) -> None:
    """Make ``proxy`` what :func:`application` calls in this process."""
    global _proxy
    _proxy = proxy


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Forward one request. Raises ``RuntimeError`` outside of a proxy worker."""
    if _proxy is None:
        raise RuntimeError(
            "no proxy in this process: start it with -c python:chp_gevent.gunicorn_conf"
        )
    return _proxy(environ, start_response)
