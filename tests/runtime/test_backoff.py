"""Pauses between attempts."""

from __future__ import annotations

from chp_gevent.runtime.backoff import Backoff


class Clock:
    """Time that passes when a test says so."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_pauses_double_up_to_the_longest() -> None:
    clock = Clock()
    backoff = Backoff(first=0.25, longest=3.0, clock=clock)
    pauses = []
    for _ in range(6):
        assert backoff.is_over
        pauses.append(backoff.failed())
        assert not backoff.is_over
        clock.now += pauses[-1]
    assert pauses == [0.25, 0.5, 1.0, 2.0, 3.0, 3.0]


def test_several_failures_of_one_attempt_are_one() -> None:
    clock = Clock()
    backoff = Backoff(first=1.0, clock=clock)
    assert [backoff.failed() for _ in range(5)] == [1.0] * 5
    clock.now += 1.0
    assert backoff.failed() == 2.0


def test_after_a_success_the_next_pause_is_the_first_one() -> None:
    clock = Clock()
    backoff = Backoff(first=1.0, clock=clock)
    backoff.failed()
    clock.now += 1.0
    backoff.failed()
    backoff.succeeded()
    assert backoff.is_over
    assert backoff.failed() == 1.0


def test_a_pause_without_a_failure_leaves_the_next_one_as_it_is() -> None:
    clock = Clock()
    backoff = Backoff(first=1.0, clock=clock)
    backoff.wait(0.5)
    assert not backoff.is_over
    clock.now += 0.5
    assert backoff.is_over
    assert backoff.failed() == 1.0
