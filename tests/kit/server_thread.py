"""Runs an HTTPServer in a thread with an event loop of its own, under a clock of the test's."""

from __future__ import annotations

import queue
import socket
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import gevent
from gevent.event import Event

from chp_gevent.http.access_entry import Access
from chp_gevent.http.events import ServerEvents
from chp_gevent.http.server import HTTPServer
from chp_gevent.http.settings import ServerSettings

T = TypeVar("T")

TIMEOUT = 10.0


class ManualClock:
    """Monotonic time that only the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class ServerThread:
    """A server on a free port of 127.0.0.1, or on ``listener``, while used as a context manager.

    Attributes:
        address: what a RawClient connects to.
    """

    def __init__(
        self,
        application: Any,
        events: ServerEvents,
        settings: ServerSettings,
        *,
        listener: socket.socket | None = None,
        access: Access | None = None,
    ) -> None:
        self._access = access
        self.listener = listener or socket.create_server(("127.0.0.1", 0))
        self.address = self.listener.getsockname()
        self.clock = ManualClock()
        self.server: HTTPServer
        self._application = application
        self._events = events
        self._settings = settings
        self._commands: queue.SimpleQueue[Callable[[], Any]] = queue.SimpleQueue()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def run(self, function: Callable[..., T], *args: Any) -> T:
        """Call a function in the server's thread; return what it returns."""
        outcome: queue.SimpleQueue[T] = queue.SimpleQueue()
        self._commands.put(lambda: outcome.put(function(*args)))
        self._wake.send()
        return outcome.get(timeout=TIMEOUT)

    def run_later(self, function: Callable[[], Any]) -> None:
        """Have a function called in the server's thread."""
        self._commands.put(lambda: gevent.spawn(function))
        self._wake.send()

    def advance(self, seconds: float) -> None:
        """Let time pass, and the server notice it."""
        self.run(self._advance, seconds)

    def _advance(self, seconds: float) -> None:
        # Here, where nobody is half-way between two looks at the clock.
        self.clock.now += seconds
        gevent.get_hub().loop.run_callback(self.server.sweep)
        gevent.sleep(0)

    def _run(self) -> None:
        self.server = HTTPServer(
            self._application,
            self._settings,
            [self.listener],
            self._events,
            access=self._access,
            clock=self.clock,
        )
        self.server.start()
        self._end = Event()
        self._wake = gevent.get_hub().loop.async_()
        self._wake.start(lambda: gevent.spawn(self._obey))
        self._started.set()
        self._end.wait()
        gevent.get_hub().destroy(destroy_loop=True)

    def _obey(self) -> None:
        while not self._commands.empty():
            self._commands.get()()

    def __enter__(self) -> ServerThread:
        self._thread.start()
        assert self._started.wait(TIMEOUT)
        return self

    def __exit__(self, *_: object) -> None:
        self.run(self._end.set)
        self._thread.join(TIMEOUT)
        self.listener.close()
