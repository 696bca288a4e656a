"""What attackers send is refused, or reaches the target as exactly one request."""

from __future__ import annotations

import contextlib
import select
import threading
from collections.abc import Callable, Iterator

import pytest

from tests.kit.hostile_cases import Case, forwarded, message
from tests.kit.hostile_requests import CASES
from tests.kit.peers import RawClient, RawTarget, Response, get, response, wait_until
from tests.kit.server import Proxy, start_proxy

pytestmark = pytest.mark.ours

EMPTY = response(b"")
MARK = forwarded("GET /mark HTTP/1.1")


@pytest.fixture
def target(proxy: Proxy) -> Iterator[RawTarget]:
    """A fresh target that the only route, /, leads to."""
    with RawTarget(EMPTY) as target:
        proxy.api.add("/", target.url)
        yield target
        proxy.api.remove("/")


def received_by(target: RawTarget) -> bytes:
    """Return everything that the target has been sent, on all its connections."""
    return b"".join(map(bytes, target.received))


def answers(client: RawClient, count: int) -> list[Response]:
    """Read answers of which none has a body that depends on the method."""
    return [client.read_response() for _ in range(count)]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_hostile_request_is_refused_or_forwarded_in_canonical_form(
    proxy: Proxy, target: RawTarget, case: Case
) -> None:
    expected = case.seen
    with proxy.client() as client:
        with contextlib.suppress(ConnectionError):
            # A server that has seen enough need not take the rest.
            client.send(case.raw)
        found = answers(client, len(case.statuses))
        assert tuple(answer.status for answer in found) == case.statuses
        says_close = (found[-1].get("connection") or "").lower() == "close"
        assert says_close is case.closed
        if case.closed:
            client.assert_closed()
        else:
            # What the server takes for the next request is the next one.
            assert client.request(message("GET /mark HTTP/1.1", "Host: a")).status == 200
            expected += MARK
    assert received_by(target) == expected
    assert target.errors == []


def test_there_are_enough_cases_and_none_twice() -> None:
    assert len({case.raw for case in CASES}) == len(CASES) >= 150


SHORT = [case for case in CASES if case.closed and len(case.raw) < 1000]


@pytest.mark.parametrize("case", SHORT[::3], ids=lambda case: case.name)
def test_a_refusal_is_the_same_when_the_request_comes_byte_by_byte(
    proxy: Proxy, target: RawTarget, case: Case
) -> None:
    with proxy.client() as client:
        with contextlib.suppress(ConnectionError):
            for i in range(len(case.raw)):
                client.send(case.raw[i : i + 1])
        found = answers(client, len(case.statuses))
        assert tuple(answer.status for answer in found) == case.statuses
        client.assert_closed()
    good = case.seen.count(b"HTTP/1.1")
    assert not any(request.complete for request in target.requests[good:])


# -- bodies that turn out malformed when their beginning is with the target already


@pytest.mark.parametrize(
    "behind",
    [b"5 \r\n", b"-1\r\n", b"\r\n", b"x", b"0\r\nX : y\r\n\r\n", b"0\r\n" + b"X: y\r\n" * 4000],
    ids=lambda behind: repr(behind[:20]),
)
def test_a_body_that_turns_out_malformed_is_never_finished(
    proxy: Proxy, target: RawTarget, behind: bytes
) -> None:
    head = message("POST / HTTP/1.1", "Host: a", "Transfer-Encoding: chunked")
    with proxy.client() as client:
        client.send(head + b"5\r\nabcde\r\n")
        wait_until(lambda: b"abcde" in received_by(target), 5, "the body has begun to arrive")
        client.send(behind)
        assert client.read_response().status in (400, 431)
        client.assert_closed()
    target.wait_for_connections(0)
    assert not target.request.complete


# -- requests that never end


@pytest.fixture(scope="module")
def impatient() -> Iterator[Proxy]:
    """A server that gives clients half a second to send a head."""
    with start_proxy("--header-timeout", "0.5") as proxy:
        yield proxy


