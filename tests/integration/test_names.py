"""Targets by name: names that nobody answers for, and addresses of which some are dead."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.kit.peers import RawTarget, get, response
from tests.kit.peers.dead_address import swallowing
from tests.kit.private_names import command_with_names, silent_dns
from tests.kit.server import Proxy, start_proxy

pytestmark = pytest.mark.ours

Make = Callable[..., Proxy]
ATTEMPT_DELAY = 0.25
SILENT = 20
CLOSING = response(b"here", headers=[("Connection", "close")])


@pytest.fixture(name="servers")
def servers_fixture(tmp_path: Path) -> Iterator[Make]:
    """Makes servers with an /etc/hosts of their own, which live until the test ends."""
    with ExitStack() as stack:

        def make(hosts: str, *flags: str, dns: str | None = None) -> Proxy:
            command = command_with_names(tmp_path, hosts, dns=dns)
            return stack.enter_context(start_proxy(*flags, command=command))

        yield make


def seconds_of(proxy: Proxy, path: str) -> float:
    """GET a path, which must succeed, on a connection of its own; return how long it took."""
    begun = time.monotonic()
    assert proxy.get(path).status == 200
    return time.monotonic() - begun


@pytest.mark.parametrize("different", [False, True], ids=["one name", "names"])
def test_names_that_dns_does_not_answer_for_hold_no_others(servers: Make, different: bool) -> None:
    with silent_dns() as dns, RawTarget() as target, ExitStack() as stack:
        proxy = servers("127.0.0.1 hub\n", "--connect-timeout", "3", dns=dns)
        proxy.api.add("/hub", f"http://hub:{target.port}")
        proxy.api.add("/literal", target.url)
        for number in range(SILENT):
            name = f"gone{number if different else ''}.example"
            proxy.api.add(f"/silent/{number}", f"http://{name}:8888")
        begun = time.monotonic()
        clients = [stack.enter_context(proxy.client(20)) for _ in range(SILENT)]
        for number, client in enumerate(clients):
            client.send(get(f"/silent/{number}"))
        for path in ("/hub", "/literal"):
            assert seconds_of(proxy, path) < 2
        assert {client.read_response().status for client in clients} == {503}
        assert time.monotonic() - begun >= 3
        line = proxy.wait_for_log("error: 503 GET /silent/")
        assert line.endswith("example:8888: name look-up timed out after 3 s")
        again = time.monotonic()
        assert proxy.get("/silent/0").status == 503
        assert time.monotonic() - again < 2, "who asks later is told at once"
        # It stops while threads hang.
        proxy.stop()
        assert "Traceback" not in proxy.log()


def test_a_name_that_does_not_resolve_is_a_503_that_says_so(servers: Make) -> None:
    proxy = servers("127.0.0.1 hub\n", "--default-target", "http://gone.example:8888")
    assert proxy.get("/x").status == 503
    line = proxy.wait_for_log("error: 503 GET /x")
    assert "gone.example:8888: name does not resolve: " in line
    assert "Traceback" not in proxy.log()


def test_a_name_is_found_again_soon_after_it_was_missing(servers: Make, tmp_path: Path) -> None:
    with RawTarget() as target:
        proxy = servers("127.0.0.1 hub\n", "--default-target", f"http://later:{target.port}")
        assert proxy.get("/").status == 503
        with (tmp_path / "hosts").open("a") as hosts:
            hosts.write("127.0.0.1 later\n")
        deadline = time.monotonic() + 10
        while proxy.get("/").status != 200:
            assert time.monotonic() < deadline, proxy.log()
            time.sleep(0.1)


def with_ipv6() -> None:
    """Skip the test where there is no IPv6."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("no IPv6 here")


def test_a_dead_ipv6_address_costs_a_quarter_of_a_second_once(servers: Make) -> None:
    with_ipv6()
    with RawTarget(CLOSING) as target, swallowing(("::1", target.port)):
        proxy = servers("::1 hub\n127.0.0.1 hub\n")
        proxy.api.add("/hub", f"http://hub:{target.port}")
        assert ATTEMPT_DELAY < seconds_of(proxy, "/hub") < 5
        assert min(seconds_of(proxy, "/hub") for _ in range(5)) < ATTEMPT_DELAY
        assert target.accepted == 6


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_localhost_is_found_on_the_one_address_that_listens(servers: Make, host: str) -> None:
    with_ipv6()
    with RawTarget(CLOSING, host=host) as target:
        proxy = servers("127.0.0.1 localhost\n::1 localhost\n")
        proxy.api.add("/hub", f"http://localhost:{target.port}")
        assert min(seconds_of(proxy, "/hub") for _ in range(5)) < ATTEMPT_DELAY
        assert target.accepted == 5


def test_the_error_page_of_a_target_by_name_is_found(servers: Make) -> None:
    with_ipv6()
    page = response(b"sorry", headers=[("Content-Type", "text/plain")])
    with RawTarget(page) as target:
        flags = ["--error-target", f"http://localhost:{target.port}"]
        proxy = servers("127.0.0.1 localhost\n::1 localhost\n", *flags)
        assert proxy.get("/nowhere").body == b"sorry"
