"""Upgrades on the wire: what is relayed, what is refused, and how tunnels end."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest

from tests.kit.peers import Exchange, RawClient, RawTarget, get, response, stalled, wait_until
from tests.kit.peers.upgrades import (
    KEY,
    SWITCHING,
    echo,
    receive,
    switched,
    switched_client,
    upgrade,
)
from tests.kit.processes import open_descriptors
from tests.kit.server import Proxy, free_ports

AddRoute = Callable[[str], str]

SOON = 1.0
"""Seconds within which the end of one side must have reached the other."""

LEAVE = pytest.mark.parametrize("leave", [RawClient.close, RawClient.reset], ids=["FIN", "RST"])


# -- the handshake


def test_the_request_is_relayed_with_its_upgrade_and_what_belongs_to_it(
    proxy: Proxy, add_route: AddRoute
) -> None:
    with RawTarget(switched(echo)) as target, proxy.client() as client:
        path = add_route(target.url) + "/kernel?a=%20b"
        switched_client(
            client,
            path,
            "Sec-WebSocket-Protocol: v1.kernel, v2.kernel",
            "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits",
            "Origin: http://proxy.test:8000",
            "Cookie: a=b; c=d",
        )
        request = target.request
        assert request.target == path
        assert (request.get("connection") or "").lower() == "upgrade"
        assert request.all("upgrade") == ["websocket"]
        assert request.all("host") == ["proxy.test:8000"]
        assert request.all("sec-websocket-version") == ["13"]
        assert request.all("sec-websocket-key") == [KEY]
        assert request.all("sec-websocket-protocol") == ["v1.kernel, v2.kernel"]
        assert request.all("sec-websocket-extensions") == [
            "permessage-deflate; client_max_window_bits"
        ]
        assert request.all("origin") == ["http://proxy.test:8000"]
        assert request.all("cookie") == ["a=b; c=d"]


def test_the_target_learns_where_an_upgrade_comes_from(proxy: Proxy, add_route: AddRoute) -> None:
    with RawTarget(switched(echo)) as target, proxy.client() as client:
        switched_client(client, add_route(target.url))
        assert target.request.all("x-forwarded-proto") == ["ws"]
        assert target.request.all("x-forwarded-for") == ["127.0.0.1"]
        assert target.request.all("x-forwarded-port") == ["8000"]
        # CHP sets X-Forwarded-Host on ordinary requests only.
        assert target.request.all("x-forwarded-host") == []


@pytest.mark.ours
def test_the_answer_of_the_target_reaches_the_client_byte_for_byte(
    proxy: Proxy, add_route: AddRoute
) -> None:
    answer = (
        b"HTTP/1.1 101 Web Socket Protocol Handshake\r\n"
        b"upgrade: WebSocket\r\nCONNECTION:upgrade\r\n"
        b"X-Odd:   spaced  \r\nX-Odd: twice\r\nSec-WebSocket-Extensions: permessage-deflate\r\n"
        b"\r\n"
    )
    with RawTarget(switched(echo, answer=answer)) as target, proxy.client() as client:
        client.send(upgrade(add_route(target.url)))
        assert receive(client, len(answer)) == answer


@pytest.mark.ours
def test_a_length_that_a_101_cannot_have_is_left_out(proxy: Proxy, add_route: AddRoute) -> None:
    """RFC 9110, 8.6; a client might wait for a body of that length."""
    answer = (
        b"HTTP/1.1 101 X\r\nUpgrade: websocket\r\nContent-Length: 5\r\nConnection: upgrade\r\n\r\n"
    )
    expected = answer.replace(b"Content-Length: 5\r\n", b"")
    with RawTarget(switched(echo, answer=answer)) as target, proxy.client() as client:
        client.send(upgrade(add_route(target.url)))
        assert receive(client, len(expected)) == expected
        client.send(b"ping")
        assert receive(client, 4) == b"ping"


@pytest.mark.ours
@pytest.mark.parametrize("status", ["200 OK", "403 Forbidden", "426 Upgrade Required"])
def test_a_target_that_does_not_switch_answers_as_to_any_request(
    proxy: Proxy, add_route: AddRoute, status: str
) -> None:
    with RawTarget(response(b"no tunnel", status)) as target, proxy.client() as client:
        path = add_route(target.url)
        refusal = client.request(upgrade(path))
        assert (f"{refusal.status} {refusal.reason}", refusal.body) == (status, b"no tunnel")
        target.script(response(b"an ordinary page"))
        assert client.request(get(path)).body == b"an ordinary page"


@pytest.mark.ours
def test_a_refusal_is_streamed(proxy: Proxy, add_route: AddRoute) -> None:
    chunked = b"HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n"
    with RawTarget(chunked) as target, proxy.client() as client:
        assert client.request(upgrade(add_route(target.url))).body == b"no"


def test_an_upgrade_without_a_route_is_answered_with_404_and_no_body(proxy: Proxy) -> None:
    with proxy.client() as client:
        answer = client.request(upgrade("/nowhere"))
    assert (answer.status, answer.get("content-length"), answer.body) == (404, "0", b"")


def test_an_upgrade_to_a_dead_target_is_answered_with_503_and_no_body(
    proxy: Proxy, add_route: AddRoute
) -> None:
    path = add_route(f"http://127.0.0.1:{free_ports(1)[0]}")
    with proxy.client() as client:
        answer = client.request(upgrade(path))
    assert (answer.status, answer.get("content-length"), answer.body) == (503, "0", b"")


def test_a_target_that_dies_before_it_answers_is_a_503(proxy: Proxy, add_route: AddRoute) -> None:
    with RawTarget(Exchange.reset) as target, proxy.client() as client:
        answer = client.request(upgrade(add_route(target.url)))
    assert (answer.status, answer.get("content-length"), answer.body) == (503, "0", b"")


@pytest.mark.ours
@LEAVE
def test_a_client_that_leaves_before_the_101_frees_the_target(
    proxy: Proxy, add_route: AddRoute, leave: Callable[[RawClient], None]
) -> None:
    with RawTarget(stalled(threading.Event())) as target:
        client = proxy.client()
        client.send(upgrade(add_route(target.url)))
        target.wait_for_requests(1)
        leave(client)
        target.wait_for_connections(0, 2.0)


# -- only WebSockets


@pytest.mark.ours
@pytest.mark.parametrize(
    "request_text",
    [
        pytest.param(
            lambda path: get(
                path,
                "Connection: Upgrade, HTTP2-Settings",
                "Upgrade: h2c",
                "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA",
            ),
            id="h2c",
        ),
        pytest.param(lambda path: upgrade(path, protocol="foo"), id="unknown"),
        pytest.param(
            lambda path: upgrade(path, "Content-Length: 0", method="POST"), id="post-websocket"
        ),
        pytest.param(lambda path: get(path, "Upgrade: websocket"), id="no-connection-option"),
    ],
)
def test_any_other_upgrade_is_served_as_a_request_without_it(
    proxy: Proxy, add_route: AddRoute, request_text: Callable[[str], str]
) -> None:
    with RawTarget(response(b"plain")) as target, proxy.client() as client:
        path = add_route(target.url)
        answer = client.request(request_text(path))
        assert (answer.status, answer.body) == (200, b"plain")
        assert target.request.all("upgrade") == []
        assert "upgrade" not in (target.request.get("connection") or "").lower()
        assert target.request.all("http2-settings") == []
        assert target.request.all("x-forwarded-proto") == ["http"]
        assert client.request(get(path)).body == b"plain"


@pytest.mark.ours
def test_a_target_that_switches_unasked_is_a_503(proxy: Proxy, add_route: AddRoute) -> None:
    with RawTarget(switched(echo)) as target, proxy.client() as client:
        answer = client.request(get(add_route(target.url)))
    assert answer.status == 503


# -- early bytes


@pytest.mark.ours
def test_what_the_client_sends_before_the_101_arrives_in_order(
    proxy: Proxy, add_route: AddRoute
) -> None:
    arrived = threading.Event()

    def reply(exchange: Exchange) -> None:
        arrived.wait(5)
        switched(echo)(exchange)  # type: ignore[operator]

    with RawTarget(reply) as target, proxy.client() as client:
        client.send(upgrade(add_route(target.url)) + "with the handshake, ")
        target.wait_for_requests(1)
        client.send("before the answer, ")
        arrived.set()
        assert client.read_head().raw == SWITCHING
        client.send("after it")
        expected = b"with the handshake, before the answer, after it"
        assert receive(client, len(expected)) == expected


@pytest.mark.ours
def test_a_large_early_message_arrives_whole(proxy: Proxy, add_route: AddRoute) -> None:
    message = random.randbytes(3_000_000)
    go = threading.Event()

    def reply(exchange: Exchange) -> None:
        go.wait(5)
        switched(lambda exchange: received.append(exchange.receive(len(message))))(exchange)  # type: ignore[operator]

    received: list[bytes] = []
    with RawTarget(reply) as target, proxy.client() as client:
        client.send(upgrade(add_route(target.url)))
        target.wait_for_requests(1)
        sender = threading.Thread(target=client.send, args=(message,))
        sender.start()
        go.set()
        client.read_head()
        client.read_to_end()
        sender.join()
    assert received == [message]


def test_what_the_target_sends_in_the_packet_of_the_101_arrives_behind_it(
    proxy: Proxy, add_route: AddRoute
) -> None:
    with RawTarget(switched(echo, early=b"early, ")) as target, proxy.client() as client:
        switched_client(client, add_route(target.url))
        client.send("echoed")
        assert receive(client, 13) == b"early, echoed"


# -- how tunnels end


def test_a_client_that_shut_its_writing_still_receives(proxy: Proxy, add_route: AddRoute) -> None:
    def answer_at_the_end(exchange: Exchange) -> None:
        question = b"".join(exchange.source.pieces_to_end())
        exchange.send(b"you said " + question)

    with RawTarget(switched(answer_at_the_end)) as target, proxy.client() as client:
        switched_client(client, add_route(target.url))
        client.send("everything")
        client.half_close()
        assert client.read_to_end() == b"you said everything"


@pytest.mark.ours
def test_a_target_that_shut_its_writing_still_receives(proxy: Proxy, add_route: AddRoute) -> None:
    received: list[bytes] = []

    def end_and_listen(exchange: Exchange) -> None:
        exchange.send(b"goodbye")
        exchange.half_close()
        received.append(b"".join(exchange.source.pieces_to_end()))

    with RawTarget(switched(end_and_listen)) as target, proxy.client() as client:
        switched_client(client, add_route(target.url))
        assert client.read_to_end() == b"goodbye"
        client.send("last words")
        client.close()
        target.wait_for_connections(0)
    assert received == [b"last words"]


@LEAVE
def test_a_client_that_leaves_ends_the_connection_of_the_target(
    proxy: Proxy, add_route: AddRoute, leave: Callable[[RawClient], None]
) -> None:
    with RawTarget(switched(echo)) as target:
        leave(switched_client(proxy.client(), add_route(target.url)))
        target.wait_for_connections(0, SOON)


@pytest.mark.parametrize(
    "reset",
    [
        pytest.param(False, id="FIN"),
        pytest.param(True, id="RST", marks=pytest.mark.ours),  # CHP sends a 503 into the tunnel
    ],
)
def test_a_target_that_leaves_ends_the_connection_of_the_client(
    proxy: Proxy, add_route: AddRoute, reset: bool
) -> None:
    leave = Exchange.reset if reset else Exchange.close
    with RawTarget(switched(leave)) as target, proxy.client() as client:
        switched_client(client, add_route(target.url))
        client.assert_closed(SOON)


# -- what is counted


@pytest.mark.ours
def test_data_in_either_direction_is_activity(proxy: Proxy, add_route: AddRoute) -> None:
    speak = threading.Event()

    def listen_then_speak(exchange: Exchange) -> None:
        exchange.receive(5)
        speak.wait(5)
        exchange.send(b"hello")
        exchange.source.at_end()

    with RawTarget(switched(listen_then_speak)) as target, proxy.client() as client:
        path = add_route(target.url)
        switched_client(client, path)
        before = later_than(last_activity(proxy, path))
        client.send("hello")
        wait_until(lambda: last_activity(proxy, path) >= before, 2, "activity of the client")
        before = later_than(last_activity(proxy, path))
        speak.set()
        assert receive(client, 5) == b"hello"
        wait_until(lambda: last_activity(proxy, path) >= before, 2, "activity of the target")


def last_activity(proxy: Proxy, path: str) -> float:
    """Return the last activity of a route as Unix time."""
    route = proxy.api.route(path)
    assert route is not None
    return datetime.fromisoformat(route["last_activity"].replace("Z", "+00:00")).timestamp()


def later_than(moment: float) -> float:
    """Wait until the clock shows a later time; return that in the API's milliseconds."""
    return wait_until(
        lambda: now if (now := int(time.time() * 1000) / 1000) > moment else None, 2, "a later time"
    )


