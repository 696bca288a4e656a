"""The storage backend of docs/storage.md works as the page says."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from chp_gevent.config.options import Options, TcpAddress
from tests.kit.management_arbiter import REPOSITORY, ArbiterProcess
from tests.kit.peers import RawClient

OPTIONS = Options(
    listen=TcpAddress("", 8000),
    api=TcpAddress("127.0.0.1", 0),
    default_target="http://127.0.0.1:9",
    storage_backend="sqlite_store.SqliteStore",
)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """What is open until the test ends."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture(autouse=True)
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example of the page, where Python finds it."""
    page = (REPOSITORY / "docs" / "storage.md").read_text(encoding="utf-8")
    code = re.search(r"```python\n(.*?)```", page, re.DOTALL)
    assert code is not None
    (tmp_path / "sqlite_store.py").write_text(code[1], encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("CHP_ROUTES", str(tmp_path / "routes.sqlite"))


def start_server(stack: ExitStack, log: Path) -> ArbiterProcess:
    """Start a server of its own, with an empty memory."""
    arbiter = stack.enter_context(ArbiterProcess(OPTIONS, log))
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


def test_routes_and_their_activity_outlive_the_server(stack: ExitStack, tmp_path: Path) -> None:
    first = start_server(stack, tmp_path / "log")
    call(first, "POST", "/a", '{"target": "http://127.0.0.1:10", "user": "x"}')
    call(first, "POST", "/b", '{"target": "http://127.0.0.1:11"}')
    call(first, "DELETE", "/b")
    before = table(first)
    assert first.kill_child(signal.SIGTERM) == 0

    second = start_server(stack, tmp_path / "log")
    after = table(second)
    assert set(after) == {"/", "/a"}
    assert after["/a"] == before["/a"], "activity too: it is saved when the server stops"


def test_a_crash_loses_nothing(stack: ExitStack, tmp_path: Path) -> None:
    arbiter = start_server(stack, tmp_path / "log")
    call(arbiter, "POST", "/a", '{"target": "http://127.0.0.1:10"}')
    before = table(arbiter)
    arbiter.kill_child(signal.SIGKILL)
    arbiter.start_child()
    assert table(arbiter) == before


def test_the_default_route_is_what_the_command_line_says(stack: ExitStack, tmp_path: Path) -> None:
    first = start_server(stack, tmp_path / "log")
    call(first, "POST", "", '{"target": "http://127.0.0.1:12"}')
    first.kill_child(signal.SIGTERM)
    second = start_server(stack, tmp_path / "log")
    assert table(second)["/"]["target"] == "http://127.0.0.1:9"
