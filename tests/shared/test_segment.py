"""The shared segment: what one process writes, the others see."""

from __future__ import annotations

import os

import pytest

from chp_gevent.shared import segment as layout
from chp_gevent.shared.segment import (
    GAUGES,
    GENERATION,
    OPEN_CONNECTIONS,
    OPEN_TUNNELS,
    PAGE,
    REQUESTS_WEB,
    ROW_LENGTH,
    ROW_WORDS,
    STATUS,
    STATUS_CODES,
    WORD,
    Segment,
    reset_gauges,
)


def test_another_process_sees_every_part() -> None:
    segment = Segment(rows=2, routes=10)
    child = os.fork()
    if child == 0:
        segment.words[GENERATION] = 2**64 - 1
        segment.row(1)[REQUESTS_WEB] += 1
        segment.activity[9] = 1700000000.123
        os._exit(0)
    os.waitpid(child, 0)
    assert segment.words[GENERATION] == 2**64 - 1
    assert segment.row(1)[REQUESTS_WEB] == 1
    assert segment.row(0)[REQUESTS_WEB] == 0
    assert segment.activity[9] == 1700000000.123


def test_rows_share_no_words() -> None:
    segment = Segment(rows=3, routes=1)
    for index in range(3):
        row = segment.row(index)
        for word in range(len(row)):
            row[word] = index + 1
    assert all(set(segment.row(index)) == {index + 1} for index in range(3))
    assert segment.activity[0] == 0
    *others, number = segment.words
    assert number == segment.layout == layout.LAYOUT
    assert not any(others)


@pytest.mark.parametrize("index", [-1, 3, 64])
def test_there_is_no_row_outside_the_segment(index: int) -> None:
    with pytest.raises(IndexError):
        Segment(rows=3, routes=1).row(index)


@pytest.mark.parametrize("name", [*layout.ROW_WORDS, *layout.HEADER_WORDS])
def test_every_name_has_its_constant(name: str) -> None:
    if name[-2:] in ("_0", "_1"):
        name, file = name[:-2], int(name[-1])
        expected = getattr(layout, name.upper()) + file
        assert layout.HEADER_WORDS[expected] == f"{name}_{file}"
    else:
        words: tuple[str, ...] = layout.HEADER_WORDS
        if name in layout.ROW_WORDS:
            words = layout.ROW_WORDS
        if name.startswith("target_errors_"):
            assert words[layout.TARGET_ERRORS[name.removeprefix("target_errors_")]] == name
            return
        assert words[getattr(layout, name.upper())] == name


def test_every_status_of_three_digits_has_a_counter_of_its_own() -> None:
    row = Segment(rows=1, routes=1).row(0)
    for code in STATUS_CODES:
        row[STATUS + code] += 1
    assert sum(row) == len(STATUS_CODES) == 1000
    assert not any(row[: len(ROW_WORDS)])


def test_workers_write_to_pages_of_their_own() -> None:
    assert ROW_LENGTH * WORD % PAGE == 0


def test_a_new_worker_keeps_the_counters_and_resets_the_gauges() -> None:
    row = Segment(rows=1, routes=1).row(0)
    for word in range(ROW_LENGTH):
        row[word] = 7
    reset_gauges(row)
    assert {OPEN_CONNECTIONS, OPEN_TUNNELS} <= set(GAUGES)
    assert all(row[word] == (0 if word in GAUGES else 7) for word in range(ROW_LENGTH))


def test_room_for_a_million_routes_takes_no_memory_until_used() -> None:
    def resident() -> int:
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1]) * PAGE

    before = resident()
    segment = Segment()
    segment.activity[999_999] = 1.0
    assert resident() - before < 1_000_000
