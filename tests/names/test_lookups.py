"""One look-up per name, few at a time, the last places for names that are answered promptly."""

from __future__ import annotations

import errno
import socket

import pytest

from chp_gevent.names import lookups as module
from chp_gevent.names.addresses import Address
from chp_gevent.names.lookups import (
    ANSWER_LIFETIME,
    FAILURE_LIFETIME,
    MAX_NAMES,
    PLACES,
    PROMPT,
    RESERVED_PLACES,
    Answer,
    Lookup,
    Lookups,
)

GOOD = Answer((Address(socket.AF_INET, "127.0.0.1"),))
BAD = Answer(error=socket.gaierror(socket.EAI_NONAME, "Name or service not known"))
FOR_ALL = PLACES - RESERVED_PLACES


class Flag:
    """What waiters wait for."""

    is_set = False

    def set(self) -> None:
        self.is_set = True


class Desk:
    """Look-ups with a clock that is set by hand, and threads that end when they are told to."""

    def __init__(self) -> None:
        self.now = 0.0
        self.running: dict[str, Lookup[Flag]] = {}
        self.refusal: Exception | None = None
        self.lookups: Lookups[Flag] = Lookups(self._start, Flag, lambda: self.now)

    def _start(self, lookup: Lookup[Flag]) -> None:
        if self.refusal is not None:
            raise self.refusal
        assert lookup.name not in self.running
        self.running[lookup.name] = lookup

    def end(self, name: str, answer: Answer = GOOD, took: float = 0.01) -> None:
        """Have the thread of a look-up end."""
        self.lookups.finish(self.running.pop(name), answer, took)

    def know(self, name: str, took: float = 0.01) -> None:
        """Have a name looked up, and its answer forgotten again."""
        self.lookups.leave(self.lookups.join(name))
        self.end(name, took=took)
        self.now += ANSWER_LIFETIME


@pytest.fixture
def desk() -> Desk:
    """Nothing is known, and nothing runs."""
    return Desk()


def test_all_who_ask_for_a_name_wait_for_one_look_up(desk: Desk) -> None:
    first, second = desk.lookups.join("a"), desk.lookups.join("a")
    assert first is second
    assert list(desk.running) == ["a"]
    assert not first.finished.is_set
    desk.end("a")
    assert first.finished.is_set
    assert first.answer == GOOD


@pytest.mark.parametrize(("answer", "lifetime"), [(GOOD, ANSWER_LIFETIME), (BAD, FAILURE_LIFETIME)])
def test_an_answer_is_remembered_for_a_time(desk: Desk, answer: Answer, lifetime: float) -> None:
    desk.lookups.join("a")
    assert desk.lookups.remembered("a") is None
    desk.now = 3.0
    desk.end("a", answer)
    assert desk.lookups.remembered("a") == answer
    desk.now = 3.0 + lifetime - 0.01
    assert desk.lookups.remembered("a") == answer
    desk.now = 3.0 + lifetime
    assert desk.lookups.remembered("a") is None
    desk.lookups.join("a")
    assert list(desk.running) == ["a"]


def test_what_says_nothing_about_the_name_is_not_remembered(desk: Desk) -> None:
    lookup = desk.lookups.join("a")
    answer = Answer(error=OSError(24, "Too many open files"), lasting=False)
    desk.end("a", answer)
    assert lookup.answer == answer
    assert desk.lookups.remembered("a") is None


def test_a_look_up_that_nobody_waits_for_any_more_goes_on_and_is_of_use(desk: Desk) -> None:
    desk.lookups.leave(desk.lookups.join("a"))
    assert desk.lookups.join("a") is desk.running["a"]
    desk.end("a")
    assert desk.lookups.remembered("a") == GOOD


def test_the_age_of_a_look_up_counts_from_the_first_who_asked(desk: Desk) -> None:
    desk.now = 1.0
    desk.lookups.join("a")
    desk.now = 12.0
    assert desk.lookups.age(desk.lookups.join("a")) == 11.0


def test_unknown_names_leave_the_reserved_places_free(desk: Desk) -> None:
    waiting = [desk.lookups.join(f"unknown{number}") for number in range(PLACES + 10)]
    assert len(desk.running) == desk.lookups.running == FOR_ALL
    desk.end("unknown0")
    assert f"unknown{FOR_ALL}" in desk.running, "the oldest is next"
    assert len(desk.running) == FOR_ALL
    for name in list(desk.running):
        desk.end(name)
    for name in list(desk.running):
        desk.end(name)
    assert desk.lookups.running == 0
    assert all(lookup.answer == GOOD for lookup in waiting)


def test_names_that_hang_never_keep_a_prompt_one_waiting(desk: Desk) -> None:
    desk.know("hub")
    for number in range(10 * PLACES):
        desk.lookups.join(f"hangs{number}")
    desk.lookups.join("hub")
    assert "hub" in desk.running


def test_a_name_that_was_slow_once_has_no_reserved_place(desk: Desk) -> None:
    desk.know("slow", took=PROMPT + 0.01)
    for number in range(FOR_ALL):
        desk.lookups.join(f"hangs{number}")
    desk.lookups.join("slow")
    assert "slow" not in desk.running
    desk.end("hangs0")
    assert "slow" in desk.running


def test_prompt_names_are_served_first_but_all_places_are_the_limit(desk: Desk) -> None:
    for number in range(PLACES + 1):
        desk.know(f"prompt{number}")
    for number in range(PLACES):
        desk.lookups.join(f"prompt{number}")
    desk.lookups.join("unknown")
    desk.lookups.join(f"prompt{PLACES}")
    assert len(desk.running) == PLACES
    desk.end("prompt0")
    assert f"prompt{PLACES}" in desk.running
    desk.end("prompt1")
    assert "unknown" in desk.running


def test_what_nobody_waits_for_is_not_begun(desk: Desk) -> None:
    for number in range(FOR_ALL):
        desk.lookups.join(f"hangs{number}")
    first, second = desk.lookups.join("left"), desk.lookups.join("left")
    desk.lookups.leave(first)
    desk.end("hangs0")
    assert "left" in desk.running, "one still waits"
    late = desk.lookups.join("late")
    desk.lookups.leave(late)
    desk.end("hangs1")
    assert "late" not in desk.running
    assert desk.lookups.join("late") is not late
    desk.lookups.leave(second)


def test_without_a_thread_those_who_wait_are_told(desk: Desk) -> None:
    desk.refusal = OSError(errno.EAGAIN, "can't start new thread")
    lookup = desk.lookups.join("a")
    assert lookup.finished.is_set
    assert lookup.answer is not None
    assert lookup.answer.error is desk.refusal
    desk.lookups.leave(lookup)
    assert desk.lookups.running == 0
    desk.refusal = None
    desk.lookups.join("a")
    assert "a" in desk.running, "the next one tries again"


def test_a_bounded_number_of_names_is_remembered(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert MAX_NAMES > 1000
    monkeypatch.setattr(module, "MAX_NAMES", 3)
    for name in "abcd":
        desk.lookups.join(name)
        desk.end(name)
    assert [desk.lookups.remembered(name) is not None for name in "abcd"] == [
        False,
        True,
        True,
        True,
    ]