@pytest.mark.parametrize(
    "part",
    [b"G", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nHost: a\r\n", b"\r\n", b"G\xc9T\x00 "],
    ids=repr,
)
def test_a_head_that_does_not_come_to_its_end_is_a_408(impatient: Proxy, part: bytes) -> None:
    with impatient.client() as client:
        client.send(part)
        assert client.read_response().status == 408
        client.assert_closed()


def test_a_head_that_comes_drop_by_drop_is_a_408(impatient: Proxy) -> None:
    with impatient.client() as client:
        client.send("GET / HTTP/1.1\r\nX: ")
        drops = 0
        while not select.select([client.socket], [], [], 0.05)[0]:
            client.send("X")
            drops += 1
        assert 1 < drops < 40
        assert client.read_response().status == 408
        client.assert_closed()


def test_a_slow_second_head_is_a_408_too(impatient: Proxy) -> None:
    with impatient.client() as client:
        assert client.request(get("/_chp_healthz")).status == 200
        client.send("GET /")
        assert client.read_response().status == 408
        client.assert_closed()


# -- routing


@pytest.mark.parametrize(
    "path",
    [
        "/private",
        "/private/a",
        "/%70rivate/a",
        "/x/../private/a",
        "/x/%2e%2E/private/a",
        "/./private",
        "/private/../private/a",
        "/x\\..\\private\\a",
        "/private%2fa",
        "/private/%00",
        "/private/%E9/%/\xe9",
        "/%C0%AE/../private/%zz",
        "//host/private/a",
        "//[/private/a",
        "http://a/private/a",
        "http://a/x/../private",
    ],
)
def test_a_path_is_routed_in_normal_form_and_forwarded_as_sent(
    proxy: Proxy, target: RawTarget, path: str
) -> None:
    with RawTarget(EMPTY) as private:
        proxy.api.add("/private", private.url)
        try:
            with proxy.client() as client:
                assert client.request(message(f"GET {path} HTTP/1.1", "Host: a")).status == 200
        finally:
            proxy.api.remove("/private")
        assert private.request.target == path.removeprefix("http://a")
        assert target.requests == []


@pytest.mark.parametrize(
    "path",
    [
        *"/privat /privatex /Private /private/../x /private%00 /private%20 /x/private".split(),
        *"/private/%2e%2e/x /private\\..\\x //private /%2570rivate /;/private".split(),
        *"/private%E9 /private% /%70%2 /%C0%AFprivate /x%c0%ae%c0%ae/../private%ff".split(),
    ],
)
def test_a_path_that_only_looks_like_a_route_does_not_lead_there(
    proxy: Proxy, target: RawTarget, path: str
) -> None:
    with RawTarget(EMPTY) as private:
        proxy.api.add("/private", private.url)
        try:
            with proxy.client() as client:
                assert client.request(message(f"GET {path} HTTP/1.1", "Host: a")).status == 200
        finally:
            proxy.api.remove("/private")
        assert private.requests == []
        assert target.request.target == path


# -- forged identities


@pytest.mark.parametrize(
    "name",
    "X-Forwarded-For X-Forwarded-Proto X-Forwarded-Host X-Forwarded-Prefix X_Forwarded_For "
    "Forwarded X-Real-IP X-Scheme X.Forwarded.For X'Real'IP X`Forwarded~Proto X^Scheme".split(),
)
def test_a_stranger_cannot_say_who_it_is(strict: Proxy, name: str) -> None:
    with RawTarget(EMPTY) as target:
        strict.api.add("/", target.url)
        with strict.client() as client:
            assert client.request(message("GET / HTTP/1.1", "Host: a", f"{name}: x")).status == 200
        assert received_by(target) == forwarded("GET / HTTP/1.1")


@pytest.fixture(scope="module")
def strict() -> Iterator[Proxy]:
    """A server that trusts other proxies than this machine."""
    with start_proxy("--trusted-proxies", "192.0.2.0/24") as proxy:
        yield proxy


# -- nobody else is harmed


def test_a_flood_of_requests_is_answered_one_by_one_in_order(
    proxy: Proxy, target: RawTarget
) -> None:
    count = 1000
    flood = b"".join(message(f"GET /{number} HTTP/1.1", "Host: a") for number in range(count))
    with proxy.client() as client:
        sender = threading.Thread(target=client.send, args=(flood,))
        sender.start()
        assert {answer.status for answer in answers(client, count)} == {200}
        sender.join()
    assert [request.target for request in target.requests] == [f"/{n}" for n in range(count)]


def test_a_client_that_sends_garbage_costs_another_nothing(proxy: Proxy, target: RawTarget) -> None:
    with proxy.client() as good:
        for case in CASES[::20]:
            with proxy.client() as bad:
                bad.send(case.raw)
                assert good.request(message("GET /mark HTTP/1.1", "Host: a")).status == 200


Reset = Callable[[RawClient], None]


@pytest.mark.parametrize("leave", [RawClient.close, RawClient.reset], ids=["FIN", "RST"])
@pytest.mark.parametrize(
    "part",
    [
        b"GET / HTTP/1.1\r\nHost: a\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n\r",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nabcd",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r",
    ],
    ids=["head", "head but one byte", "length", "chunks", "chunks but one byte"],
)
def test_half_a_request_never_passes_for_a_whole_one(
    proxy: Proxy, target: RawTarget, part: bytes, leave: Reset
) -> None:
    client = proxy.client()
    client.send(part)
    if b"\r\n\r\n" in part:
        target.wait_for_requests(1, complete=False)
    leave(client)
    target.wait_for_connections(0)
    assert proxy.get("/mark").status == 200
    assert [request.target for request in target.requests if request.complete] == ["/mark"]
