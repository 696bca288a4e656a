"""Clients that go away, and targets that die: the other side learns it, and nobody else."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from tests.kit.peers import (
    Exchange,
    Incomplete,
    RawClient,
    RawTarget,
    get,
    response,
    stalled,
    then_close,
    then_reset,
    wait_until,
)
from tests.kit.peers.raw_target import Reply
from tests.kit.server import Proxy, free_ports

AddRoute = Callable[[str], str]

NOTICED_WITHIN = 2.0
LEAVE = pytest.mark.parametrize("leave", [RawClient.close, RawClient.reset], ids=["FIN", "RST"])


@pytest.fixture
def never() -> Iterator[threading.Event]:
    """An event that a stalled target waits for in vain."""
    event = threading.Event()
    yield event
    event.set()


@LEAVE
def test_a_client_that_leaves_before_the_answer_frees_the_target(
    proxy: Proxy, add_route: AddRoute, never: threading.Event, leave: Callable[[RawClient], None]
) -> None:
    with RawTarget(stalled(never)) as target:
        client = proxy.client()
        client.send(get(add_route(target.url)))
        target.wait_for_requests(1)
        leave(client)
        target.wait_for_connections(0, NOTICED_WITHIN)


@LEAVE
def test_a_client_that_leaves_during_the_answer_frees_the_target(
    proxy: Proxy, add_route: AddRoute, never: threading.Event, leave: Callable[[RawClient], None]
) -> None:
    start = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\npart"
    with RawTarget(stalled(never, first=start)) as target:
        client = proxy.client()
        client.send(get(add_route(target.url)))
        assert next(client.iter_body(client.read_head())) == b"part"
        leave(client)
        target.wait_for_connections(0, NOTICED_WITHIN)


@LEAVE
def test_a_client_that_leaves_while_the_answer_floods_it_frees_the_target(
    proxy: Proxy, add_route: AddRoute, leave: Callable[[RawClient], None]
) -> None:
    def flood(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            exchange.send(bytes(65536))

    with RawTarget(flood) as target:
        client = proxy.client()
        client.send(get(add_route(target.url)))
        next(client.iter_body(client.read_head()))
        leave(client)
        target.wait_for_connections(0, NOTICED_WITHIN)


@LEAVE
@pytest.mark.parametrize(
    "framing", ["Content-Length: 1000", "Transfer-Encoding: chunked"], ids=["length", "chunked"]
)
def test_a_client_that_leaves_during_an_upload_frees_the_target(
    proxy: Proxy, add_route: AddRoute, leave: Callable[[RawClient], None], framing: str
) -> None:
    with RawTarget() as target:
        client = proxy.client()
        client.send(f"POST {add_route(target.url)} HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n")
        client.send("5\r\nhello\r\n")
        wait_until(lambda: target.received and b"hello" in target.received[0], 5, "upload begun")
        leave(client)
        target.wait_for_connections(0, NOTICED_WITHIN)
        assert not target.request.complete, "half an upload must not pass for a whole one"


@pytest.mark.ours
def test_a_client_that_leaves_while_the_target_reads_nothing_frees_the_target(
    proxy: Proxy, add_route: AddRoute, never: threading.Event
) -> None:
    with RawTarget(stalled(never)) as target:
        client = proxy.client(timeout=0.5)
        client.send(
            f"POST {add_route(target.url)} HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n"
        )
        with pytest.raises(TimeoutError):
            # More than all buffers on the way can hold.
            client.send(bytes(100_000_000))
        # An end would queue up behind the data that nobody takes.
        client.reset()
        target.wait_for_connections(0, NOTICED_WITHIN)


def dies_in_the_head(exchange: Exchange) -> None:
    """Send a part of a head and go."""
    exchange.send(b"HTTP/1.1 200 OK\r\nContent-")
    exchange.close()


@pytest.mark.parametrize(
    "reply",
    [then_close(b""), then_reset(), then_close(b"", read_body=False), dies_in_the_head],
    ids=["FIN", "RST", "FIN with the body unread", "in the head"],
)
@pytest.mark.parametrize("request_body", [b"", b"abc"])
def test_a_target_that_dies_before_it_answers_is_a_503(
    proxy: Proxy, add_route: AddRoute, reply: Reply, request_body: bytes
) -> None:
    with RawTarget(reply) as target:
        path = add_route(target.url)
        head = f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {len(request_body)}\r\n\r\n"
        with proxy.client() as client:
            assert client.request(head.encode() + request_body).status == 503
        proxy.wait_for_log(f"error: 503 POST {path}")


def test_a_target_that_nobody_listens_at_is_a_503(proxy: Proxy, add_route: AddRoute) -> None:
    path = add_route(f"http://127.0.0.1:{free_ports(1)[0]}")
    with proxy.client() as client:
        for _ in range(3):
            assert client.request(get(path + "?secret=1")).status == 503
    assert "secret" not in proxy.wait_for_log(f"error: 503 GET {path}")


@pytest.mark.parametrize(
    "head",
    [b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: "
     b"chunked\r\n\r\n4\r\n"],
    ids=["length", "chunked"],
)  # fmt: skip
@pytest.mark.parametrize("die", [then_close, then_reset])
@pytest.mark.ours
def test_a_target_that_dies_during_its_answer_cuts_the_clients_connection(
    proxy: Proxy, add_route: AddRoute, head: bytes, die: Callable[[bytes], Reply]
) -> None:
    with RawTarget(die(head + b"part")) as target:
        path = add_route(target.url)
        with proxy.client() as client, pytest.raises(Incomplete):
            client.request(get(path))


@pytest.mark.ours
def test_an_answer_cut_off_between_chunks_is_not_passed_off_as_complete(
    proxy: Proxy, add_route: AddRoute
) -> None:
    cut = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n"
    with RawTarget(then_close(cut)) as target:
        path = add_route(target.url)
        with proxy.client() as client:
            client.send(get(path))
            with pytest.raises(Incomplete):
                client.read_response()


def test_a_target_that_dies_costs_other_clients_nothing(proxy: Proxy, add_route: AddRoute) -> None:
    with RawTarget() as good, RawTarget(then_reset()) as bad:
        good_path, bad_path = add_route(good.url), add_route(bad.url)
        with proxy.client() as client:
            for _ in range(10):
                assert client.request(get(bad_path)).status == 503
                assert client.request(get(good_path)).status == 200


@pytest.mark.parametrize("reset", [False, True], ids=["FIN", "RST"])
def test_a_target_that_closed_its_idle_connections_costs_no_failed_request(
    proxy: Proxy, add_route: AddRoute, reset: bool
) -> None:
    with RawTarget() as target:
        path = add_route(target.url)
        with proxy.client() as client:
            for _ in range(10):
                assert client.request(get(path)).status == 200
                target.drop_connections(reset=reset)
                target.wait_for_connections(0)


def test_a_late_answer_is_never_taken_for_the_next_requests(
    proxy: Proxy, add_route: AddRoute
) -> None:
    go = threading.Event()
    with RawTarget(stalled(go, then=response(b"late")), response(b"next")) as target:
        path = add_route(target.url)
        client = proxy.client()
        client.send(get(path + "/first"))
        target.wait_for_requests(1)
        client.close()
        go.set()
        assert proxy.get(path + "/second").body == b"next"
