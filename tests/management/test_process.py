"""The management process from its start to its end, as the arbiter runs it."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trustme

from chp_gevent.config.options import (
    Options,
    ProxyOptions,
    ServerTlsOptions,
    StatsdOptions,
    TcpAddress,
)
from tests.kit.management_arbiter import ArbiterProcess, is_running
from tests.kit.peers import RawClient, Response, fetch, get, wait_until
from tests.kit.waiting_store import PORT_VARIABLE

OPTIONS = Options(
    listen=TcpAddress("", 8443),
    api=TcpAddress("127.0.0.1", 0),
    default_target="http://127.0.0.1:9",
)
TARGET = '{"target": "http://127.0.0.1:10", "user": "x"}'

Start = Callable[[Options], ArbiterProcess]


@pytest.fixture
def prepare(tmp_path: Path) -> Iterator[Start]:
    """A function that starts an arbiter which has not forked yet."""
    with ExitStack() as stack:
        yield lambda options: stack.enter_context(ArbiterProcess(options, tmp_path / "log"))


@pytest.fixture
def start(prepare: Start) -> Start:
    """A function that starts an arbiter with a management process that serves."""

    def start(options: Options = OPTIONS) -> ArbiterProcess:
        arbiter = prepare(options)
        arbiter.start_child()
        return arbiter

    return start


def call(arbiter: ArbiterProcess, method: str, path: str, body: str = "") -> Response:
    """Call the API on a connection of its own."""
    return fetch(arbiter.api, api_request(method, path, body))


def api_request(method: str, path: str, body: str = "") -> str:
    """Return a call of the API as text."""
    lines = ["Host: localhost", f"Content-Length: {len(body)}", "", body]
    return "\r\n".join([f"{method} /api/routes{path} HTTP/1.1", *lines])


def table(arbiter: ArbiterProcess) -> dict[str, Any]:
    """Return the table of routes."""
    return dict(json.loads(call(arbiter, "GET", "").body))


def metric(arbiter: ArbiterProcess, sample: str) -> float:
    """Return the value of a metric."""
    text = fetch(arbiter.metrics, get("/metrics")).body.decode()
    match = re.search(rf"^{re.escape(sample)} (\S+)$", text, re.MULTILINE)
    assert match, text
    return float(match[1])


# -- start


def test_a_server_starts_with_its_default_route(start: Start) -> None:
    arbiter = start(OPTIONS)
    assert list(table(arbiter)) == ["/"]
    assert arbiter.lines()[:2] == [
        "info: Adding route / -> http://127.0.0.1:9",
        "info: Route added / -> http://127.0.0.1:9",
    ]


def test_a_server_without_a_default_target_starts_empty(start: Start) -> None:
    assert table(start(replace(OPTIONS, default_target=None))) == {}


def test_every_server_has_its_socket(start: Start) -> None:
    arbiter = start(OPTIONS)
    assert fetch(arbiter.metrics, get("/metrics")).status == 200
    assert metric(arbiter, "chp_routes") == 1


def test_host_routing_reaches_the_table(start: Start) -> None:
    arbiter = start(replace(OPTIONS, proxy=ProxyOptions(host_routing=True)))
    call(arbiter, "POST", "/example.com", TARGET)
    assert table(arbiter)["/example.com"]["host"] == "example.com"


def test_the_token_reaches_the_api(start: Start) -> None:
    arbiter = start(replace(OPTIONS, auth_token="s3cret"))
    assert call(arbiter, "GET", "").status == 403


@pytest.mark.parametrize("framing", ["Content-Length: 500000", "Transfer-Encoding: chunked"])
@pytest.mark.parametrize("authorization", ["X: y", "Authorization: token wrong"])
def test_without_the_token_no_body_is_waited_for(
    start: Start, framing: str, authorization: str
) -> None:
    arbiter = start(replace(OPTIONS, auth_token="s3cret"))
    with RawClient(arbiter.api) as client:
        client.send(
            f"POST /api/routes/a HTTP/1.1\r\nHost: h\r\n{framing}\r\n{authorization}\r\n\r\n"
        )
        answer = client.read_response()
        assert (answer.status, answer.all("connection")) == (403, ["close"])
        client.assert_closed()


def test_without_the_token_who_has_sent_a_body_can_read_the_answer(start: Start) -> None:
    arbiter = start(replace(OPTIONS, auth_token="s3cret"))
    body = "x" * 1_000_000
    assert call(arbiter, "POST", "/a", body).status == 403


def test_with_the_token_a_body_that_is_too_large_is_refused_and_nothing_is_lost(
    start: Start,
) -> None:
    arbiter = start(replace(OPTIONS, auth_token="s3cret"))
    with RawClient(arbiter.api) as client:
        lines = ["POST /api/routes/a HTTP/1.1", "Host: h", "Authorization: token s3cret"]
        client.send("\r\n".join([*lines, "Content-Length: 1048577", "", ""]))
        assert client.read_response().status == 413
    with RawClient(arbiter.api) as client:
        answer = client.request(get("/api/routes", "Authorization: token s3cret"))
        assert list(json.loads(answer.body)) == ["/"]
    allowed = get("/api/routes", "Authorization: token s3cret")
    assert fetch(arbiter.api, allowed).status == 200


def test_the_api_speaks_tls(start: Start, tmp_path: Path) -> None:
    import ssl

    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    key, chain = str(tmp_path / "key"), str(tmp_path / "cert")
    certificate.private_key_pem.write_to_path(key)
    certificate.cert_chain_pems[0].write_to_path(chain)
    arbiter = start(replace(OPTIONS, api_tls=ServerTlsOptions(key, chain)))
    context = ssl.create_default_context()
    authority.configure_trust(context)
    with RawClient(arbiter.api, tls=context) as client:
        assert client.request(api_request("POST", "/a", TARGET)).status == 201
        assert client.request(api_request("GET", "/a")).status == 200


def test_statsd_gets_a_packet_a_second(start: Start) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as statsd:
        statsd.bind(("127.0.0.1", 0))
        statsd.settimeout(10)
        options = StatsdOptions("127.0.0.1", statsd.getsockname()[1])
        arbiter = start(replace(OPTIONS, statsd=options))
        call(arbiter, "POST", "/a", TARGET)
        assert statsd.recv(65536).decode().split("\n") == [
            "chp.requests.api:1|c",
            "chp.api.route.add:1|c",
        ]


# -- end


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_a_signal_ends_it_without_an_error(start: Start, number: signal.Signals) -> None:
    arbiter = start(OPTIONS)
    with RawClient(arbiter.api) as idle:
        idle.request(api_request("GET", ""))
        assert arbiter.kill_child(number) == 0
        idle.assert_closed()
    assert "rror" not in arbiter.log()


@pytest.mark.parametrize("name", ["SIGHUP", "SIGUSR1", "SIGUSR2", "SIGWINCH", "SIGTTIN"])
def test_signals_for_the_arbiter_are_ignored(start: Start, name: str) -> None:
    arbiter = start(OPTIONS)
    os.kill(arbiter.child, getattr(signal, name))
    assert list(table(arbiter)) == ["/"]


def test_it_leaves_when_the_arbiter_is_gone(start: Start) -> None:
    arbiter = start(OPTIONS)
    arbiter.process.kill()
    arbiter.process.wait()
    wait_until(lambda: not is_running(arbiter.child), 5, "the management process has left")


class StoreKeeper:
    """The test's side of ``WaitingStore``."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(10)
        self.port = self._listener.getsockname()[1]

    def wait_for_change(self) -> socket.socket:
        """Wait until a change is to be stored; closing the connection permits it."""
        change = self._listener.accept()[0]
        change.recv(1000)
        return change

    def __enter__(self) -> StoreKeeper:
        return self

    def __exit__(self, *error: object) -> None:
        self._listener.close()


