"""The access log of a real server: a line for each request, whatever becomes of it."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.kit.authority import Authority
from tests.kit.option_servers import connects, start_server
from tests.kit.peers import RawClient, RawTarget, fetch, get, response, wait_until
from tests.kit.peers.upgrades import echo, receive, switched, switched_client
from tests.kit.server import Proxy, free_ports, run_to_exit
from tests.proxy.access_log.test_lines import COMBINED

pytestmark = pytest.mark.ours

StartProxy = Callable[..., Proxy]


@dataclass(frozen=True)
class Line:
    """A line, as programs read it."""

    client: str
    request: str
    status: int
    size: str
    referer: str
    agent: str
    route: str
    seconds: float
    target_seconds: str


def parsed(line: str) -> Line:
    """Read a line; it must be one."""
    found = COMBINED.fullmatch(line)
    assert found, line
    request, status, size, referer, agent, route, seconds, target_seconds = found.groups()[4:]
    return Line(
        found[1],
        request,
        int(status),
        size,
        referer,
        agent,
        route,
        float(seconds),
        target_seconds,
    )


def lines_of(path: Path) -> list[Line]:
    """The lines of a file, all of which must be whole."""
    if not path.exists():
        return []
    return [parsed(line) for line in path.read_text("ascii").splitlines(keepends=True)]


def wait_for_lines(path: Path, count: int) -> list[Line]:
    """Return the lines as soon as there are so many."""
    wait_until(lambda: len(lines_of(path)) >= count, 10, lambda: f"{count} in {lines_of(path)}")
    return lines_of(path)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The file of the access log."""
    return tmp_path / "access.log"


@pytest.fixture
def target() -> Iterator[RawTarget]:
    """A target that answers with ten bytes."""
    with RawTarget(response(b"0123456789")) as running:
        yield running


@pytest.fixture
def websocket() -> Iterator[RawTarget]:
    """A target that takes upgrades, and sends back what it gets."""
    with RawTarget(switched(echo)) as running:
        yield running


def test_each_request_has_its_line(start_proxy: StartProxy, path: Path, target: RawTarget) -> None:
    proxy = start_proxy("--access-log", str(path))
    dead = free_ports(1)[0]
    proxy.api.add("/user/a", target.url)
    proxy.api.add("/dead", f"http://127.0.0.1:{dead}")
    with proxy.client() as client:
        client.request(
            get("/user/a/tree?token=secret", "User-Agent: x", "Referer: /hub?code=secret")
        )
        client.request(get("/none"))
        client.request(get("/dead"))
    proxy.get("/user/a", "Host: twice")
    answered, missing, dead_line, refused = wait_for_lines(path, 4)
    assert answered == Line(
        "127.0.0.1",
        "GET /user/a/tree HTTP/1.1",
        200,
        "10",
        "/hub",
        "x",
        "/user/a",
        answered.seconds,
        answered.target_seconds,
    )
    assert 0 <= float(answered.target_seconds) <= answered.seconds < 5
    assert (missing.status, missing.route, missing.target_seconds) == (404, "-", "-")
    assert int(missing.size) > 100, "our own page"
    assert (dead_line.status, dead_line.route) == (503, "/dead")
    assert float(dead_line.target_seconds) >= 0
    assert (refused.status, refused.request, refused.size) == (400, "-", "-")
    assert "secret" not in path.read_text()


def test_a_websocket_has_one_line_at_its_end(
    start_proxy: StartProxy, path: Path, websocket: RawTarget
) -> None:
    proxy = start_proxy("--access-log", str(path))
    proxy.api.add("/ws", websocket.url)
    with proxy.client() as client:
        switched_client(client, "/ws/x").send("hello")
        assert receive(client, 5) == b"hello"
        proxy.get("/none")
        assert [line.status for line in wait_for_lines(path, 1)] == [404]
    line = wait_for_lines(path, 2)[1]
    assert (line.status, line.request, line.route) == (101, "GET /ws/x HTTP/1.1", "/ws")
    assert int(line.size) >= 5
    assert float(line.target_seconds) <= line.seconds


def test_websockets_that_the_server_s_stop_closes_have_their_line(
    start_proxy: StartProxy, path: Path, websocket: RawTarget
) -> None:
    proxy = start_proxy("--access-log", str(path), workers=2)
    proxy.api.add("/ws", websocket.url)
    with ExitStack() as stack:
        for _ in range(5):
            switched_client(stack.enter_context(proxy.client()), "/ws")
        proxy.stop()
    assert [line.status for line in lines_of(path)] == [101] * 5


