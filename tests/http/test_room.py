"""Whose connections are closed first when a server is full."""

from __future__ import annotations

from chp_gevent.http.room import MOST, Turn, first_to_go, turn

NOW = 1000.0


class Connection:
    """A connection that has been silent for ``seconds``; None while it is being answered."""

    def __init__(
        self, seconds: float | None, *, proven: bool = True, regulars_stay: bool = False
    ) -> None:
        self._seconds, self._proven, self._regulars_stay = seconds, proven, regulars_stay

    def turn(self, now: float) -> Turn | None:
        if self._seconds is None:
            return None
        since = now - self._seconds
        return turn(since, now, proven=self._proven, regulars_stay=self._regulars_stay)


def order(*connections: Connection) -> list[int]:
    """Return the numbers of those that go, in that order."""
    chosen = [connection for _, connection in first_to_go(connections, NOW)]
    return [connections.index(each) for each in reversed(chosen)]


def test_the_longest_idle_goes_first() -> None:
    assert order(Connection(1), Connection(4), Connection(3)) == [1, 2, 0]


def test_who_is_being_answered_never_goes() -> None:
    assert order(Connection(None), Connection(1), Connection(None)) == [1]
    assert order(Connection(None)) == []


def test_who_has_never_asked_though_there_was_time_goes_before_who_may_ask_again() -> None:
    silent, idle, newcomer = (
        Connection(3, proven=False),
        Connection(50),
        Connection(1, proven=False),
    )
    assert order(newcomer, idle, silent) == [2, 1, 0]


def test_who_was_answered_just_now_goes_last_where_regulars_stay() -> None:
    regular, idle = Connection(1, regulars_stay=True), Connection(3, regulars_stay=True)
    newcomer, silent = Connection(0.1, proven=False), Connection(2.5, proven=False)
    assert order(regular, newcomer, idle, silent) == [3, 2, 1], "and not with those of before"
    assert order(regular, Connection(0.5, regulars_stay=True)) == [0, 1]
    assert order(Connection(1), newcomer, Connection(3), silent) == [3, 2, 0, 1]


def test_newcomers_go_when_there_is_nobody_else() -> None:
    assert order(Connection(0.1, proven=False), Connection(0.5, proven=False)) == [1, 0]


def test_equally_silent_ones_go_in_any_order() -> None:
    assert sorted(order(Connection(1), Connection(1), Connection(1))) == [0, 1, 2]


def test_some_are_chosen_at_once() -> None:
    many = [Connection(seconds) for seconds in range(3 * MOST)]
    assert order(*many) == list(range(3 * MOST - 1, 2 * MOST - 1, -1))
