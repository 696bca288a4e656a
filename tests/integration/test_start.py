"""Starting and stopping: both ways of starting are one server, and nothing stays behind."""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.kit.peers import EchoTarget, RawClient, RawTarget, get, wait_until
from tests.kit.peers.raw_target import stalled
from tests.kit.server import (
    CONSOLE_SCRIPT,
    OTHER_COMMAND,
    Proxy,
    free_ports,
    run_to_exit,
)

StartProxy = Callable[..., Proxy]

# As CHP 5.3 writes it: JavaScript's toISOString().
DATE = r"^20\d\d-[01]\d-[0-3]\dT[0-2]\d:[0-5]\d:[0-5]\d\.\d{3}Z"

WAYS = ["cli"] if OTHER_COMMAND else ["cli", "gunicorn"]


@pytest.mark.parametrize("how", WAYS)
def test_both_ways_of_starting_give_the_same_server(start_proxy: StartProxy, how: str) -> None:
    with EchoTarget("default") as target, EchoTarget("user") as user:
        proxy = start_proxy("--default-target", target.url, how=how, workers=2)
        assert proxy.get("/anything").status == 200
        proxy.api.add("/user/a", user.url, jupyterhub=True)
        routes = proxy.api.routes()
        assert set(routes) == {"/", "/user/a"}
        assert routes["/"]["target"] == target.url
        assert routes["/user/a"]["jupyterhub"] is True
        assert b'"name": "user"' in proxy.get("/user/a/tree").body
        for line in (
            rf"info: Adding route / -> {target.url}$",
            rf"info: Route added / -> {target.url}$",
            rf"info: Proxying http://\S*{proxy.port}\S* to {target.url}$",
            rf"info: Proxy API at http://\S*{proxy.api_port}\S*/api/routes$",
            r"info: 201 POST /api/routes/user/a",
        ):
            proxy.wait_for_log(DATE + r" \[ConfigProxy\] " + line)


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_server_and_all_its_processes(
    start_proxy: StartProxy, how: str, number: signal.Signals
) -> None:
    proxy = start_proxy(how=how, workers=2)
    proxy.signal(number)
    assert proxy.wait() in (0, 2)
    proxy.assert_nothing_left()


@pytest.mark.ours
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_whole_group_is_a_quiet_stop_too(
    start_proxy: StartProxy, number: signal.Signals
) -> None:
    proxy = start_proxy(workers=2)
    # As systemd and a terminal's Ctrl-C do it.
    os.killpg(proxy.pid, number)
    assert proxy.wait() in (0, 2)
    proxy.assert_nothing_left()
    assert "error" not in proxy.log()
    assert "restart" not in proxy.log()


def test_sigint_does_not_wait_for_a_request_in_flight(start_proxy: StartProxy) -> None:
    never = threading.Event()
    with RawTarget(stalled(never)) as target:
        proxy = start_proxy("--default-target", target.url)
        with proxy.client() as client:
            client.send(get("/slow"))
            target.wait_for_requests(1, complete=False)
            proxy.signal(signal.SIGINT)
            proxy.wait(timeout=5)
    proxy.assert_nothing_left()


@pytest.mark.ours
@pytest.mark.parametrize("how", WAYS)
def test_no_process_outlives_an_arbiter_killed_with_sigkill(
    start_proxy: StartProxy, how: str
) -> None:
    proxy = start_proxy(how=how, workers=2)
    assert len(proxy.tree()) == 4, "arbiter, management process, two workers"
    os.kill(proxy.pid, signal.SIGKILL)
    proxy.wait()
    proxy.assert_nothing_left(timeout=3)


def test_a_restarted_server_starts_with_an_empty_table(start_proxy: StartProxy) -> None:
    first = start_proxy()
    first.api.add("/user/a", "http://127.0.0.1:9")
    first.stop()
    assert start_proxy().api.routes() == {}


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_lists_the_options_and_exits_with_0(flag: str) -> None:
    done = run_to_exit(flag)
    assert done.returncode == 0
    for option in ("--ip", "--default-target", "--api-ssl-key", "--storage-backend", "--timeout"):
        assert option in done.stdout


