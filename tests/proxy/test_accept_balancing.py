"""When a worker leaves a new connection to another one."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import pairwise

import pytest

from chp_gevent.proxy.accept_balancing import FairShare
from chp_gevent.shared.segment import ACCEPTING, OPEN_CONNECTIONS, OPEN_TUNNELS, ROW_WORDS


def row_of(connections: int, *, tunnels: int = 0, accepting: bool = True) -> memoryview[int]:
    row = memoryview(bytearray(8 * len(ROW_WORDS))).cast("Q")
    row[OPEN_CONNECTIONS], row[OPEN_TUNNELS], row[ACCEPTING] = connections, tunnels, accepting
    return row


@pytest.mark.parametrize(
    ("mine", "theirs", "pauses"),
    [
        (0, [0, 0], False),
        (1, [0, 0], False),
        (2, [0, 0], True),
        (2, [5, 0], True),
        (0, [5, 9], False),
        (125, [100], False),
        (127, [100], True),
    ],
)
def test_a_worker_with_a_quarter_and_one_more_than_another_pauses(
    mine: int, theirs: Sequence[int], pauses: bool
) -> None:
    share = FairShare(row_of(mine), [row_of(count) for count in theirs])
    assert (share.pause() > 0) == pauses


def test_tunnels_are_connections_too() -> None:
    assert FairShare(row_of(0, tunnels=9), [row_of(0)]).pause() > 0
    assert FairShare(row_of(9), [row_of(0, tunnels=9)]).pause() == 0


def test_a_worker_alone_never_pauses() -> None:
    assert FairShare(row_of(1000), []).pause() == 0


def test_workers_that_accept_nothing_any_more_do_not_count() -> None:
    assert FairShare(row_of(1000), [row_of(0, accepting=False)]).pause() == 0


def test_a_look_around_finds_those_that_serve_among_those_that_do_not() -> None:
    late = row_of(0, accepting=False)
    others = [*(row_of(0, accepting=False) for _ in range(20)), late]
    share = FairShare(row_of(1000), others)
    share.look_around()
    assert share.pause() == 0
    late[ACCEPTING] = 1
    share.look_around()
    assert share.pause() > 0
    late[ACCEPTING] = 0
    assert share.pause() == 0, "also before the next look"


def test_the_pause_grows_with_the_lead_up_to_a_limit() -> None:
    pauses = [FairShare(row_of(mine), [row_of(0)]).pause() for mine in (2, 4, 6, 100, 1000)]
    assert pauses == sorted(pauses)
    assert len(set(pauses)) == 4
    assert pauses[-1] <= 0.02


def test_after_a_pause_one_connection_is_taken() -> None:
    mine, theirs = row_of(10), row_of(0)
    share = FairShare(mine, [theirs])
    for _ in range(5):
        assert share.pause() > 0
        assert share.pause() == 0
        mine[OPEN_CONNECTIONS] += 1
        theirs[OPEN_CONNECTIONS] += 1


def test_a_worker_that_takes_none_is_waited_for_less_and_less() -> None:
    share = FairShare(row_of(100), [row_of(0)])
    pauses = [number for number in range(300) if share.pause() > 0]
    turns = [after - before - 1 for before, after in pairwise(pauses)]
    assert turns == [1, 2, 4, 8, 16, 32, 64, 64, 64]


def test_shares_are_even_although_the_kernel_wakes_some_more_often() -> None:
    rows = [row_of(0) for _ in range(4)]
    shares = [FairShare(row, [other for other in rows if other is not row]) for row in rows]
    paused_until = [0.0] * 4
    rng = random.Random(1)
    now, taken = 0.0, 0
    while taken < 64:
        now += 0.0001
        ready = [number for number in range(4) if paused_until[number] <= now]
        if not ready:
            continue
        number = rng.choices(ready, weights=[1000 >> 3 * number for number in ready])[0]
        pause = shares[number].pause()
        paused_until[number] = now + pause
        if not pause:
            rows[number][OPEN_CONNECTIONS] += 1
            taken += 1
    assert max(row[OPEN_CONNECTIONS] for row in rows) <= 1.5 * 16


@pytest.mark.parametrize(("theirs", "pauses"), [(99, True), (100, False)])
def test_a_full_worker_leaves_connections_to_whoever_has_room(theirs: int, pauses: bool) -> None:
    share = FairShare(row_of(100), [row_of(theirs)])
    assert (share.pause(full=True) > 0) == pauses
