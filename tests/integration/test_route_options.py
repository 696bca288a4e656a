"""Options of one route, in real requests: strip_prefix, change_origin, timeout, headers."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kit.option_servers import start_server
from tests.kit.peers import RawTarget, get, response, stalled
from tests.kit.peers.messages import Request
from tests.kit.peers.raw_target import Exchange
from tests.kit.peers.upgrades import echo, receive, switched, switched_client, upgrade
from tests.kit.peers.waiting import wait_until
from tests.kit.server import Proxy, start_proxy

pytestmark = pytest.mark.ours

NEVER = threading.Event()
SHORT = 0.3
"""A timeout of a route, in seconds."""
SOON = 5.0
"""What it must be over within: far more than a slow machine needs."""

PREFIX = "x-forwarded-prefix"


@pytest.fixture(scope="module")
def target() -> Iterator[RawTarget]:
    """A target whose requests are looked at."""
    with RawTarget() as target:
        yield target


@pytest.fixture(scope="module")
def plain(target: RawTarget) -> Iterator[Proxy]:
    """A server with the default of every option."""
    with start_server() as proxy:
        yield proxy


def forwarded(proxy: Proxy, target: RawTarget, path: str, *lines: str, host: str = "a") -> Request:
    """Send a request and return what the target got."""
    target.script()
    with proxy.client() as client:
        assert client.request(get(path, *lines, host=host)).status == 200
    return target.request


def shaken(proxy: Proxy, target: RawTarget, path: str, *lines: str) -> Request:
    """Open a WebSocket, exchange a message, and return the handshake that the target got."""
    target.script(switched(echo))
    with proxy.client() as client:
        switched_client(client, path, *lines).send("hello")
        assert receive(client, 5) == b"hello"
    return target.request


def told(request: Request) -> tuple[str, list[str]]:
    """Return the request target, and what it says that was cut off it."""
    return request.target, request.all(PREFIX)


# -- strip_prefix


def test_one_proxy_serves_apps_that_want_their_prefix_and_such_that_do_not(
    plain: Proxy, target: RawTarget
) -> None:
    plain.api.add("/user/a", target.url)
    plain.api.add("/user/a/app", target.url, strip_prefix=True)
    plain.api.add("/based/app", target.url + "/base?q=1", strip_prefix=True)
    plain.api.add("/kept", target.url, strip_prefix=False)
    plain.api.add("/has space/秀樹", target.url, strip_prefix=True)
    plain.api.add("/", target.url, strip_prefix=True)
    app = ["/user/a/app"]
    for asked, received, prefix in (
        ("/user/a/x?y", "/user/a/x?y", []),
        ("/user/a/app/x?y=%41", "/x?y=%41", app),
        ("/user/a/app/", "/", app),
        ("/user/a/app", "/", app),
        ("/user/a/app?x", "/?x", app),
        ("/user/%61/app/%2e%2E/app//x", "//x", app),
        ("/based/app/x?y", "/base/x?q=1&y", ["/based/app"]),
        ("/kept/x", "/kept/x", []),
        ("/has%20space/%E7%A7%80%E6%A8%B9/x", "/x", ["/has%20space/%E7%A7%80%E6%A8%B9"]),
        ("/other/x", "/other/x", []),
    ):
        assert (asked, *told(forwarded(plain, target, asked))) == (asked, received, prefix)
        assert (asked, *told(shaken(plain, target, asked))) == (asked, received, prefix)


def test_requests_with_the_same_header_section_are_told_apart_by_their_routes(
    plain: Proxy, target: RawTarget
) -> None:
    """What is remembered of a header section is of one route's options, and of its prefix."""
    options: list[dict[str, Any]] = [
        {"strip_prefix": True},
        {},
        {"headers": {"X-A": "1"}},
        {"headers": {"X-A": "2"}},
        {"change_origin": True},
        {"strip_prefix": True},
        {"strip_prefix": False},
        {"timeout": 5},
        *({"headers": {"X-A": f"more {number}"}} for number in range(10)),
    ]
    for number, each in enumerate(options):
        plain.api.add(f"/r{number}", target.url, **each)
    target.script()
    with plain.client() as client:
        for _ in range(3):
            for number, each in enumerate(options):
                assert client.request(get(f"/r{number}/x")).status == 200
                got = target.requests[-1]
                stripped = each.get("strip_prefix") is True
                assert told(got) == (
                    ("/x", [f"/r{number}"]) if stripped else (f"/r{number}/x", [])
                ), each
                assert got.all("x-a") == list(each.get("headers", {}).values())
                changed = each.get("change_origin", False)
                assert (got.get("host") == f"127.0.0.1:{target.port}") == changed