# -- other sockets


def test_a_unix_socket_as_target(proxy: Proxy, add_route: AddRoute, tmp_path: Path) -> None:
    path = str(tmp_path / "target.sock")
    with RawTarget(switched(echo), unix_path=path) as target, proxy.client() as client:
        switched_client(client, add_route(target.url))
        client.send("over a UNIX socket")
        assert receive(client, 18) == b"over a UNIX socket"
        client.close()
        target.wait_for_connections(0, SOON)


@pytest.mark.ours
@pytest.mark.parametrize("leave", [RawClient.half_close, RawClient.reset], ids=["FIN", "RST"])
def test_a_client_that_leaves_before_it_has_its_101_leaves_nothing_behind(
    start_proxy: Callable[..., Proxy], leave: Callable[[RawClient], None]
) -> None:
    padding = b"".join(b"X-%d: %s\r\n" % (n, b"y" * 1000) for n in range(115))
    answer = SWITCHING[:-2] + padding + b"\r\n"
    proxy = start_proxy("--worker-connections", "4")
    (worker,) = proxy.worker_pids()
    with RawTarget(switched(lambda exchange: None, answer=answer)) as target:
        proxy.api.add("/", target.url)
        assert proxy.get("/_chp_healthz").status == 200
        before = open_descriptors(worker)
        clients = [RawClient(proxy.address, narrow=True) for _ in range(3)]
        for client in clients:
            client.send(upgrade("/"))
        target.wait_for_requests(3)
        for client in clients:
            leave(client)
        wait_until(lambda: open_descriptors(worker) <= before, 10, "both sides of each are closed")
        for client in clients:
            client.close()
    assert "Error" not in proxy.log()
