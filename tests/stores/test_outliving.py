"""Routes outlive the server in SQLite, and in a class of one's own."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from chp_gevent.config.options import Options, TcpAddress
from tests.kit.management_arbiter import ArbiterProcess
from tests.kit.peers import RawClient


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """What is open until the test ends."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture(params=["sqlite", "class"])
def options(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Options:
    """Those of a server that stores its routes."""
    monkeypatch.setenv("CHP_ROUTES", str(tmp_path / "routes.json"))
    backend = f"sqlite:{tmp_path / 'routes.sqlite'}"
    return Options(
        listen=TcpAddress("", 8000),
        api=TcpAddress("127.0.0.1", 0),
        default_target="http://127.0.0.1:9",
        auth_token=None,
        storage_backend=backend if request.param == "sqlite" else "tests.kit.file_store.FileStore",
    )


def start_server(stack: ExitStack, options: Options, log: Path) -> ArbiterProcess:
    """Start a server of its own, with an empty memory."""
    arbiter = stack.enter_context(ArbiterProcess(options, log))
    arbiter.start_child()
    return arbiter


def call(arbiter: ArbiterProcess, method: str, path: str, body: str = "") -> bytes:
    """Call the API and return the body of the answer."""
    with RawClient(arbiter.api) as client:
        head = f"{method} /api/routes{path} HTTP/1.1\r\nHost: localhost\r\n"
        answer = client.request(f"{head}Content-Length: {len(body)}\r\n\r\n{body}")
        assert answer.status < 300, answer
        return answer.body


def table(arbiter: ArbiterProcess) -> dict[str, Any]:
    """Return the table of routes."""
    return dict(json.loads(call(arbiter, "GET", "")))


def test_routes_and_their_activity_outlive_the_server(
    stack: ExitStack, options: Options, tmp_path: Path
) -> None:
    first = start_server(stack, options, tmp_path / "log")
    call(first, "POST", "/a", '{"target": "http://127.0.0.1:10", "user": "x"}')
    call(first, "POST", "/b", '{"target": "http://127.0.0.1:11"}')
    call(first, "DELETE", "/b")
    before = table(first)
    assert first.kill_child(signal.SIGTERM) == 0

    second = start_server(stack, options, tmp_path / "log")
    after = table(second)
    assert set(after) == {"/", "/a"}
    assert after["/a"] == before["/a"], "activity too: it is saved when the server stops"


def test_a_crash_loses_nothing(stack: ExitStack, options: Options, tmp_path: Path) -> None:
    arbiter = start_server(stack, options, tmp_path / "log")
    call(arbiter, "POST", "/a", '{"target": "http://127.0.0.1:10"}')
    before = table(arbiter)
    arbiter.kill_child(signal.SIGKILL)
    arbiter.start_child()
    assert table(arbiter) == before


def test_the_default_route_is_what_the_command_line_says(
    stack: ExitStack, options: Options, tmp_path: Path
) -> None:
    first = start_server(stack, options, tmp_path / "log")
    call(first, "POST", "", '{"target": "http://127.0.0.1:12"}')
    first.kill_child(signal.SIGTERM)
    second = start_server(stack, options, tmp_path / "log")
    assert table(second)["/"]["target"] == "http://127.0.0.1:9"