@pytest.fixture
def keeper(monkeypatch: pytest.MonkeyPatch) -> Iterator[StoreKeeper]:
    """Decides when a change is stored."""
    with StoreKeeper() as keeper:
        monkeypatch.setenv(PORT_VARIABLE, str(keeper.port))
        yield keeper


SLOW = replace(OPTIONS, default_target=None, storage_backend="tests.kit.waiting_store.WaitingStore")


def test_sigterm_lets_calls_in_flight_finish(start: Start, keeper: StoreKeeper) -> None:
    arbiter = start(SLOW)
    with RawClient(arbiter.api) as client, RawClient(arbiter.api) as idle:
        idle.request(api_request("GET", ""))
        client.send(api_request("POST", "/a", TARGET))
        change = keeper.wait_for_change()
        os.kill(arbiter.child, signal.SIGTERM)
        idle.assert_closed()
        change.close()
        answer = client.read_response()
        assert answer.status == 201
        assert answer.all("connection") == ["close"]
    assert arbiter.wait_for_exit() == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT])
def test_sigint_does_not_wait(start: Start, keeper: StoreKeeper, number: signal.Signals) -> None:
    arbiter = start(SLOW)
    with RawClient(arbiter.api) as client:
        client.send(api_request("POST", "/a", TARGET))
        with keeper.wait_for_change():
            assert arbiter.kill_child(number) == 0


