"""Bodies in both directions, their framing, and what comes before and after them."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from _pytest.mark import ParameterSet

from tests.kit.peers import Exchange, RawTarget, chunked, get, response, then_close, wait_until
from tests.kit.peers.raw_target import Reply
from tests.kit.server import Proxy

AddRoute = Callable[[str], str]

CHUNKED_HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"
DATA = bytes(range(256)) * 300


def post(path: str, *lines: str, method: str = "POST") -> bytes:
    """Return the head of a request with a body."""
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: a", *lines, "", ""]).encode()


@pytest.mark.parametrize(
    "method",
    ["POST", "PUT", "PATCH", "PROPFIND", "GET", "DELETE", "OPTIONS"],
)
@pytest.mark.parametrize("body", [b"", b"x", DATA], ids=["empty", "one byte", "75 KB"])
def test_a_body_with_a_length_arrives_with_that_length(
    proxy: Proxy, add_route: AddRoute, method: str, body: bytes
) -> None:
    with RawTarget() as target:
        head = post(add_route(target.url), f"Content-Length: {len(body)}", method=method)
        with proxy.client() as client:
            assert client.request(head + body).status == 200
        request = target.request
        assert request.body == body
        assert request.all("content-length") == [str(len(body))]
        assert request.get("transfer-encoding") is None


@pytest.mark.parametrize(
    "method",
    ["POST", "PUT", *(pytest.param(m, marks=pytest.mark.ours) for m in ("DELETE", "OPTIONS"))],
)
def test_a_chunked_body_stays_chunked(proxy: Proxy, add_route: AddRoute, method: str) -> None:
    with RawTarget() as target:
        head = post(add_route(target.url), "Transfer-Encoding: chunked", method=method)
        with proxy.client() as client:
            assert client.request(head + chunked(b"one", b"two", DATA)).status == 200
            # Whatever of the body were left over would be taken for the next request.
            assert client.request(get(target_path := head.split()[1].decode())).status == 200
        target.wait_for_requests(2)
        first, second = target.requests
        assert first.body == b"onetwo" + DATA
        assert (first.get("transfer-encoding") or "").lower() == "chunked"
        assert first.get("content-length") is None
        assert second.start == f"GET {target_path} HTTP/1.1"
        assert not target.errors


@pytest.mark.ours
def test_trailers_of_an_answer_are_passed_on_and_those_of_a_request_are_not(
    proxy: Proxy, add_route: AddRoute
) -> None:
    reply = CHUNKED_HEAD + b"Trailer: X-Down\r\n\r\n" + chunked(b"abc", trailers="X-Down: 2\r\n")
    with RawTarget(reply) as target:
        path = add_route(target.url)
        with proxy.client() as client:
            client.send(post(path, "Transfer-Encoding: chunked", "TE: trailers", "Trailer: X-Up"))
            answer = client.request(chunked(b"up", trailers="X-Up: 1\r\n"))
        assert target.request.body == b"up"
        assert target.request.trailers == []
    assert answer.body == b"abc"
    assert answer.trailers == [("X-Down", "2")]


def case(name: str, reply: Reply, body: bytes, *marks: pytest.MarkDecorator) -> ParameterSet:
    """Return one row of the table of response bodies."""
    return pytest.param(reply, body, id=name, marks=marks)


@pytest.mark.parametrize(
    ("reply", "body"),
    [
        case("length", response(DATA), DATA),
        case("empty", response(b""), b""),
        case("chunked", CHUNKED_HEAD + b"\r\n" + chunked(b"abc", DATA), b"abc" + DATA),
        case("chunked, empty", CHUNKED_HEAD + b"\r\n" + chunked(), b""),
        case("to the end", then_close(b"HTTP/1.1 200 OK\r\n\r\n" + DATA), DATA),
        case("to the end, empty", then_close(b"HTTP/1.1 200 OK\r\n\r\n"), b""),
        case("HTTP/1.0", then_close(b"HTTP/1.0 200 OK\r\n\r\nold"), b"old"),
        case(
            "HTTP/1.0 with keep-alive",
            b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\nConnection: keep-alive\r\n\r\nabc",
            b"abc",
        ),
        case(
            "to the end, with close",
            then_close(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nabc"),
            b"abc",
            pytest.mark.ours,
        ),
        case(
            "length, with close",
            b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc",
            b"abc",
            pytest.mark.ours,
        ),
    ],
)
@pytest.mark.parametrize("version", ["1.1", "1.0"])
def test_every_kind_of_response_body_arrives_whole(
    proxy: Proxy, add_route: AddRoute, reply: Reply, body: bytes, version: str
) -> None:
    with RawTarget(reply) as target:
        path = add_route(target.url)
        with proxy.client() as client:
            answer = client.request(f"GET {path} HTTP/{version}\r\nHost: a\r\n\r\n")
            assert (answer.status, answer.body) == (200, body)
            if version == "1.0":
                assert answer.framing != "chunked"
                client.assert_closed()
            else:
                assert answer.framing != "close", "the end of the body would be a guess"
                assert client.request(get("/_chp_healthz")).status == 200


def test_an_http_1_0_client_that_asks_for_it_keeps_its_connection(
    proxy: Proxy, add_route: AddRoute
) -> None:
    with RawTarget() as target:
        old = f"GET {add_route(target.url)} HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
        with proxy.client() as client:
            for _ in range(3):
                answer = client.request(old)
                assert answer.body == b"ok"
                assert (answer.get("connection") or "").lower() == "keep-alive"


@pytest.mark.parametrize(
    ("method", "reply"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"),
        ("HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
        ("HEAD", b"HTTP/1.1 200 OK\r\n\r\n"),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
        ("GET", b'HTTP/1.1 304 Not Modified\r\nETag: "x"\r\n\r\n'),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 77\r\n\r\n"),
    ],
)
def test_answers_without_a_body_keep_the_connection_in_step(
    proxy: Proxy, add_route: AddRoute, method: str, reply: bytes
) -> None:
    with RawTarget(reply) as target:
        path = add_route(target.url)
        with proxy.client() as client:
            for _ in range(3):
                answer = client.request(f"{method} {path} HTTP/1.1\r\nHost: a\r\n\r\n")
                assert answer.start == reply.split(b"\r\n")[0].decode()
                if b"Length: 1000" in reply:
                    assert answer.get("content-length") == "1000"
            assert client.request(get("/_chp_healthz")).body == b'{"status":"OK"}'


def test_pipelined_requests_are_answered_in_order(proxy: Proxy, add_route: AddRoute) -> None:
    with RawTarget(*(response(b"%d" % n) for n in range(4))) as target:
        path = add_route(target.url)
        with proxy.client() as client:
            client.send(
                get(path + "/0").encode()
                + post(path + "/1", "Content-Length: 3")
                + b"abc"
                + post(path + "/2", "Transfer-Encoding: chunked")
                + chunked(b"de", b"f")
                + get(path + "/3").encode()
            )
            assert [client.read_response().body for _ in range(4)] == [b"0", b"1", b"2", b"3"]
        assert [r.target for r in target.requests] == [f"{path}/{n}" for n in range(4)]
        assert [r.body for r in target.requests] == [b"", b"abc", b"def", b""]


def test_100_continue_reaches_the_client_before_it_sends_the_body(
    proxy: Proxy, add_route: AddRoute
) -> None:
    def reply(exchange: Exchange) -> None:
        assert exchange.request.get("expect") == "100-continue"
        exchange.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        exchange.send(response(exchange.read_body()))

    with RawTarget(reply) as target:
        head = post(add_route(target.url), "Content-Length: 5", "Expect: 100-continue")
        with proxy.client() as client:
            client.send(head)
            assert client.source.until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            answer = client.request(b"hello")
    assert answer.body == b"hello"
    assert answer.interim == []


@pytest.mark.ours
def test_a_target_that_refuses_an_expectation_is_never_sent_the_body(
    proxy: Proxy, add_route: AddRoute
) -> None:
    refusal = response(b"no", "413 Content Too Large", [("Connection", "close")])
    with RawTarget(then_close(refusal, read_body=False)) as target:
        head = post(add_route(target.url), "Content-Length: 5", "Expect: 100-continue")
        with proxy.client() as client:
            client.send(head)
            answer = client.read_response()
            assert (answer.status, answer.body, answer.interim) == (413, b"no", [])
        assert target.request.body == b""


@pytest.mark.ours
def test_early_hints_are_passed_on(proxy: Proxy, add_route: AddRoute) -> None:
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </s.css>; rel=preload\r\n\r\n"
    with RawTarget(hints + hints + response(b"page")) as target:
        answer = proxy.get(add_route(target.url))
    assert [(i.status, i.get("link")) for i in answer.interim] == [
        (103, "</s.css>; rel=preload"),
        (103, "</s.css>; rel=preload"),
    ]
    assert answer.body == b"page"


@pytest.mark.ours
def test_an_http_1_0_client_is_not_sent_interim_answers(proxy: Proxy, add_route: AddRoute) -> None:
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </s.css>; rel=preload\r\n\r\n"
    with RawTarget(hints + response(b"page")) as target, proxy.client() as client:
        answer = client.request(f"GET {add_route(target.url)} HTTP/1.0\r\n\r\n")
    assert answer.interim == []
    assert answer.body == b"page"


def test_both_sides_keep_their_connections(proxy: Proxy, add_route: AddRoute) -> None:
    with RawTarget() as target:
        path = add_route(target.url)
        with proxy.client() as client:
            for _ in range(5):
                assert client.request(get(path)).status == 200
        with proxy.client() as client:
            assert client.request(get(path)).status == 200
        assert {request.connection for request in target.requests} == {0}


@pytest.mark.ours
def test_a_target_that_closes_its_connection_does_not_close_the_clients(
    proxy: Proxy, add_route: AddRoute
) -> None:
    with RawTarget(response(headers=[("Connection", "close")])) as target:
        path = add_route(target.url)
        with proxy.client() as client:
            for _ in range(3):
                answer = client.request(get(path))
                assert answer.status == 200
            assert client.request(get("/_chp_healthz")).status == 200
        assert target.accepted == 3


def test_an_answer_that_begins_before_the_body_has_been_read_is_passed_on_at_once(
    proxy: Proxy, add_route: AddRoute
) -> None:
    def reply(exchange: Exchange) -> None:
        exchange.send(CHUNKED_HEAD + b"\r\n5\r\nearly\r\n")
        length = len(exchange.read_body())
        exchange.send(chunked(b"%d" % length))

    with RawTarget(reply) as target:
        path = add_route(target.url)
        with proxy.client() as client:
            client.send(post(path, "Content-Length: 10") + b"01234")
            answer = client.read_head()
            body = client.iter_body(answer)
            assert next(body) == b"early"
            client.send(b"56789")
            assert b"".join(body) == b"10"


def test_a_request_body_reaches_the_target_while_it_is_being_sent(
    proxy: Proxy, add_route: AddRoute
) -> None:
    half = threading.Event()

    def reply(exchange: Exchange) -> None:
        assert exchange.receive(5) == b"01234"
        half.set()
        assert exchange.receive(5) == b"56789"
        exchange.request.complete = True
        exchange.send(response())

    with RawTarget(reply) as target, proxy.client() as client:
        client.send(post(add_route(target.url), "Content-Length: 10") + b"01234")
        wait_until(half.is_set, 5, "the first half at the target")
        assert client.request(b"56789").status == 200
