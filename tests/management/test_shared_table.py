"""The table of a server, as a store changes it that several servers share."""

from __future__ import annotations

import logging

import pytest

from chp_gevent.management.shared_table import PublishedTable
from chp_gevent.shared.journal import Journal
from chp_gevent.shared.publisher import Publisher
from chp_gevent.shared.segment import Segment
from chp_gevent.stores import TableFull

DATA = b'{"target":"http://127.0.0.1:9"}'


@pytest.fixture
def table(publisher: Publisher, segment: Segment, log: logging.Logger) -> PublishedTable:
    return PublishedTable(publisher, segment, log)


def test_routes_are_published_as_they_are(table: PublishedTable, publisher: Publisher) -> None:
    table.put("/a", DATA)
    table.put("/b", b'{"target":"http://127.0.0.1:9","strip_prefix":true}')
    table.remove("/a")
    table.remove("/nothing")
    assert len(table) == 1
    assert table.get("/a") is None
    assert table.items() == [("/b", b'{"target":"http://127.0.0.1:9","strip_prefix":true}')]
    options = publisher.routes["/b"].options
    assert options is not None
    assert options.strip_prefix


@pytest.mark.parametrize(
    ("path", "data", "why"),
    [
        ("/a", b"{", "Input data was truncated"),
        ("/a", b"[]", "Expected `object`, got `array`"),
        ("/a", b"{}", "it has no target"),
        ("/a", b'{"target":"ftp://x"}', "does not begin with one of http://"),
        ("/a", b'{"target":"http://x","timeout":-1}', "timeout"),
        ("a", DATA, "its path can't be one"),
        ("/\udce9", DATA, "its path can't be one"),
    ],
)
def test_what_can_be_no_route_is_left_out(
    table: PublishedTable, lines: list[str], path: str, data: bytes, why: str
) -> None:
    table.put(path, data)
    assert len(table) == 0
    (line,) = lines
    assert line.startswith("error: Shared route ")
    assert why in line


def test_a_table_that_is_full_says_so(segment: Segment, log: logging.Logger) -> None:
    small = Segment(rows=1, routes=1)
    publisher = Publisher(small, Journal(small))
    publisher.recover()
    table = PublishedTable(publisher, small, log)
    table.put("/a", DATA)
    with pytest.raises(TableFull):
        table.put("/b", DATA)
    table.put("/a", DATA)


def test_activity_is_told_once(log: logging.Logger) -> None:
    segment = Segment(rows=1, routes=1000)
    publisher = Publisher(segment, Journal(segment))
    publisher.recover()
    table = PublishedTable(publisher, segment, log)
    for number in range(900):
        table.put(f"/r{number}", DATA)
    assert table.used() == [], "the changes themselves have told it"
    for path, when in (("/r3", 1700000000.5), ("/r899", 1700000001.0)):
        segment.activity[publisher.routes[path].slot] = when
    assert table.used() == [("/r3", 1700000000500), ("/r899", 1700000001000)]
    assert table.used() == []
    segment.activity[publisher.routes["/r3"].slot] = 1700000002.0
    table.remove("/r3")
    assert table.used() == [], "nobody has it any more"


def test_what_another_process_has_published_is_told(
    publisher: Publisher, segment: Segment, log: logging.Logger
) -> None:
    publisher.add("/before", "http://127.0.0.1:9", DATA)
    table = PublishedTable(publisher, segment, log)
    assert [path for path, _ in table.used()] == ["/before"]


@pytest.mark.parametrize("ms", [1764226570501, 1001, 1700000000007])
def test_activity_that_is_given_stays_as_it_is(table: PublishedTable, ms: int) -> None:
    table.put("/a", DATA, ms)
    assert table.last_activity("/a") == ms
    assert table.last_activity("/nothing") == 0