def test_a_call_that_waits_for_the_store_holds_up_no_reading(
    start: Start, keeper: StoreKeeper
) -> None:
    arbiter = start(SLOW)
    with RawClient(arbiter.api) as client:
        client.send(api_request("POST", "/a", TARGET))
        with keeper.wait_for_change():
            assert list(table(arbiter)) == ["/stored"]
        assert client.read_response().status == 201
    assert set(table(arbiter)) == {"/stored", "/a"}


# -- death and recovery


def test_a_dead_process_comes_back_with_every_route(start: Start) -> None:
    arbiter = start(OPTIONS)
    for path in ("/a", "/b", "/c"):
        assert call(arbiter, "POST", path, TARGET).status == 201
    call(arbiter, "DELETE", "/b")
    call(arbiter, "DELETE", "/")
    before = table(arbiter)
    assert arbiter.kill_child(signal.SIGKILL) == -signal.SIGKILL
    arbiter.start_child()
    assert table(arbiter) == before, "fields and activity too, and no default route"
    assert "info: The management process is back, with 2 routes" in arbiter.lines()
    assert call(arbiter, "POST", "/b", TARGET).status == 201


def test_its_counters_go_on(start: Start) -> None:
    arbiter = start(OPTIONS)
    call(arbiter, "POST", "/a", TARGET)
    arbiter.kill_child(signal.SIGKILL)
    arbiter.start_child()
    call(arbiter, "POST", "/b", TARGET)
    assert metric(arbiter, "api_route_add") == 2
    assert metric(arbiter, 'requests_api{status="201"}') == 2
    assert metric(arbiter, "chp_management_restarts_total") == 1


def test_calls_made_while_it_is_down_wait_and_succeed(start: Start) -> None:
    arbiter = start(OPTIONS)
    arbiter.kill_child(signal.SIGKILL)
    with ExitStack() as stack:
        clients = [stack.enter_context(RawClient(arbiter.api)) for _ in range(20)]
        for number, client in enumerate(clients):
            client.send(api_request("POST", f"/{number}", TARGET))
        arbiter.start_child()
        assert [client.read_response().status for client in clients] == [201] * 20
    assert len(table(arbiter)) == 21


def test_under_fire_only_the_call_in_flight_is_lost(start: Start) -> None:
    arbiter = start(OPTIONS)
    confirmed: list[str] = []
    lost = 0
    rounds = 3

    def add_routes() -> None:
        nonlocal lost
        number = 0
        while not finished.is_set():
            number += 1
            try:
                if call(arbiter, "POST", f"/{number}", TARGET).status == 201:
                    confirmed.append(f"/{number}")
            except Exception:
                lost += 1

    finished = threading.Event()
    client = threading.Thread(target=add_routes)
    client.start()
    for _ in range(rounds):
        count = len(confirmed)
        wait_until(lambda c=count: len(confirmed) > c + 50, 10, "50 routes")  # type: ignore[misc]
        arbiter.kill_child(signal.SIGKILL)
        arbiter.start_child()
    finished.set()
    client.join()
    assert set(confirmed) <= set(table(arbiter))
    assert lost <= rounds


# -- storage backends


def test_stored_routes_are_there_from_the_start(start: Start, keeper: StoreKeeper) -> None:
    arbiter = start(SLOW)
    assert table(arbiter)["/stored"]["user"] == "x"


@pytest.mark.parametrize(
    ("backend", "reason"),
    [
        ("no.such.Backend", "--storage-backend: 'no.such.Backend' can't be imported"),
        (
            "tests.kit.waiting_store.UnreadableStore",
            "The storage backend failed: ConnectionRefusedError: nobody there",
        ),
    ],
)
def test_a_backend_that_cannot_be_used_stops_the_start_with_one_line(
    prepare: Start, backend: str, reason: str
) -> None:
    arbiter = prepare(replace(OPTIONS, storage_backend=backend))
    arbiter.fork_child()
    assert not arbiter._event("ready")
    assert arbiter.wait_for_exit() == os.EX_CONFIG
    assert len(arbiter.lines()) == 1
    assert arbiter.lines()[0].startswith(f"error: {reason}")
