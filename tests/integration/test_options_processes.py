"""Processes, limits, logs and the environment."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from tests.kit import processes
from tests.kit.option_servers import start_server
from tests.kit.peers import (
    EchoTarget,
    RawClient,
    RawTarget,
    fetch,
    get,
    response,
    stalled,
    wait_until,
)
from tests.kit.server import Proxy, run_to_exit


@pytest.fixture(scope="module")
def target() -> Iterator[EchoTarget]:
    """A target for whatever is asked."""
    with EchoTarget() as target:
        yield target


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_pid_file_is_there_while_the_server_serves(
    tmp_path: Path, number: signal.Signals
) -> None:
    path = tmp_path / "proxy.pid"
    path.write_text("999999")
    with start_server("--pid-file", str(path), stop=number) as proxy:
        proxy.wait_for_log(rf"info: Writing pid {proxy.pid} to {path}$")
        assert path.read_text() == str(proxy.pid), "it is there when a line says so"
        assert fetch(proxy.address, get("/_chp_healthz")).status == 200
    assert not path.exists()


@pytest.mark.ours
def test_a_pid_file_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "proxy.pid"
    with start_server("--pid-file", str(path)) as proxy:
        proxy.wait_for_log("Writing pid")
        path.write_text("1")
    assert path.read_text() == "1"
    done = run_to_exit("--pid-file", str(tmp_path / "none" / "proxy.pid"))
    assert done.returncode == 1
    assert done.stderr.startswith("error: --pid-file: cannot write into the folder of ")


@pytest.mark.parametrize(
    ("level", "shown"),
    [
        ("debug", {"debug", "info", "warn", "error"}),
        ("INFO", {"info", "warn", "error"}),
        ("Warn", {"warn", "error"}),
        ("error", {"error"}),
    ],
)
def test_the_log_has_lines_from_its_level_on(
    target: EchoTarget, level: str, shown: set[str]
) -> None:
    flags = ["--log-level", level, "--default-target", target.url]
    with start_server(*flags, ready_line="") as proxy:
        assert fetch(proxy.address, get("/x?secret")).status == 200  # debug
        assert fetch(proxy.api_address, get("/api/routes")).status == 403  # warn
        target_path = {"target": "http://127.0.0.1:9"}
        assert proxy.api.post(proxy.api.route_url("/dead"), json=target_path).status_code == 201
        assert fetch(proxy.address, get("/dead")).status == 503  # error
        lines = {
            "debug": r" debug: PROXY WEB /x to http",
            "info": " info: Adding route /dead",
            "warn": " warn: 403 GET /api/routes",
            "error": " error: 503 GET /dead",
        }
        for name in shown:
            proxy.wait_for_log(lines[name])
        for name in set(lines) - shown:
            assert f" {name}: " not in proxy.log()
        assert "secret" not in proxy.log()


@pytest.mark.ours
def test_levels_that_there_are_not_are_refused() -> None:
    done = run_to_exit("--log-level", "loud")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: --log-level: 'loud' is not one of debug, info, warn, error\n"


@pytest.mark.ours
def test_workers_is_the_number_of_proxy_processes(target: EchoTarget) -> None:
    with start_server("--workers", "3", "--default-target", target.url) as proxy:
        wait_until(lambda: len(proxy.tree()) == 5, 10, "arbiter, management process, 3 workers")
        seen: set[int] = set()
        with ExitStack() as stack:

            def served_by_all() -> bool:
                client = stack.enter_context(proxy.client())
                assert client.request(get("/")).status == 200
                seen.add(proxy.worker_of(client))
                return len(seen) == 3

            wait_until(served_by_all, 10, "each of the workers serves")
    for bad in ("0", "257", "two"):
        done = run_to_exit("--workers", bad)
        assert done.returncode == 1
        assert done.stderr.startswith(f"error: --workers: '{bad}' is not a whole number from 1 to")


@pytest.mark.ours
def test_worker_connections_beyond_the_limit_wait_for_an_answer_to_end() -> None:
    go_on = threading.Event()
    with ExitStack() as stack:
        slow = stack.enter_context(RawTarget(stalled(go_on, then=response())))
        flags = ["--worker-connections", "2", "--default-target", slow.url]
        proxy = stack.enter_context(start_server(*flags))
        busy = [stack.enter_context(proxy.client()) for _ in range(2)]
        for client in busy:
            client.send(get("/"))
        slow.wait_for_requests(2, complete=False)
        with proxy.client(timeout=0.3) as third:
            third.send(get("/_chp_healthz"))
            with pytest.raises(TimeoutError):
                third.read_response()
            go_on.set()
            third.socket.settimeout(10)
            assert third.read_response().status == 200
        for client in busy:
            assert client.read_response().status == 200
        proxy.wait_for_log("warn: The proxy has as many connections as it may: others wait")


@pytest.mark.ours
def test_idle_connections_make_room_for_others(target: EchoTarget) -> None:
    flags = ["--worker-connections", "4", "--keep-alive-timeout", "600000"]
    with start_server(*flags, "--default-target", target.url) as proxy, ExitStack() as stack:
        idle = [stack.enter_context(proxy.client()) for _ in range(4)]
        for client in idle:
            assert client.request(get("/")).status == 200
        for _ in range(8):
            client = stack.enter_context(proxy.client())
            assert client.request(get("/")).status == 200
        for client in idle:
            client.assert_closed()
        proxy.wait_for_log("warn: The proxy has as many connections as it may: silent ones are")


@pytest.mark.ours
def test_backlog_is_how_many_connections_wait() -> None:
    with start_server("--backlog", "1") as proxy, ExitStack() as stack:
        with proxy.client() as client:
            assert client.request(get("/_chp_healthz")).status == 200
            worker = proxy.worker_of(client)
        os.kill(worker, signal.SIGSTOP)
        stack.callback(os.kill, worker, signal.SIGCONT)
        wait_until(lambda: _is_stopped(worker), 5, "it is stopped")
        waiting = 0
        while waiting < 10:
            try:
                connection = socket.create_connection(proxy.address, timeout=0.3)
            except TimeoutError:
                break
            stack.enter_context(connection)
            waiting += 1
        assert 1 <= waiting <= 3, "one more than the backlog, in Linux"


def _is_stopped(pid: int) -> bool:
    status = processes.status(pid)
    return status is not None and status.state == "T"


@pytest.mark.ours
def test_a_worker_is_replaced_after_max_requests(target: EchoTarget) -> None:
    with start_server("--max-requests", "5", "--default-target", target.url) as proxy:
        with proxy.client() as client:
            assert client.request(get("/")).status == 200
            worker = proxy.worker_of(client)

        def replaced() -> bool:
            assert fetch(proxy.address, get("/")).status == 200, "no request is lost"
            return worker not in proxy.tree()

        wait_until(replaced, 15, "another worker is there")
        proxy.wait_for_log(rf"info: replacing worker \(pid {worker}\) after 5 requests")


@pytest.mark.ours
def test_drain_timeout_is_what_requests_have_to_finish() -> None:
    go_on = threading.Event()
    with ExitStack() as stack:
        slow = stack.enter_context(RawTarget(stalled(go_on, then=response(b"in time"))))
        flags = ["--default-target", slow.url, "--drain-timeout"]
        for seconds, finishes in (("0.2", False), ("20", True)):
            go_on.clear()
            slow.script(stalled(go_on, then=response(b"in time")))
            with start_server(*flags, seconds) as proxy, proxy.client() as client:
                client.send(get("/"))
                slow.wait_for_requests(1, complete=False)
                proxy.signal(signal.SIGTERM)
                if finishes:
                    # Who comes now is refused; who was there is served.
                    wait_until(lambda: not _accepts(proxy), 5, "it no longer listens")
                    go_on.set()
                    assert client.read_response().body == b"in time"
                else:
                    assert client.read_to_end() == b""
                assert proxy.wait(10) == 0


def _accepts(proxy: Proxy) -> bool:
    try:
        RawClient(proxy.address).close()
    except OSError:
        return False
    return True


@pytest.mark.ours
def test_the_timeout_of_reloads_is_not_that_of_a_stop() -> None:
    go_on = threading.Event()
    with RawTarget(stalled(go_on, then=response(b"in time"))) as slow:
        flags = ["--default-target", slow.url, "--reload-drain-timeout", "0"]
        with start_server(*flags) as proxy, proxy.client() as client:
            client.send(get("/"))
            slow.wait_for_requests(1, complete=False)
            proxy.signal(signal.SIGTERM)
            wait_until(lambda: not _accepts(proxy), 5, "it no longer listens")
            go_on.set()
            assert client.read_response().body == b"in time"
            assert proxy.wait(10) == 0


@pytest.mark.ours
def test_limits_of_requests_can_be_chosen(target: EchoTarget) -> None:
    flags = ["--max-request-line", "300", "--max-header-size", "1000", "--max-headers", "5"]
    with start_server(*flags, "--default-target", target.url) as proxy:
        four = [f"X-{number}: x" for number in range(4)]
        for path, lines, status in (
            ("/" + "x" * 280, [], 200),
            ("/" + "x" * 300, [], 414),
            ("/", ["X: " + "x" * 900], 200),
            ("/", ["X: " + "x" * 1000], 431),
            ("/", four, 200),
            ("/", [*four, "X-4: x"], 431),
        ):
            answer = fetch(proxy.address, get(path, *lines))
            assert (path[:9], lines[:1], answer.status) == (path[:9], lines[:1], status)
        proxy.wait_for_log("warn: 414 refused a request from 127.0.0.1")
        proxy.wait_for_log("warn: 431 refused a request from 127.0.0.1")


def test_the_token_of_the_api_comes_from_the_environment() -> None:
    with start_server(token="s3cret/+=") as proxy:
        assert proxy.api.routes() == {}
        for field, status in (
            ("Authorization: token s3cret/+=", 200),
            ("Authorization:  token   s3cret/+=", 200),
            ("Authorization: token s3cret", 403),
            ("Authorization: token s3cret/+=x", 403),
            ("Authorization: Bearer s3cret/+=", 403),
            ("X: y", 403),
        ):
            answer = fetch(proxy.api_address, get("/api/routes", field))
            assert (field, answer.status) == (field, status)
        assert "s3cret" not in proxy.log()
        for pid in proxy.tree():
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
            assert b"s3cret" not in command


@pytest.mark.ours
def test_workers_have_no_token_and_a_journal_that_they_only_read() -> None:
    token = "a-token-to-look-for"
    passphrase = {"CONFIGPROXY_API_SSL_KEY_PASSPHRASE": "a-passphrase-to-look-for"}
    with start_server("--workers", "2", token=token, env=passphrase) as proxy:
        assert proxy.api.routes() == {}, "the management process has it"
        wait_until(lambda: len(proxy.worker_pids()) == 2, 10, "two workers")
        for worker in proxy.worker_pids():
            wait_until(partial(_is_frugal, worker), 10, "it has given up what it can")
        proxy.api.add("/a", "http://127.0.0.1:1")
        assert proxy.get("/a").status == 503, "and it follows the table"


def _is_frugal(pid: int) -> bool:
    if b"-to-look-for" in Path(f"/proc/{pid}/environ").read_bytes():
        return False
    flags = []
    for name in os.listdir(f"/proc/{pid}/fd"):
        if "chp-gevent-journal" in os.readlink(f"/proc/{pid}/fd/{name}"):
            lines = Path(f"/proc/{pid}/fdinfo/{name}").read_text(encoding="ascii").splitlines()
            flags += [int(line.split()[1], 8) for line in lines if line.startswith("flags:")]
    return len(flags) == 2 and all(flag & os.O_ACCMODE == os.O_RDONLY for flag in flags)
