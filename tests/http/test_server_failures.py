"""Whatever happens to one connection is over with it, and no matter of the others."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Any

import pytest

from chp_gevent.http.access_entry import AccessEntry
from chp_gevent.http.h1.connection import ClientConnection
from chp_gevent.http.stream import Stream
from tests.http.test_server import plain_server
from tests.kit.peers import RawClient, get, wait_until


class Switch:
    """Another protocol, which begins by calling ``begin``; knows whether it was abandoned."""

    def __init__(self, begin: Callable[[Stream], None]) -> None:
        self.begin = begin
        self.begun = self.abandoned = 0

    def start(self, stream: Stream, early: bytes, entry: AccessEntry | None) -> None:
        self.begun += 1
        self.begin(stream)

    def abandon(self) -> None:
        self.abandoned += 1

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        """As an application: switch to the protocol."""
        start_response("101 Switching Protocols", [("Upgrade", "more")])
        environ["chp.request"].upgrade(self)
        return []


def fail(stream: Stream) -> None:
    raise RuntimeError("no tunnel")


def test_an_upgrade_whose_client_leaves_before_it_begins_leaves_nothing(
    log: logging.Logger, lines: list[str]
) -> None:
    # It begins with more than any client here reads.
    never_taken = Switch(lambda stream: stream.write(bytes(64 << 20)))
    with plain_server(log, never_taken) as server, RawClient(server.address) as client:
        client.send(get("/"))
        assert client.read_head().status == 101
        wait_until(lambda: server.server.busy == 1, 5, "the connection")
        client.half_close()

        def is_forgotten() -> bool:
            server.advance(1)
            return server.server.busy == 0

        wait_until(is_forgotten, 5, "the connection is closed")
        client.read_to_end()
    assert (never_taken.begun, never_taken.abandoned) == (1, 1)
    assert not lines


def test_an_upgrade_that_fails_is_one_line_and_leaves_nothing(
    log: logging.Logger, lines: list[str]
) -> None:
    failing = Switch(fail)
    with plain_server(log, failing) as server, RawClient(server.address) as client:
        client.send(get("/"))
        assert client.read_head().status == 101
        client.assert_closed()
        wait_until(lambda: server.server.busy == 0, 5, "the connection is forgotten")
    assert (failing.begun, failing.abandoned) == (1, 1)
    assert lines == ["error: Error in handler for a connection: RuntimeError: no tunnel"]


@pytest.mark.parametrize("status", ["101 X", "101 X\r\nX: y"], ids=["later", "in the answer"])
def test_an_upgrade_of_an_application_that_fails_then_is_abandoned(
    log: logging.Logger, lines: list[str], status: str
) -> None:
    switch = Switch(lambda stream: None)

    def failing(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        start_response("101 X", [("X", "y\r\nz")] if "\n" in status else [])
        environ["chp.request"].upgrade(switch)
        if "\n" not in status:
            raise RuntimeError("after the upgrade")
        return []

    with plain_server(log, failing) as server, RawClient(server.address) as client:
        client.send(get("/"))
        client.assert_closed()
        wait_until(lambda: server.server.busy == 0, 5, "the connection is forgotten")
    assert (switch.begun, switch.abandoned) == (0, 1)
    assert len(lines) == 1


def test_a_101_has_the_fields_of_the_application_and_no_others(log: logging.Logger) -> None:
    switch = Switch(lambda stream: stream.close())
    with plain_server(log, switch) as server, RawClient(server.address) as client:
        client.send(get("/"))
        answer = client.read_to_end()
    assert answer == b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: more\r\n\r\n"


def test_a_connection_that_fails_in_the_sweep_keeps_it_from_no_other(
    log: logging.Logger, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail_to_look(connection: ClientConnection, now: float) -> None:
        raise RuntimeError("cannot be looked at")

    check = ClientConnection.check
    monkeypatch.setattr(
        ClientConnection,
        "check",
        lambda each, now: (fail_to_look if each.peer.address == "bad" else check)(each, now),
    )
    with plain_server(log) as server, ExitStack() as clients:
        slow = [clients.enter_context(RawClient(server.address)) for _ in range(20)]
        for client in slow:
            client.send("GET / HTTP/1.1\r\n")
        wait_until(lambda: server.server.busy == 20, 5, "all are there")
        bad = server.run(lambda: next(iter(server.server._connections)))
        bad.peer = bad.peer._replace(address="bad")
        others = [c for c in slow if c.socket.getsockname()[1] != int(bad_port(bad))]
        server.advance(61)
        assert [client.read_response().status for client in others] == [408] * 19
        monkeypatch.setattr(ClientConnection, "check", fail_to_look)
        server.run(server.server.drain)  # survives it too
        monkeypatch.undo()
    assert "error: Error in handler for a connection: RuntimeError: cannot be looked at" in lines


def bad_port(connection: ClientConnection) -> str:
    """Return the port that a connection comes from."""
    return str(connection._environ["REMOTE_PORT"])


def test_a_connection_that_cannot_be_served_keeps_nobody_else_waiting(
    log: logging.Logger, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Stream.__init__
    failures = [OSError("no watcher")]

    def fail_once(stream: Stream, *args: Any) -> None:
        if failures:
            raise failures.pop()
        made(stream, *args)

    with plain_server(log) as server:
        monkeypatch.setattr(Stream, "__init__", fail_once)
        with RawClient(server.address) as unlucky, RawClient(server.address) as lucky:
            unlucky.assert_closed()
            assert lucky.request(get("/one")).status == 200
    assert lines == ["error: Error in handler for a connection: OSError: no watcher"]


def test_a_tunnel_that_fails_at_the_end_keeps_no_other_from_it(
    log: logging.Logger, lines: list[str]
) -> None:
    ended = []

    class Tunnel:
        def __init__(self, fails: bool) -> None:
            self.fails = fails

        def abort(self) -> None:
            ended.append(self)
            if self.fails:
                raise RuntimeError("will not end")

    with plain_server(log) as server, RawClient(server.address) as client:
        assert client.request(get("/one")).status == 200
        for fails in (True, False):
            server.server.tunnels.add(Tunnel(fails))
        server.run(server.server.stop)
        client.assert_closed()
        assert len(ended) == 2
    assert lines == ["error: Error in handler for a connection: RuntimeError: will not end"]