def test_nobody_is_believed_what_was_cut_off_before_without_trusted_proxies(
    plain: Proxy, target: RawTarget
) -> None:
    plain.api.add("/app", target.url, strip_prefix=True)
    plain.api.add("/other", target.url)
    lines = ("X-Forwarded-Prefix: //evil.test", "X_Forwarded_Prefix: //evil.test")
    for got in (
        forwarded(plain, target, "/app/x", *lines),
        shaken(plain, target, "/app/x", *lines),
    ):
        assert told(got) == ("/x", ["/app"])
        assert "x_forwarded_prefix" not in got.names()
    as_ever = forwarded(plain, target, "/other/x", *lines)
    assert told(as_ever) == ("/other/x", ["//evil.test"]), "as all that CHP does not know"


@pytest.mark.parametrize(("trusted", "outer"), [("127.0.0.1", "/outer"), ("10.0.0.1", "")])
def test_what_a_trusted_proxy_has_cut_off_comes_first(
    target: RawTarget, trusted: str, outer: str
) -> None:
    with start_server("--trusted-proxies", trusted) as proxy:
        proxy.api.add("/app", target.url, strip_prefix=True)
        proxy.api.add("/other", target.url)
        line = "X-Forwarded-Prefix: /outer"
        assert told(forwarded(proxy, target, "/app/x", line)) == ("/x", [f"{outer}/app"])
        assert told(shaken(proxy, target, "/app/x", line)) == ("/x", [f"{outer}/app"])
        assert told(forwarded(proxy, target, "/app/x")) == ("/x", ["/app"])
        passed_on = [outer] if outer else []
        assert told(forwarded(proxy, target, "/other/x", line)) == ("/other/x", passed_on)


def test_strip_prefix_with_host_routing_leaves_the_host_out(target: RawTarget) -> None:
    with start_server("--host-routing") as proxy:
        proxy.api.add("/one.test/deep", target.url, strip_prefix=True)
        proxy.api.add("/two.test", target.url, strip_prefix=True)
        proxy.api.add("/three.test/deep", target.url)
        for host, received, prefix in (
            ("one.test:80", "/x?y", ["/deep"]),
            ("two.test", "/deep/x?y", []),
            ("three.test", "/deep/x?y", []),
        ):
            got = forwarded(proxy, target, "/deep/x?y", host=host)
            assert (host, *told(got)) == (host, received, prefix)


def test_strip_prefix_wins_over_no_include_prefix(target: RawTarget) -> None:
    with start_server("--no-include-prefix") as proxy:
        proxy.api.add("/kept", target.url, strip_prefix=False)
        proxy.api.add("/cut", target.url, strip_prefix=True)
        proxy.api.add("/null", target.url, strip_prefix=None)
        assert told(forwarded(proxy, target, "/kept/x")) == ("/kept/x", [])
        assert told(forwarded(proxy, target, "/cut/x")) == ("/x", ["/cut"])
        assert told(forwarded(proxy, target, "/null/x")) == ("/x", []), "as CHP"


def test_no_x_forward_leaves_the_prefix_to_others_too(target: RawTarget) -> None:
    with start_server("--no-x-forward") as proxy:
        proxy.api.add("/app", target.url, strip_prefix=True)
        assert told(forwarded(proxy, target, "/app/x")) == ("/x", [])


# -- change_origin and headers


def test_change_origin_of_a_route(plain: Proxy, target: RawTarget) -> None:
    plain.api.add("/r", target.url, change_origin=True)
    origin = [f"127.0.0.1:{target.port}"]
    assert forwarded(plain, target, "/r", host="proxy.test").all("host") == origin
    assert shaken(plain, target, "/r").all("host") == origin
    with start_server("--change-origin") as proxy:
        proxy.api.add("/r", target.url, change_origin=False)
        proxy.api.add("/other", target.url)
        assert forwarded(proxy, target, "/r", host="proxy.test").all("host") == ["proxy.test"]
        assert forwarded(proxy, target, "/other", host="proxy.test").all("host") == origin


def test_headers_of_a_route(target: RawTarget) -> None:
    with start_server("--custom-header", "X-One: server", "--custom-header", "X-Two: 2") as proxy:
        headers = {"x-one": "route", "User-Agent": " of the route ", "Host": "app.test", "É": "x"}
        answer = proxy.api.post(
            proxy.api.route_url("/r"), json={"target": target.url, "headers": headers}
        )
        assert (answer.status_code, answer.text) == (
            400,
            "Invalid 'headers': 'É' is not a name for a header",
        )
        del headers["É"]
        proxy.api.add("/r", target.url, headers=headers)
        proxy.api.add("/other", target.url)
        lines = ("User-Agent: of the client", "X-One: of the client")
        for got in (
            forwarded(proxy, target, "/r/x", *lines),
            shaken(proxy, target, "/r/x", *lines),
        ):
            assert got.all("x-one") == ["route"]
            assert got.all("x-two") == ["2"]
            assert got.all("user-agent") == ["of the route"]
            assert got.all("host") == ["app.test"]
        other = forwarded(proxy, target, "/other/x", *lines)
        assert (other.all("x-one"), other.all("host")) == (["server"], ["a"])