def test_an_upgrade_that_is_refused_has_a_line(
    start_proxy: StartProxy, path: Path, target: RawTarget
) -> None:
    proxy = start_proxy("--access-log", str(path), "--default-target", target.url)
    with proxy.client() as client:
        client.request(
            get(
                "/",
                "Connection: upgrade",
                "Upgrade: websocket",
                "Sec-WebSocket-Version: 13",
                "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            )
        )
    assert [line.status for line in wait_for_lines(path, 1)] == [200]


def clients_of_all_workers(proxy: Proxy, stack: ExitStack, workers: int) -> list[RawClient]:
    """Open connections until each worker has one."""
    clients: list[RawClient] = []
    seen: set[int] = set()
    while len(seen) < workers:
        assert len(clients) < 500
        clients.append(stack.enter_context(proxy.client()))
        seen.add(proxy.worker_of(clients[-1]))
    return clients


def test_lines_of_all_workers_are_whole_and_none_is_missing(
    start_proxy: StartProxy, path: Path, target: RawTarget
) -> None:
    proxy = start_proxy("--access-log", str(path), "--default-target", target.url, workers=3)
    with ExitStack() as stack:
        clients = clients_of_all_workers(proxy, stack, 3)
        for number in range(20):
            for client in clients:
                client.send(get(f"/{number}", f"User-Agent: {'x' * 3000}"))
            for client in clients:
                client.read_response()
        count = 20 * len(clients)
    lines = wait_for_lines(path, count)
    assert len(lines) == count
    assert {line.agent for line in lines} == {"x" * 3000}


@pytest.mark.parametrize("told", [True, False])
def test_a_rotated_file_is_let_go_of(
    start_proxy: StartProxy, path: Path, target: RawTarget, told: bool
) -> None:
    """By all workers, those that drain too; with SIGUSR1 or with the next line."""
    proxy = start_proxy("--access-log", str(path), "--default-target", target.url, workers=2)
    old = Path(f"{path}.1")
    proxy.get("/before")
    wait_for_lines(path, 1)
    path.rename(old)
    if told:
        proxy.signal(signal.SIGUSR1)
        wait_until(lambda: path.exists() and not holders(proxy, old), 10, "nobody has the old one")
    else:
        path.touch()
    with ExitStack() as stack:
        clients = clients_of_all_workers(proxy, stack, 2)
        for client in clients:
            client.request(get("/after"))
        wait_for_lines(path, len(clients))
    assert not holders(proxy, old)
    assert [line.request for line in lines_of(old)] == ["GET /before HTTP/1.1"]
    assert len(proxy.tree()) == 4, "no process has ended"


def test_draining_workers_let_go_of_a_rotated_file(
    start_proxy: StartProxy, path: Path, websocket: RawTarget
) -> None:
    proxy = start_proxy("--access-log", str(path))
    proxy.api.add("/ws", websocket.url)
    with proxy.client() as client:
        switched_client(client, "/ws")
        proxy.get("/before")
        wait_for_lines(path, 1)
        proxy.signal(signal.SIGHUP)
        proxy.wait_for_log("reloaded: 1 new workers serve, the old ones drain")
        path.rename(f"{path}.1")
        proxy.signal(signal.SIGUSR1)
        wait_until(
            lambda: path.exists() and not holders(proxy, Path(f"{path}.1")), 10, "it is let go of"
        )
    assert wait_for_lines(path, 1)[0].status == 101


def holders(proxy: Proxy, path: Path) -> list[int]:
    """The processes of a server that have a file open."""
    found = []
    for pid in proxy.tree():
        for name in os.listdir(f"/proc/{pid}/fd"):
            try:
                if os.path.samefile(f"/proc/{pid}/fd/{name}", path):
                    found.append(pid)
            except OSError:
                continue
    return found


@pytest.mark.parametrize("how", ["cli", "gunicorn"])
def test_lines_may_go_where_the_log_goes(
    start_proxy: StartProxy, target: RawTarget, how: str
) -> None:
    proxy = start_proxy("--access-log", "-", "--default-target", target.url, how=how)
    proxy.get("/x")
    line = proxy.wait_for_log('"GET /x HTTP/1.1" 200 10')
    assert parsed(line + "\n").route == "/"


def test_json_lines_go_with_a_json_log(start_proxy: StartProxy, target: RawTarget) -> None:
    flags = ("--access-log", "-", "--log-format", "json", "--default-target", target.url)
    proxy = start_proxy(*flags)
    proxy.get("/x")
    entry = json.loads(proxy.wait_for_log('"target": "/x"'))
    assert (entry["status"], entry["bytes"], entry["route"]) == (200, 10, "/")
    assert all(json.loads(line) for line in proxy.log().splitlines())


def test_redirects_have_lines(path: Path, tmp_path: Path) -> None:
    key, cert = Authority(tmp_path / "ca").issue("h.test")
    port = free_ports(1)[0]
    flags = ("--ssl-key", key, "--ssl-cert", cert, "--redirect-port", str(port))
    with start_server(*flags, "--access-log", str(path)):
        wait_until(lambda: connects("127.0.0.1", port), 5, "the redirect server listens")
        assert fetch(("127.0.0.1", port), get("/x")).status == 301
        assert wait_for_lines(path, 1)[0].status == 301


def test_a_pipe_that_nobody_reads_holds_nobody_up(
    start_proxy: StartProxy, path: Path, target: RawTarget
) -> None:
    os.mkfifo(path)
    outlet = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        proxy = start_proxy("--access-log", str(path), "--default-target", target.url)
        with proxy.client() as client:
            for _ in range(40):
                assert client.request(get("/", f"User-Agent: {'x' * 4000}")).status == 200
        proxy.wait_for_log(r"warn: \d+ lines of the access log were dropped: Resource temp", 10)
    finally:
        os.close(outlet)


def test_a_file_that_can_not_be_written_is_one_line_at_start(tmp_path: Path) -> None:
    result = run_to_exit("--access-log", str(tmp_path / "missing" / "access.log"), "--port", "0")
    assert result.returncode == 1
    (line,) = (result.stderr or result.stdout).splitlines()
    assert re.fullmatch(r"error: --access-log: '.*/missing/access\.log': No such file .*", line)
