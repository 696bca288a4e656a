"""Accepting connections: fairly among workers, and only while there is room for them."""

from __future__ import annotations

import _socket
import select
import time
from collections.abc import Callable, Sequence
from typing import Any

from gevent import get_hub
from gevent.monkey import get_original

from chp_gevent.http.events import ServerEvents
from chp_gevent.http.stream import READ
from chp_gevent.http.turns import turns
from chp_gevent.runtime.descriptors import NO_DESCRIPTORS

# Seconds without accepting after the process or the system ran out of descriptors.
_OUT_OF_DESCRIPTORS_PAUSE = 0.1

# Connections accepted for one event by the only process. Several processes take one at a time.
_ACCEPTS_PER_EVENT = 64
_ACCEPTS_AT_CLOSE = 1024

# Seconds between two log lines about that, and about a server that is full.
_LOG_INTERVAL = 60.0

OnAccept = Callable[[int, Any, int], None]


class Acceptor:
    """Takes connections from listening sockets.

    While the server is full, ``make_room`` is called for each connection that waits; if that
    returns False, nothing is accepted until a connection ends, or :meth:`look_again` is called.

    Processes may share sockets, so that no connection is lost with one of them. Then each takes
    one at a time, and pauses when ``events`` want to leave some to others.

    ``on_accept`` is called with each descriptor, its peer's address and the address family.
    """

    def __init__(
        self,
        sockets: Sequence[Any],
        on_accept: OnAccept,
        make_room: Callable[[], bool],
        loop: Any,
        events: ServerEvents,
    ) -> None:
        self._on_accept = on_accept
        self._events = events
        self._shared = events.shares_sockets
        self._make_room = make_room
        self._full = False
        # Full, and no connection can be closed for another one.
        self._stuck = False
        self._listeners = [_Listener(self, sock, loop) for sock in sockets]
        self._loop = loop
        self._turns = turns(get_hub())
        # Until it fires nothing is accepted: that is for others, or descriptors have run out.
        self._pause: Any = None
        self._logged: dict[Callable[..., None], float] = {}
        self._closed = False

    def start(self) -> None:
        """Accept from now on."""
        self._events.on_accepting(True)
        self._watch()

    def set_full(self, full: bool) -> None:
        """Take note of whether another connection has to be closed for each that comes."""
        if full != self._full:
            self._full = full
            self.look_again()

    def look_again(self) -> None:
        """Try again to make room, if that was not possible before."""
        if self._stuck:
            self._stuck = False
            self._watch()

    def close(self) -> None:
        """Take what has arrived, stop accepting for ever and let go of the sockets.

        When the server stops, what is left in the backlog is reset with the last of its
        processes.
        """
        for listener in self._listeners:
            self._accept(listener, _ACCEPTS_AT_CLOSE)
        self._closed = True
        self._events.on_accepting(False)
        self.end_pause()
        for listener in self._listeners:
            listener.close()

    def _watch(self) -> None:
        if self._closed:
            return
        wanted = not self._stuck and self._pause is None
        for listener in self._listeners:
            if wanted:
                listener.watch()
            else:
                listener.ignore()

    def accept(self, listener: _Listener) -> None:
        """Accept what waits on a listener; called from the event loop."""
        if self._shared and (seconds := self._events.pause_before_accepting(self._full)):
            self._pause_for(seconds)
            return
        self._accept(listener, 1 if self._shared else _ACCEPTS_PER_EVENT, in_turn=True)

    def _accept(self, listener: _Listener, most: int, *, in_turn: bool = False) -> None:
        for _ in range(most):
            if self._full and not self._has_room_for_one_of(listener):
                return
            try:
                fd, address = listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                self._accept_failed(error)
                return
            try:
                self._on_accept(fd, address, listener.family)
            except Exception as error:
                # One client less; the listeners, and those that wait in them, are not touched.
                self._events.on_crash(None, error)
            # Each may have begun with a TLS handshake.
            if self._closed or (in_turn and self._turns.is_over()):
                return

    def _has_room_for_one_of(self, listener: _Listener) -> bool:
        """Make room if a connection waits there (another process may have taken it)."""
        if not listener.has_waiting():
            return False
        self._stuck = not self._make_room()
        self._log_sometimes(self._events.on_full, not self._stuck)
        if self._stuck:
            self._watch()
        return not self._stuck

    def _accept_failed(self, error: OSError) -> None:
        if error.errno not in NO_DESCRIPTORS:
            return  # the client was gone again before we came to it
        self._log_sometimes(self._events.on_accept_failed, error)
        self._pause_for(_OUT_OF_DESCRIPTORS_PAUSE)

    def _log_sometimes(self, hook: Callable[..., None], *args: Any) -> None:
        now = time.monotonic()
        if now - self._logged.get(hook, float("-inf")) > _LOG_INTERVAL:
            self._logged[hook] = now
            hook(*args)

    def _pause_for(self, seconds: float) -> None:
        self.end_pause()
        # A timer that has fired can't be started again: it would fire at once.
        self._pause = self._loop.timer(seconds)
        self._pause.start(self.end_pause)
        self._watch()

    def end_pause(self) -> None:
        """Accept again, if there is a pause: a connection has ended, and left its place."""
        if self._pause is not None:
            self._pause.close()
            self._pause = None
            self._watch()


class _Listener:
    """A listening socket and its place in the event loop."""

    def __init__(self, acceptor: Acceptor, sock: Any, loop: Any) -> None:
        # A bare socket object over the arbiter's descriptor, duplicated so that its life
        # is ours; O_NONBLOCK belongs to the open file and is set already.
        self.sock: Any = _socket.socket(fileno=_socket.dup(sock.fileno()))
        self.sock.setblocking(False)
        self.family = self.sock.family
        self._acceptor = acceptor
        self._watcher = loop.io(self.sock.fileno(), READ)

    def accept(self) -> tuple[int, Any]:
        """Return descriptor and address of a connection. Raises ``OSError``."""
        # accept() of the C class has no other name.
        return self.sock._accept()

    def has_waiting(self) -> bool:
        """Whether a connection waits to be accepted."""
        poller = get_original("select", "poll")()
        poller.register(self.sock.fileno(), select.POLLIN)
        return bool(poller.poll(0))

    def watch(self) -> None:
        """Be called by the event loop when a connection waits."""
        if not self._watcher.active:
            self._watcher.start(self._acceptor.accept, self)

    def ignore(self) -> None:
        """Leave what arrives in the backlog, for later or for another process now."""
        self._watcher.stop()

    def close(self) -> None:
        """Let go of the socket for ever."""
        self._watcher.stop()
        self._watcher.close()
        self.sock.close()