# -- timeout


def test_timeout_of_a_route(plain: Proxy, target: RawTarget) -> None:
    plain.api.add("/hasty", target.url, timeout=SHORT)
    target.script(stalled(NEVER))
    started = time.monotonic()
    assert plain.get("/hasty/x").status == 503
    assert SHORT <= time.monotonic() - started < SOON
    plain.wait_for_log(rf"error: 503 GET /hasty/x target was silent for {SHORT} s")
    target.wait_for_connections(0)


def test_timeout_of_a_route_wins_over_proxy_timeout(target: RawTarget) -> None:
    with start_server("--proxy-timeout", str(int(SHORT * 1000))) as proxy:
        proxy.api.add("/patient", target.url, timeout=60)
        proxy.api.add("/endless", target.url, timeout=0)
        proxy.api.add("/other", target.url)
        for path in ("/patient", "/endless"):
            answer = threading.Event()
            target.script(stalled(answer, then=response(b"at last")))
            with proxy.client() as client:
                client.send(get(path))
                assert not client.is_closed(2 * SHORT)
                answer.set()
                assert client.read_response().body == b"at last"
        target.script(stalled(NEVER))
        assert proxy.get("/other").status == 503


def test_timeout_of_a_route_does_not_end_websockets(plain: Proxy, target: RawTarget) -> None:
    """Neither one that says nothing for longer, nor one whose target is slow to accept it."""
    plain.api.add("/ws", target.url, timeout=SHORT, strip_prefix=True)
    accepted = threading.Event()

    accept = switched(echo)
    assert callable(accept)

    def accept_late(exchange: Exchange) -> None:
        if exchange.stall(accepted):
            accept(exchange)

    target.script(accept_late)
    with plain.client() as client:
        client.send(upgrade("/ws"))
        assert not client.is_closed(2 * SHORT)
        accepted.set()
        assert client.read_head().status == 101
        assert not client.is_closed(2 * SHORT)
        client.send("hello")
        assert receive(client, 5) == b"hello"


# -- changes, processes, stores


def test_every_worker_obeys_changed_options_as_soon_as_the_api_has_answered(
    target: RawTarget,
) -> None:
    workers = set()
    with start_proxy(workers=4) as proxy:
        target.script()
        for number in range(200):
            stripped = number % 2 == 0
            proxy.api.add("/r", target.url, strip_prefix=stripped, headers={"X-N": str(number)})
            with proxy.client() as client:
                assert client.request(get("/r/x")).status == 200
                if number % 20 == 0:
                    workers.add(proxy.worker_of(client))
            got = target.requests[-1]
            assert told(got) == (("/x", ["/r"]) if stripped else ("/r/x", []))
            assert got.all("x-n") == [str(number)]
        proxy.api.add("/r", target.url)
        got = forwarded(proxy, target, "/r/x")
        assert told(got) == ("/r/x", [])
        assert got.all("x-n") == []
    assert len(workers) > 1, "all requests came to one worker: nothing was shown"


def test_options_outlive_the_processes(target: RawTarget) -> None:
    options = {"strip_prefix": True, "timeout": 9.5, "headers": {"X-A": "1"}, "user": "ada"}
    with start_proxy() as proxy:
        proxy.api.add("/r", target.url, **options)
        before = proxy.api.route("/r")
        assert before is not None
        assert {name: before[name] for name in options} == options
        for dead in (proxy.management_pid(), *proxy.worker_pids()):
            os.kill(dead, signal.SIGKILL)
            wait_until(lambda pid=dead: pid not in proxy.tree(), 10, "it is gone")  # type: ignore[misc]
            assert proxy.api.route("/r") == before
        got = forwarded(proxy, target, "/r/x")
        assert (*told(got), got.all("x-a")) == ("/x", ["/r"], ["1"])
        proxy.api.add("/r", target.url, user="ada")
        assert told(forwarded(proxy, target, "/r/x")) == ("/r/x", [])


def test_options_outlive_the_server_in_a_store(target: RawTarget, tmp_path: Path) -> None:
    flags = ["--storage-backend", f"sqlite:{tmp_path / 'routes.sqlite'}"]
    with start_server(*flags, stop=signal.SIGTERM) as proxy:
        proxy.api.add("/r", target.url, strip_prefix=True, headers={"X-A": "1"})
        before = proxy.api.routes()
    with start_server(*flags) as proxy:
        assert proxy.api.routes() == before
        got = forwarded(proxy, target, "/r/x")
        assert (*told(got), got.all("x-a")) == ("/x", ["/r"], ["1"])
