"""When the next attempt to get a certificate may be."""

from __future__ import annotations

import pytest

from chp_gevent.acme.state import Fault, State, latest_renewal_time, load, renewal_time

DAY = 86_400.0
HOUR = 3600.0


def least(low: float, high: float) -> float:
    """A random number that is the smallest there can be."""
    return low


def most(low: float, high: float) -> float:
    """A random number that is the largest there can be."""
    return high


def test_attempts_that_are_refused_stay_within_the_limit_of_lets_encrypt() -> None:
    """5 failed validations an hour for each name of an account."""
    state, now, attempts = State(), 0.0, []
    while now < 2 * DAY:
        attempts.append(now)
        state = state.failed(Fault.REFUSED, "no", now, uniform=least)
        now += state.pause(now)
    assert max(sum(start <= each < start + HOUR for each in attempts) for start in attempts) == 4
    assert sum(each >= DAY for each in attempts) <= 3


def test_a_ca_that_is_down_is_asked_soon_and_then_less_and_less() -> None:
    state, now, pauses = State(), 0.0, []
    for _ in range(12):
        state = state.failed(Fault.UNREACHABLE, "down", now, uniform=least)
        pauses.append(state.pause(now))
        now += pauses[-1]
    assert pauses[:3] == [5, 10, 20]
    assert pauses[-1] == HOUR
    assert pauses == sorted(pauses)


def test_not_everybody_comes_at_once() -> None:
    early = State().failed(Fault.REFUSED, "no", 0, uniform=least).pause(0)
    late = State().failed(Fault.REFUSED, "no", 0, uniform=most).pause(0)
    assert (early, round(late, 6)) == (300, 330)


def test_failures_of_another_kind_begin_anew() -> None:
    state = State()
    for _ in range(5):
        state = state.failed(Fault.UNREACHABLE, "down", 0, uniform=least)
    assert state.failed(Fault.REFUSED, "no", 0, uniform=least).pause(0) == 300


def test_retry_after_is_obeyed_within_reason() -> None:
    limited = State().failed(Fault.REFUSED, "too many", 0, retry_after=7 * DAY, uniform=least)
    assert limited.pause(0) == 7 * DAY
    mad = State().failed(Fault.REFUSED, "too many", 0, retry_after=1e9, uniform=least)
    assert mad.pause(0) == 8 * DAY
    short = State().failed(Fault.REFUSED, "too many", 0, retry_after=1, uniform=least)
    assert short.pause(0) == 300


def test_a_failure_that_lies_in_the_future_was_a_wrong_clocks() -> None:
    state = State().failed(Fault.REFUSED, "no", 10 * 365 * DAY)
    assert state.pause(DAY) == 0


def test_another_certificate_has_nothing_to_wait_for() -> None:
    state = State(wanted="ca a").failed(Fault.REFUSED, "no", 0)
    assert state.wanting("ca a").pause(0) > 0
    assert state.wanting("ca a b").pause(0) == 0


def test_it_survives_its_file() -> None:
    state = State(wanted="ca a", order="https://ca/1").failed(Fault.REFUSED, "nö", 12.5)
    assert load(state.dump()) == state
    assert load("{}") == State()
    assert load('{"unknown": 1, "not_before": 3}') == State(not_before=3)


@pytest.mark.parametrize(
    "text", ["", "[]", "nonsense", '{"failures": "3"}', '{"failed_at": true}', '{"order": null}']
)
def test_a_file_with_something_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        load(text)


def test_renewal_is_due_when_a_third_is_left() -> None:
    assert renewal_time(0, 90 * DAY, least) == 60 * DAY
    assert renewal_time(0, 90 * DAY, most) == pytest.approx(57 * DAY)
    assert latest_renewal_time(0, 90 * DAY) == 75 * DAY
