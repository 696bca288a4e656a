"""What statsd gets, and what happens when it is not there."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace

import gevent
import pytest

from chp_gevent.config.options import StatsdOptions
from chp_gevent.management import statsd as module
from chp_gevent.management.counters import API_ROUTE_ADD, API_ROUTE_DELETE, management_row
from chp_gevent.management.statsd import StatsdReporter
from chp_gevent.names import lookups
from chp_gevent.names.addresses import Address
from chp_gevent.names.resolver import Resolver
from chp_gevent.shared import segment as layout
from chp_gevent.shared.segment import STATUS, Segment


@pytest.fixture
def statsd() -> Iterator[socket.socket]:
    """A UDP socket that listens as statsd would."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.settimeout(5)
        yield sock


@pytest.fixture
def options(statsd: socket.socket) -> StatsdOptions:
    """Options that name that socket."""
    return StatsdOptions("127.0.0.1", statsd.getsockname()[1])


@pytest.fixture
def reporter(options: StatsdOptions, segment: Segment, log: logging.Logger) -> StatsdReporter:
    """Reports to that socket."""
    return StatsdReporter(options, segment, log)


def count_some(segment: Segment) -> None:
    """Count a few requests, as two workers and the API would."""
    for number in range(2):
        row = segment.row(number)
        row[layout.STARTS] = 1
        row[layout.REQUESTS_WEB] += 3
        row[STATUS + 200] += 2
        row[layout.FIND_TARGET_NS] += 3_000_000
        row[layout.FIND_TARGET_COUNT] += 3
    segment.row(0)[layout.REQUESTS_WS] += 1
    segment.row(0)[STATUS + 503] += 1
    own = management_row(segment)
    own[API_ROUTE_ADD] += 2
    own[API_ROUTE_DELETE] += 1
    own[STATUS + 201] += 2
    own[STATUS + 204] += 1


COUNTED = {
    "chp.requests.web:6|c",
    "chp.requests.ws:1|c",
    "chp.requests.200:4|c",
    "chp.requests.503:1|c",
    "chp.requests.api:3|c",
    "chp.api.route.add:2|c",
    "chp.api.route.delete:1|c",
    "chp.find_target_for_req:1.000000|ms",
}


def received(statsd: socket.socket) -> set[str]:
    """Return the lines of the next packet."""
    return set(statsd.recv(65536).decode().split("\n"))


def test_counters_and_timings_have_the_names_of_chp_4(
    statsd: socket.socket, reporter: StatsdReporter, segment: Segment
) -> None:
    count_some(segment)
    reporter.flush(0)
    assert received(statsd) == COUNTED


def test_only_what_is_new_is_sent(
    statsd: socket.socket, reporter: StatsdReporter, segment: Segment
) -> None:
    count_some(segment)
    reporter.flush(0)
    reporter.flush(1)
    count_some(segment)
    segment.row(1)[layout.ACTIVITY_NS] += 500_000
    segment.row(1)[layout.ACTIVITY_COUNT] += 2
    reporter.flush(2)
    assert received(statsd) == COUNTED
    assert received(statsd) == COUNTED | {"chp.last_activity_updating:0.250000|ms"}
    statsd.setblocking(False)
    with pytest.raises(BlockingIOError):
        statsd.recv(1)


def test_what_a_dead_management_process_counted_is_not_sent_again(
    statsd: socket.socket, options: StatsdOptions, segment: Segment, log: logging.Logger
) -> None:
    count_some(segment)
    reporter = StatsdReporter(options, segment, log)
    segment.row(0)[layout.REQUESTS_WEB] += 1
    reporter.flush(0)
    assert received(statsd) == {"chp.requests.web:1|c"}


@pytest.mark.parametrize(("prefix", "name"), [("a.b", "a.b.requests.web"), ("", "requests.web")])
def test_the_prefix_can_be_chosen(
    statsd: socket.socket,
    options: StatsdOptions,
    segment: Segment,
    log: logging.Logger,
    prefix: str,
    name: str,
) -> None:
    reporter = StatsdReporter(replace(options, prefix=prefix), segment, log)
    segment.row(0)[layout.STARTS] = 1
    segment.row(0)[layout.REQUESTS_WEB] = 1
    reporter.flush(0)
    assert received(statsd) == {f"{name}:1|c"}


def test_a_server_on_ipv6_is_found(segment: Segment, log: logging.Logger) -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as statsd:
        try:
            statsd.bind(("::1", 0))
        except OSError:
            pytest.skip("no IPv6 here")
        statsd.settimeout(5)
        options = StatsdOptions("::1", statsd.getsockname()[1])
        reporter = StatsdReporter(options, segment, log)
        count_some(segment)
        reporter.flush(0)
        assert received(statsd) == COUNTED


def test_a_port_that_nobody_listens_on_is_logged_once(
    statsd: socket.socket, reporter: StatsdReporter, segment: Segment, lines: list[str]
) -> None:
    port = statsd.getsockname()[1]
    statsd.close()
    for second in range(10):
        count_some(segment)
        reporter.flush(second)
    assert lines == [
        f"warn: Can't send metrics to statsd at 127.0.0.1:{port}: [Errno 111] Connection refused"
    ]


def test_a_name_that_does_not_exist_is_logged_once_and_looked_up_rarely(
    segment: Segment, log: logging.Logger, lines: list[str]
) -> None:
    asked = []

    def no_such_name(host: str) -> list[Address]:
        asked.append(host)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    options = StatsdOptions("nowhere.invalid")
    reporter = StatsdReporter(options, segment, log, Resolver(3, no_such_name))
    for second in range(29):
        reporter.flush(second)
    assert asked == ["nowhere.invalid"]
    reporter.flush(31)
    assert len(lines) == 1
    assert "nowhere.invalid:8125" in lines[0]


def test_a_name_that_is_not_answered_for_is_given_up(
    segment: Segment, log: logging.Logger, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LOOK_UP_TIMEOUT", 0.1)
    answered = threading.Event()

    def silent(host: str) -> list[Address]:
        answered.wait(20)
        return []

    options = StatsdOptions("silent.invalid")
    reporter = StatsdReporter(options, segment, log, Resolver(3, silent))
    try:
        with gevent.Timeout(10):
            reporter.flush(0)
    finally:
        answered.set()
    assert len(lines) == 1
    assert "name look-up timed out" in lines[0]


@pytest.mark.parametrize("order", [["127.0.0.1", "::1"], ["::1", "127.0.0.1"]])
def test_a_name_with_both_families_is_ipv4(
    statsd: socket.socket, segment: Segment, log: logging.Logger, order: list[str]
) -> None:
    found = [Address(socket.AF_INET6 if ":" in host else socket.AF_INET, host) for host in order]
    options = StatsdOptions("both.invalid", statsd.getsockname()[1])
    reporter = StatsdReporter(options, segment, log, Resolver(3, lambda name: found))
    count_some(segment)
    reporter.flush(0)
    assert received(statsd) == COUNTED


def test_a_server_that_comes_later_is_found(
    statsd: socket.socket, segment: Segment, log: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookups, "FAILURE_LIFETIME", 0)
    answers: list[OSError | list[Address]] = [
        socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"),
        [Address(socket.AF_INET, "127.0.0.1")],
    ]

    def look_up(name: str) -> list[Address]:
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer

    options = StatsdOptions("later.invalid", statsd.getsockname()[1])
    reporter = StatsdReporter(options, segment, log, Resolver(3, look_up))
    count_some(segment)
    reporter.flush(0)
    count_some(segment)
    reporter.flush(31)
    assert received(statsd) == COUNTED
