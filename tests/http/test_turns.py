"""Turns: who never waits lets the event loop look, and the others be served."""

from __future__ import annotations

import math
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest
from gevent import get_hub

from chp_gevent.http.stream import READ
from chp_gevent.http.turns import SHARE, TURN, Turns, turns

LOOKED = 1000.0
"""The time at which the loop of a test has looked who is ready."""


class Loop:
    """An event loop that looks when the test says so."""

    MAXPRI = 2

    def __init__(self) -> None:
        self.time = self.looked = LOOKED
        self.active = False
        self.priority: int | None = None
        self._callback: Callable[[], None] = lambda: None

    def now(self) -> float:
        return self.looked

    def idle(self, priority: int) -> Loop:
        """Be the watcher as well."""
        self.priority = priority
        return self

    def start(self, callback: Callable[[], None]) -> None:
        assert not self.active
        self.active, self._callback = True, callback

    def stop(self) -> None:
        self.active = False

    def look(self) -> None:
        """Look who is ready, and call whom that interests."""
        self.looked = self.time
        if self.active:
            get_hub().loop.run_callback(self._callback)
            gevent.sleep(0)


@pytest.fixture
def loop() -> Loop:
    return Loop()


@pytest.fixture
def ours(loop: Loop) -> Turns:
    """Turns in whose time everything takes as long as it takes CPU."""
    return Turns(loop, lambda: loop.time, lambda: loop.time)


@pytest.mark.parametrize(
    ("seconds", "over"),
    [(0.0, False), (0.9 * TURN, False), (1.1 * TURN, True), (60.0, True), (-60.0, True)],
)
def test_a_turn_is_over_some_time_after_the_loop_has_looked(
    loop: Loop, ours: Turns, seconds: float, over: bool
) -> None:
    loop.time += seconds
    assert ours.is_over() is over
    if seconds >= 0:
        loop.look()
        assert not ours.is_over()


def test_nobody_waits_while_there_is_time(loop: Loop, ours: Turns) -> None:
    ours.give_way()
    assert not loop.active


class Heavy:
    """Greenlets that could go on for ever; each piece of their work takes ``piece`` seconds."""

    def __init__(self, loop: Loop, ours: Turns, piece: float) -> None:
        self.done: list[str] = []
        self._loop, self._turns, self._piece = loop, ours, piece
        self._greenlets: dict[str, Any] = {}

    def start(self, *names: str) -> None:
        for name in names:
            self._greenlets[name] = gevent.spawn(self._work, name)
            gevent.sleep(0)

    def _work(self, name: str) -> None:
        while True:
            self._turns.give_way()
            self.done.append(name)
            self._loop.time += self._piece

    def end(self, name: str) -> None:
        self._greenlets.pop(name).kill()

    def end_all(self) -> None:
        for name in list(self._greenlets):
            self.end(name)

    def looks(self, count: int) -> list[str]:
        """Return what is done in so many looks of the loop: one word for each."""
        words = []
        for _ in range(count):
            self.done.clear()
            self._loop.look()
            words.append("".join(self.done))
        return words


@pytest.fixture
def heavy(loop: Loop, ours: Turns) -> Iterator[Heavy]:
    heavy = Heavy(loop, ours, 0.4 * TURN)
    yield heavy
    heavy.end_all()


def test_who_never_waits_has_one_turn_for_each_look_of_the_loop(heavy: Heavy) -> None:
    heavy.start("a")
    assert heavy.done == ["a"] * 3
    assert heavy.looks(3) == ["aaa"] * 3


def test_each_has_its_share_in_turns_before_the_next_one(heavy: Heavy) -> None:
    heavy.start("a", "b", "c")
    in_a_row = math.ceil(SHARE / (1.2 * TURN))
    words = heavy.looks(6 * in_a_row)
    assert words == (["aaa"] * in_a_row + ["bbb"] * in_a_row + ["ccc"] * in_a_row) * 2


def test_more_than_one_goes_on_if_there_is_time(loop: Loop, ours: Turns) -> None:
    went_on = []

    def once(name: str) -> None:
        ours.give_way()
        went_on.append(name)
        loop.time += 0.4 * TURN

    loop.time += 2 * TURN
    for name in "abcd":
        gevent.spawn(once, name)
    gevent.sleep(0)
    assert went_on == []
    loop.look()
    assert went_on == ["a", "b", "c"]
    loop.look()
    assert went_on == ["a", "b", "c", "d"]


def test_who_is_interrupted_in_the_line_has_left_it(loop: Loop, heavy: Heavy) -> None:
    heavy.start("a", "b", "c")
    heavy.end("b")
    assert set("".join(heavy.looks(20))) == {"a", "c"}
    heavy.end("a")
    heavy.end("c")
    heavy.looks(1)
    assert not loop.active, "with nobody in the line the loop sleeps"


def test_the_loop_does_not_sleep_while_somebody_waits_in_line(loop: Loop, heavy: Heavy) -> None:
    assert not loop.active
    heavy.start("a")
    assert loop.active
    assert loop.priority == loop.MAXPRI


def test_others_are_served_at_each_turn_of_a_real_loop() -> None:
    loop = get_hub().loop
    always_over = Turns(loop, lambda: float("inf"))
    reader, writer = socket.socketpair()
    order: list[str] = []
    with reader, writer:
        # It stays readable: each time the loop looks, it tells.
        writer.send(b"x")
        watcher = loop.io(reader.fileno(), READ)
        watcher.start(order.append, "served")
        for _ in range(50):
            always_over.give_way()
            order.append("went on")
        watcher.stop()
        watcher.close()
    assert order[:2] in (["went on", "served"], ["served", "went on"])
    assert order[:100] == order[:2] * 50 or order == [*order[:2] * 49, "went on"]


def test_who_waits_in_line_alone_does_not_wait_long() -> None:
    always_over = Turns(get_hub().loop, lambda: float("inf"))
    began = time.monotonic()
    for _ in range(200):
        always_over.give_way()
    assert time.monotonic() - began < 2.0


def test_each_thread_has_turns_of_its_own() -> None:
    found = []
    thread = threading.Thread(target=lambda: found.append(turns(get_hub())))
    thread.start()
    thread.join()
    assert turns(get_hub()) is turns(get_hub())
    assert turns(get_hub()) is not found[0]
