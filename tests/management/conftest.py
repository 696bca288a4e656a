"""A routing table, an API over it, and the lines that they log."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable
from typing import Any

import pytest

from chp_gevent.management.api import Api
from chp_gevent.management.counters import take_management_row
from chp_gevent.management.routes import Routes
from chp_gevent.shared.journal import Journal
from chp_gevent.shared.publisher import Publisher
from chp_gevent.shared.segment import Segment
from tests.kit.api_calls import Call, WsgiAnswer, call_wsgi

ROWS = 4


@pytest.fixture
def segment() -> Segment:
    """A segment for a few workers and routes."""
    return Segment(rows=ROWS, routes=100)


class Clock:
    """A clock that stands still until it is set; Unix time in seconds."""

    def __init__(self) -> None:
        self.now = 1_767_225_600.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    """The publisher's clock; it says 2026-01-01T00:00:00Z."""
    return Clock()


@pytest.fixture
def publisher(segment: Segment, clock: Clock) -> Publisher:
    """The publisher of an empty table."""
    publisher = Publisher(segment, Journal(segment), clock)
    publisher.recover()
    return publisher


@pytest.fixture
def routes(publisher: Publisher, segment: Segment, log: logging.Logger) -> Routes:
    """An empty table without a storage backend."""
    return Routes(publisher, segment.activity, log)


@pytest.fixture
def make_call(segment: Segment, log: logging.Logger) -> Callable[[Routes, str | None], Call]:
    """A function that returns one that calls the API of a table, with or without a token."""
    row = take_management_row(segment)

    def make(routes: Routes, token: str | None = None) -> Call:
        api = Api(routes, token, segment.words, row, log)

        def call(method: str, target: str, body: bytes = b"", **environ: Any) -> WsgiAnswer:
            return call_wsgi(api, method, target, **{"wsgi.input": io.BytesIO(body), **environ})

        return call

    return make


@pytest.fixture
def call(make_call: Callable[[Routes], Call], routes: Routes) -> Call:
    """Calls the API of the empty table, which needs no token."""
    return make_call(routes)
