"""What the connections of a server know of it, and of each other."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from chp_gevent.http.access_entry import Access
from chp_gevent.http.events import ServerEvents
from chp_gevent.http.settings import ServerSettings

WsgiApp = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class ServerState:
    """What a server's connections, and the requests on them, share.

    Attributes:
        app: the WSGI application.
        settings: what clients may do.
        events: is told what happens.
        access: is told of each request when it is over; None if nobody is.
        clock: returns monotonic time in seconds.
        date_line: the Date header line of now, made once a sweep.
        keep_alive_lines: what tells a client that its connection is kept.
        draining: set once no request after the current one is welcome on a connection.
    """

    __slots__ = (
        "access",
        "app",
        "clock",
        "date_line",
        "draining",
        "events",
        "keep_alive_lines",
        "settings",
    )

    def __init__(
        self,
        app: WsgiApp,
        settings: ServerSettings,
        events: ServerEvents,
        access: Access | None,
        clock: Callable[[], float],
    ) -> None:
        self.app = app
        self.settings = settings
        self.events = events
        self.access = access
        self.clock = clock
        self.date_line = b""
        self.keep_alive_lines = _keep_alive_lines(settings.announced_timeout)
        self.draining = False


def _keep_alive_lines(announced_timeout: int | None) -> bytes:
    if announced_timeout is None:
        return b"Connection: keep-alive\r\n"
    return b"Connection: keep-alive\r\nKeep-Alive: timeout=%d\r\n" % announced_timeout
