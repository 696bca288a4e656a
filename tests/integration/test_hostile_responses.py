"""What broken and malicious targets answer harms nobody but those who asked them."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator

import pytest

from tests.kit.hostile_responses import CASES, Case, End, Verdict
from tests.kit.peers import (
    Exchange,
    Incomplete,
    RawClient,
    RawTarget,
    Response,
    get,
    response,
    stalled,
    then_close,
    then_reset,
)
from tests.kit.peers.raw_target import Reply
from tests.kit.server import Proxy, start_proxy

pytestmark = pytest.mark.ours

NEXT = response(b"next")
HOP_BY_HOP = {"proxy-authenticate", "proxy-connection", "te", "upgrade"}
UPGRADE = ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"]


@pytest.fixture
def target(proxy: Proxy) -> Iterator[RawTarget]:
    """A target that the only route, /, leads to."""
    with RawTarget(NEXT) as target:
        proxy.api.add("/", target.url)
        yield target
        proxy.api.remove("/")


def reply(case: Case) -> Reply:
    """Return what the target does in a case."""
    if case.end is End.FIN:
        return then_close(case.raw)
    if case.end is End.RST:
        return then_reset(case.raw)

    def send_and_wait(exchange: Exchange) -> None:
        try:
            exchange.send(case.raw)
        except ConnectionError:
            exchange.close()

    return send_and_wait


def answer_to(client: RawClient, case: Case) -> Response | None:
    """Send the first request and return its answer, None if it was cut off."""
    lines = UPGRADE if case.upgrade else []
    client.send(get("/first", *lines).replace("GET", case.method, 1))
    try:
        return client.read_response(case.method)
    except Incomplete:
        return None


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_hostile_answer_is_refused_or_cut_off_and_the_next_one_is_the_next(
    proxy: Proxy, target: RawTarget, case: Case
) -> None:
    target.script(reply(case), NEXT)
    with proxy.client() as client:
        answer = answer_to(client, case)
        check(answer, case)
        if answer is not None:
            assert client.request(get("/next")).body == b"next"
        else:
            client.assert_closed()
            assert proxy.get("/next").body == b"next"
    first, second = target.requests
    assert (first.target, second.target) == ("/first", "/next")
    assert (first.connection == second.connection) is case.reusable


def check(answer: Response | None, case: Case) -> None:
    """Fail unless an answer is what the verdict of its case allows."""
    if answer is None:
        assert case.verdict in (Verdict.CUT, Verdict.BROKEN)
    elif case.verdict is Verdict.PASSED:
        assert (answer.status, answer.body) == (case.status, case.body)
        assert not HOP_BY_HOP & set(answer.names())
        assert len(answer.all("content-length")) + len(answer.all("transfer-encoding")) <= 1
        assert answer.trailers == []
        if case.status == 204:
            assert "content-length" not in answer.names()
    else:
        assert case.verdict in (Verdict.REFUSED, Verdict.BROKEN)
        assert answer.status == 503
        assert b"EVIL" not in answer.body
    for interim in answer.interim if answer is not None else ():
        assert not {"content-length", "transfer-encoding", "set-cookie"} & set(interim.names())


def test_there_are_enough_cases_and_none_twice() -> None:
    assert len({(case.raw, case.method, case.end, case.upgrade) for case in CASES}) == len(CASES)
    assert len(CASES) >= 60


# -- clients that can't see an end but that of their connection


BROKEN = [case for case in CASES if case.verdict is Verdict.CUT]


@pytest.mark.parametrize("case", BROKEN, ids=lambda case: case.name)
def test_an_answer_that_was_cut_short_is_an_error_to_http_1_0_clients_too(
    proxy: Proxy, target: RawTarget, case: Case
) -> None:
    target.script(reply(case), NEXT)
    with proxy.client() as client:
        client.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n")
        with pytest.raises((ConnectionResetError, Incomplete)):
            read_http_1_0(client.socket)


def read_http_1_0(connection: socket.socket) -> bytes:
    """Read an answer until its connection ends; raises if that, or its length, tells a loss."""
    received = b""
    while piece := connection.recv(65536):
        received += piece
    head, _, body = received.partition(b"\r\n\r\n")
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:") and int(line.split(b":")[1]) > len(body):
            raise Incomplete(received)
    return body


# -- what comes when a part of the answer has been passed on already


@pytest.mark.parametrize(
    ("beginning", "behind"),
    [
        (b"Transfer-Encoding: chunked\r\n\r\n5\r\nbegun\r\n", b"5 \r\nEVIL!\r\n0\r\n\r\n"),
        (b"Transfer-Encoding: chunked\r\n\r\n5\r\nbegun\r\n", b"EVIL"),
        (b"Transfer-Encoding: chunked\r\n\r\n5\r\nbegun", b"EVIL"),
        (b"Transfer-Encoding: chunked\r\n\r\n5\r\nbegun\r\n", b"0\r\nX : y\r\n\r\n"),
        (b"Transfer-Encoding: chunked\r\n\r\n5\r\nbegun\r\n", b"0\r\n" + b"X: y\r\n" * 4000),
    ],
)
def test_an_answer_that_turns_out_malformed_is_cut_off(
    proxy: Proxy, target: RawTarget, beginning: bytes, behind: bytes
) -> None:
    go_on = threading.Event()
    first = b"HTTP/1.1 200 OK\r\n" + beginning
    target.script(stalled(go_on, first=first, then=behind), NEXT)
    with proxy.client() as client:
        client.send(get("/"))
        pieces = client.iter_body(client.read_head())
        assert next(pieces) == b"begun"
        go_on.set()
        with pytest.raises(Incomplete):
            next(pieces)
        client.assert_closed()
    assert proxy.get("/").body == b"next"


@pytest.mark.parametrize("end", [End.FIN, End.RST])
def test_an_answer_that_breaks_off_after_its_beginning_is_cut_off(
    proxy: Proxy, target: RawTarget, end: End
) -> None:
    go_on = threading.Event()

    def break_off(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nbegun\r\n")
        exchange.stall(go_on)
        if end is End.RST:
            exchange.reset()
        exchange.close()

    target.script(break_off, NEXT)
    with proxy.client() as client:
        client.send(get("/"))
        pieces = client.iter_body(client.read_head())
        assert next(pieces) == b"begun"
        go_on.set()
        with pytest.raises(Incomplete):
            next(pieces)


# -- answers before the request has ended


@pytest.mark.parametrize("framing", ["Content-Length: 10", "Transfer-Encoding: chunked"])
@pytest.mark.parametrize("end", [End.OPEN, End.FIN])
def test_an_answer_before_the_end_of_the_request_is_passed_on_and_ends_both_connections(
    proxy: Proxy, target: RawTarget, framing: str, end: End
) -> None:
    early = response(b"no", "413 Content Too Large")
    answered = threading.Event()

    def answer_at_once(exchange: Exchange) -> None:
        exchange.send(early)
        if end is End.FIN:
            exchange.close()
        else:
            exchange.stall(answered)

    target.script(answer_at_once, NEXT)
    with proxy.client() as client:
        client.send(f"POST /first HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n5\r\nab")
        answer = client.read_response()
        assert (answer.status, answer.body) == (413, b"no")
        assert answer.get("connection") == "close"
        client.assert_closed()
    answered.set()
    assert proxy.get("/next").body == b"next"
    first, second = target.requests
    assert not first.complete
    assert first.connection != second.connection


# -- answers that nobody asked for


class TalkativeTarget(RawTarget):
    """Sends an answer that nobody asked for after each of its own, when told to."""

    def __init__(self) -> None:
        super().__init__(response(b"asked for"))
        self.connections: list[socket.socket] = []

    def serve(self, connection: socket.socket, index: int) -> None:
        """Remember the connection, then serve it as any target does."""
        self.connections.append(connection)
        super().serve(connection, index)


@pytest.fixture
def talkative(proxy: Proxy) -> Iterator[TalkativeTarget]:
    """A talkative target that the only route, /, leads to."""
    with TalkativeTarget() as target:
        proxy.api.add("/", target.url)
        yield target
        proxy.api.remove("/")


UNASKED = response(b"EVIL")


@pytest.mark.parametrize("unasked", [UNASKED, b"\r\n", b"E"], ids=["answer", "CRLF", "byte"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_answer_that_nobody_asked_for_is_never_taken_for_one(
    proxy: Proxy, talkative: TalkativeTarget, unasked: bytes, method: str
) -> None:
    with proxy.client() as client:
        for number in range(5):
            length = f"Content-Length: 0\r\nX: {number}"
            answer = client.request(f"{method} / HTTP/1.1\r\nHost: a\r\n{length}\r\n\r\n")
            assert answer.body == b"asked for"
            talkative.connections[-1].sendall(unasked)
            talkative.wait_for_connections(0)
    assert talkative.accepted == 5


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_answer_that_arrived_unseen_while_the_worker_was_busy_is_never_taken_for_one(
    proxy: Proxy, talkative: TalkativeTarget, method: str
) -> None:
    request = f"{method} / HTTP/1.1\r\nHost: a\r\n\r\n"
    with proxy.client() as client:
        assert client.request(request).body == b"asked for"
        worker = proxy.worker_of(client)
        os.kill(worker, signal.SIGSTOP)
        try:
            talkative.connections[-1].sendall(UNASKED)
            client.send(request)
        finally:
            os.kill(worker, signal.SIGCONT)
        assert client.read_response().body == b"asked for"


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("reset", [False, True], ids=["FIN", "RST"])
def test_a_target_that_closed_unseen_while_the_worker_was_busy_costs_no_request(
    proxy: Proxy, talkative: TalkativeTarget, method: str, reset: bool
) -> None:
    request = f"{method} / HTTP/1.1\r\nHost: a\r\n\r\n"
    with proxy.client() as client:
        assert client.request(request).body == b"asked for"
        worker = proxy.worker_of(client)
        os.kill(worker, signal.SIGSTOP)
        try:
            talkative.drop_connections(reset=reset)
            talkative.wait_for_connections(0)
            client.send(request)
        finally:
            os.kill(worker, signal.SIGCONT)
        assert client.read_response().body == b"asked for"


# -- targets that never end


@pytest.fixture(scope="module")
def impatient() -> Iterator[Proxy]:
    """A server that gives targets half a second."""
    with start_proxy("--proxy-timeout", "500") as proxy:
        yield proxy


@pytest.mark.parametrize(
    "part",
    [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok", b"<html>"],
    ids=repr,
)
def test_a_head_that_does_not_come_to_its_end_is_a_503(impatient: Proxy, part: bytes) -> None:
    with RawTarget(stalled(threading.Event(), first=part), NEXT) as target:
        impatient.api.add("/", target.url)
        with impatient.client() as client:
            assert client.request(get("/")).status == 503
            assert client.request(get("/")).body == b"next"
        target.wait_for_connections(1)


@pytest.mark.parametrize("framing", ["Content-Length: 10", "Transfer-Encoding: chunked", "X: y"])
def test_a_body_that_does_not_come_to_its_end_is_cut_off(impatient: Proxy, framing: str) -> None:
    part = f"HTTP/1.1 200 OK\r\n{framing}\r\n\r\n5\r\nbegun".encode()
    with RawTarget(stalled(threading.Event(), first=part), NEXT) as target:
        impatient.api.add("/", target.url)
        with impatient.client() as client:
            client.send(get("/"))
            with pytest.raises(Incomplete):
                client.read_response()
        target.wait_for_connections(0)
