"""A server that has all the connections it may have."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from typing import Any

import gevent
import pytest

from chp_gevent.http.settings import ServerSettings
from tests.http.test_server import Sharing, application, plain_server
from tests.kit.peers import RawClient, get, wait_until
from tests.kit.server_thread import ServerThread


@pytest.fixture
def small(log: logging.Logger) -> Iterator[ServerThread]:
    """A server that may have three connections."""
    with plain_server(log, max_connections=3) as server:
        yield server


def answered(server: ServerThread, stack: ExitStack) -> RawClient:
    """Return a client that has had an answer, and keeps its connection."""
    client = stack.enter_context(RawClient(server.address))
    assert client.request(get("/one")).status == 200
    server.advance(0.01)
    return client


def test_a_newcomer_takes_the_place_of_the_longest_idle(
    small: ServerThread, lines: list[str]
) -> None:
    with ExitStack() as stack:
        clients = [answered(small, stack) for _ in range(3)]
        assert clients[0].request(get("/one")).status == 200
        answered(small, stack)
        clients[1].assert_closed()
        assert clients[0].request(get("/one")).status == 200
        assert clients[2].request(get("/one")).status == 200
        answered(small, stack)
        assert small.run(lambda: small.server.busy) == 3
    assert lines == [
        "warn: The test server has as many connections as it may: "
        "silent ones are closed to take others"
    ]


@pytest.mark.parametrize("part", ["", "GET / HTTP/1.1\r\nHost: h\r\n"])
def test_who_never_asks_cannot_lock_others_out(small: ServerThread, part: str) -> None:
    with ExitStack() as stack:
        kept = answered(small, stack)
        silent = [stack.enter_context(RawClient(small.address)) for _ in range(2)]
        for client in silent:
            client.send(part)
        wait_until(lambda: small.server.busy == 3, 5, "all are there")
        small.advance(2.1)
        for _ in range(2):
            answered(small, stack)
        for client in silent:
            client.assert_closed()
        assert kept.request(get("/one")).status == 200, "it has asked before"


def test_an_answer_is_never_cut_off_for_a_newcomer(log: logging.Logger, lines: list[str]) -> None:
    wakers: dict[str, Any] = {}

    def slow(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path != "/":
            waker = wakers[path] = gevent.get_hub().loop.async_()
            gevent.get_hub().wait(waker)
        start_response("200 OK", [])
        return [b"done"]

    with plain_server(log, slow, max_connections=2) as server, ExitStack() as stack:
        busy = [stack.enter_context(RawClient(server.address)) for _ in range(2)]
        for number, client in enumerate(busy):
            client.send(get(f"/{number}"))
        wait_until(lambda: len(wakers) == 2, 5, "both are being answered")
        waiting = stack.enter_context(RawClient(server.address))
        waiting.send(get("/"))
        wait_until(lambda: lines, 5, "somebody waits")
        assert not waiting.is_closed()
        assert server.run(lambda: server.server.busy) == 2
        wakers["/0"].send()
        assert busy[0].read_response().body == b"done"
        # Which is idle now; that is noticed by the next sweep.
        assert waiting.read_response().body == b"done"
        busy[0].assert_closed()
        wakers["/1"].send()
        assert busy[1].read_response().body == b"done"
    assert lines == ["warn: The test server has as many connections as it may: others wait"]


def test_a_request_that_has_just_come_is_answered_although_the_server_is_full(
    small: ServerThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ExitStack() as stack:
        clients = [answered(small, stack) for _ in range(3)]

        def send_and_make_room() -> None:
            # In a callback of the loop, which has not been told of what arrives here.
            clients[0].send(get("/one"))
            made.append(small.server._make_room())

        made: list[bool] = []
        small.run(lambda: gevent.get_hub().loop.run_callback(send_and_make_room))
        wait_until(lambda: made, 5, "room has been made")
        assert made == [True]
        assert clients[0].read_response().status == 200
        clients[1].assert_closed()


def test_a_full_server_leaves_newcomers_to_others_first(log: logging.Logger) -> None:
    asked = []

    class Full(Sharing):
        def pause_before_accepting(self, full: bool) -> float:
            asked.append(full)
            return 0.0

    with (
        ServerThread(application, Full(log), ServerSettings(max_connections=1)) as server,
        ExitStack() as stack,
    ):
        for _ in range(2):
            answered(server, stack)
    assert asked == [False, True]