@pytest.mark.parametrize("flag", ["-V", "--version"])
def test_version_is_printed_and_exits_with_0(flag: str) -> None:
    done = run_to_exit(flag)
    assert done.returncode == 0
    assert re.search(r"\d+\.\d+\.\d+", done.stdout)


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--no-such-option"], "--no-such-option"),
        (["--port", "http"], "--port"),
        (["--socket", "/tmp/chp.sock", "--port", "8000"], "--socket"),
        (["--custom-header", "no colon"], "colon was expected"),
        (["--default-target", "nonsense"], "--default-target"),
        (["--redirect-port", "80"], "redirect"),
        (["--redirect-http"], "--trusted-proxies"),
    ],
)
@pytest.mark.ours
@pytest.mark.parametrize("how", WAYS)
def test_a_wrong_option_is_one_line_and_exit_1(how: str, flags: list[str], named: str) -> None:
    done = run_to_exit(*flags, how=how)
    output = (done.stdout + done.stderr).strip()
    assert done.returncode == 1, output
    assert named in output
    assert "Traceback" not in output


@pytest.mark.ours
@pytest.mark.parametrize("flag", ["--port", "--api-port"])
def test_a_port_in_use_is_named_and_exits_with_1(flag: str) -> None:
    other = {"--port": "--api-port", "--api-port": "--port"}[flag]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        addresses = ["--ip", "127.0.0.1", "--api-ip", "127.0.0.1"]
        done = run_to_exit(*addresses, flag, str(port), other, str(free_ports(1)[0]))
    output = done.stdout + done.stderr
    assert done.returncode == 1, output
    assert str(port) in output
    assert flag in output
    assert "Traceback" not in output


def test_without_a_token_the_api_is_open_and_a_warning_says_so(start_proxy: StartProxy) -> None:
    proxy = start_proxy(token=None)
    proxy.wait_for_log("warn: REST API is not authenticated")
    assert proxy.api.routes() == {}


def test_the_api_listens_on_the_port_above_the_public_one(start_proxy: StartProxy) -> None:
    def pair_is_free() -> int | None:
        port = free_ports(1)[0]
        with socket.socket() as probe:
            return port if probe.connect_ex(("127.0.0.1", port + 1)) else None

    port = wait_until(pair_is_free, 5, "two free ports side by side")
    proxy = start_proxy("--ip", "127.0.0.1", "--port", str(port), own_addresses=True)
    assert proxy.api_port == port + 1
    with RawClient(("127.0.0.1", port + 1)) as client:
        assert client.request(get("/api/routes")).status == 403


@pytest.mark.ours
def test_python_m_runs_the_same_command(start_proxy: StartProxy) -> None:
    proxy = start_proxy(command=[sys.executable, "-m", "chp_gevent"])
    assert proxy.get("/").status == 404


@pytest.mark.ours
def test_a_whole_life_is_free_of_warnings(start_proxy: StartProxy) -> None:
    with EchoTarget() as target:
        command = [sys.executable, "-W", "error", *CONSOLE_SCRIPT[1:]]
        metrics = ["--metrics-ip", "127.0.0.1", "--metrics-port", "0"]
        proxy = start_proxy("--default-target", target.url, *metrics, command=command)
        assert proxy.get("/x").status == 200
        proxy.signal(signal.SIGHUP)
        proxy.wait_for_log("reloaded: ")
        assert proxy.get("/x").status == 200
        proxy.stop()
    for sign in ("Warning", "Traceback", "ignored"):
        assert sign not in proxy.log()


@pytest.mark.ours
def test_systemd_is_told_when_the_server_is_ready_and_not_before(
    start_proxy: StartProxy, tmp_path: Path
) -> None:
    pid_file = tmp_path / "proxy.pid"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(10)
        told: list[tuple[bytes, bool]] = []

        def listen() -> None:
            told.append((systemd.recv(1000), pid_file.exists()))

        listener = threading.Thread(target=listen)
        listener.start()
        environment = {"NOTIFY_SOCKET": str(tmp_path / "notify")}
        start_proxy("--pid-file", str(pid_file), env=environment)
        listener.join()
        assert told == [(b"READY=1", True)]
