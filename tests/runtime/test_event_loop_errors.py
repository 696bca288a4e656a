"""Exceptions that nobody expected, in what the event loop calls."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from typing import Any

import gevent
import pytest

from chp_gevent.http.stream import READ
from chp_gevent.runtime.event_loop_errors import look_after


@pytest.fixture
def loop(log: logging.Logger) -> Iterator[Any]:
    """The event loop of this thread, looked after."""
    hub = gevent.get_hub()
    look_after(hub, log)
    yield hub.loop
    del hub.handle_error


class Failing:
    """Fails each time something arrives, until it is told to end."""

    def __init__(self, loop: Any, sock: socket.socket) -> None:
        self.calls = 0
        self._watcher = loop.io(sock.fileno(), READ)
        self._watcher.start(self.arrived)

    def arrived(self) -> None:
        self.calls += 1
        raise ValueError("nobody foresaw this")

    def callback_failed(self) -> None:
        self._watcher.stop()
        self._watcher.close()


def test_what_has_failed_is_ended_and_does_not_fail_again(loop: Any, lines: list[str]) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        failing = Failing(loop, ours)
        theirs.send(b"x")
        gevent.sleep(0.05)
        assert failing.calls == 1
    assert lines == ["error: Error in the event loop: ValueError: nobody foresaw this"]


def test_a_greenlet_that_fails_is_one_line(loop: Any, lines: list[str]) -> None:
    def fail() -> None:
        raise RuntimeError("oh no")

    gevent.spawn(fail).join()
    gevent.sleep(0)
    assert lines == ["error: Error in the event loop: RuntimeError: oh no"]


def test_an_end_that_fails_too_is_one_line_more(
    loop: Any, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(failing: Failing) -> None:
        failing._watcher.stop()
        raise KeyError("twice")

    monkeypatch.setattr(Failing, "callback_failed", fail)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        Failing(loop, ours)
        theirs.send(b"x")
        gevent.sleep(0.05)
    assert [line.rpartition(": ")[0] for line in lines] == [
        "error: Error in the event loop: ValueError",
        "error: Error while ending that: KeyError",
    ]


def test_who_leaves_the_process_still_does(loop: Any, lines: list[str]) -> None:
    def leave() -> None:
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        gevent.spawn(leave).join()
    assert not lines
