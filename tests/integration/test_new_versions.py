"""A server becomes another version of itself: everything that clients have of it stays."""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.kit import processes
from tests.kit.peers import EchoTarget, RawTarget, get, stalled, wait_until
from tests.kit.peers.upgrades import echo, says_back, switched, switched_client
from tests.kit.server import Proxy
from tests.kit.tunnels_of_workers import tunnel_elsewhere
from tests.kit.versions import Installation, has_commit

pytestmark = pytest.mark.ours

StartProxy = Callable[..., Proxy]

# The first version that another one can take over from.
FIRST = "7c77b5461b6ec39ee9d44ad2713d27c1176f1b73"

BEGUN = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab"

TOOK_OVER = (
    r"took over from version (\S+): workers (\d+), draining (\d+), changes of the table (\d+)"
)


@pytest.fixture
def installed(tmp_path: Path) -> Installation:
    return Installation(tmp_path)


def upgraded(proxy: Proxy, number: signal.Signals = signal.SIGUSR2) -> re.Match[str]:
    """Upgrade a server; return the line in which the new version says so, matched."""
    position = proxy.log_position()
    proxy.signal(number)
    line = proxy.wait_for_log(TOOK_OVER, 30, after=position)
    proxy.wait_for_log("reloaded: ", 30, after=position)
    found = re.search(TOOK_OVER, line)
    assert found is not None
    return found


@pytest.mark.parametrize("number", [signal.SIGUSR2, signal.SIGHUP])
def test_the_installed_version_takes_over(
    start_proxy: StartProxy, installed: Installation, number: signal.Signals
) -> None:
    with EchoTarget("here") as target:
        proxy = start_proxy("--workers", "2", command=installed.command, workers=None)
        proxy.api.add("/kept", target.url)
        proxy.api.add("/gone", target.url)
        proxy.api.remove("/gone")
        before = set(proxy.tree())
        installed.install("7.8.9")
        first = upgraded(proxy, number)
        assert first.group(2, 3, 4) == ("2", "0", "3")
        installed.install("7.9.0")
        assert upgraded(proxy, number).group(1) == "7.8.9"
        wait_until(lambda: len(proxy.tree()) == 4, 10, "the old processes have left")
        assert before & set(proxy.tree()) == {proxy.pid}
        assert set(proxy.api.routes()) == {"/kept"}
        assert b"here" in proxy.get("/kept").body
        proxy.api.add("/added", target.url)
        assert b"here" in proxy.get("/added").body


@pytest.mark.skipif(not has_commit(FIRST), reason="the history of the repository is not here")
def test_an_earlier_version_is_taken_over_from(
    start_proxy: StartProxy, installed: Installation
) -> None:
    installed.install_commit(FIRST)
    with EchoTarget("here") as target, RawTarget(switched(echo)) as sockets:
        proxy = start_proxy("--workers", "2", command=installed.command, workers=None)
        proxy.api.add("/kept", target.url)
        proxy.api.add("/socket", sockets.url)
        activity = proxy.api.routes()["/kept"]["last_activity"]
        with switched_client(proxy.client(), "/socket") as old:
            installed.install("7.8.9")
            upgraded(proxy)
            assert says_back(old, "through the old version")
            proxy.api.add("/added", target.url)
            assert says_back(old, "while the new one writes the table")
        assert proxy.api.routes()["/kept"]["last_activity"] == activity
        for path in ("/kept", "/added"):
            assert b"here" in proxy.get(path).body


def test_tunnels_last_and_requests_in_flight_are_answered(
    start_proxy: StartProxy, installed: Installation
) -> None:
    release = threading.Event()

    with (
        RawTarget(switched(echo)) as sockets,
        RawTarget(stalled(release, first=BEGUN, then=b"cd")) as slow_target,
        ExitStack() as tunnels,
    ):
        proxy = start_proxy("--workers", "2", command=installed.command, workers=None)
        proxy.api.add("/socket", sockets.url)
        proxy.api.add("/slow", slow_target.url)
        clients = [
            tunnels.enter_context(switched_client(proxy.client(), "/socket")) for _ in range(10)
        ]
        waiting = tunnels.enter_context(proxy.client(30))
        waiting.send(get("/slow"))
        head = waiting.read_head()
        body = waiting.iter_body(head)
        assert next(body) == b"ab"
        for number in range(5):
            installed.install(f"0.{number}.1")
            upgraded(proxy)
            assert all(says_back(client, f"after {number}") for client in clients)
        release.set()
        assert b"".join(body) == b"cd"


def test_a_kept_connection_is_served_and_then_closed(
    start_proxy: StartProxy, installed: Installation
) -> None:
    with EchoTarget() as target:
        proxy = start_proxy(command=installed.command, workers=None)
        proxy.api.add("/", target.url)
        with proxy.client() as kept:
            assert kept.request(get("/")).status == 200
            old = proxy.worker_of(kept)
            position = proxy.log_position()
            proxy.signal(signal.SIGUSR2)
            answers = 0
            closing = False
            while not closing:
                answer = kept.request(get("/"))
                assert answer.status == 200
                answers += 1
                closing = answer.get("connection") == "close"
            assert proxy.wait_for_log("reloaded: ", 5, after=position)
            assert answers > 10
            kept.assert_closed()
        wait_until(lambda: old not in proxy.tree(), 10, "its worker has left")


@contextmanager
def changing(proxy: Proxy, target: str) -> Iterator[list[float]]:
    """Change routes all the time, and ask each; yields how long the calls took, in seconds."""
    took: list[float] = []
    failed: list[object] = []
    ended = threading.Event()

    def change() -> None:
        number = 0
        try:
            while not ended.is_set():
                path = f"/r{number % 50}"
                number += 1
                begin = time.monotonic()
                proxy.api.add(path, target)
                took.append(time.monotonic() - begin)
                if proxy.get(path).status != 200:
                    failed.append(path)
                if number % 3 == 0:
                    proxy.api.remove(path)
                    if proxy.get(path).status != 404:
                        failed.append(f"{path} is still there")
        except Exception as error:
            failed.append(error)

    thread = threading.Thread(target=change)
    thread.start()
    try:
        yield took
    finally:
        ended.set()
        thread.join()
    assert failed == []


def test_no_change_fails_or_is_forgotten_meanwhile(
    start_proxy: StartProxy, installed: Installation
) -> None:
    with EchoTarget() as target:
        proxy = start_proxy("--workers", "2", command=installed.command, workers=None)
        with changing(proxy, target.url) as took:
            for number in range(3):
                installed.install(f"0.{number}.1")
                upgraded(proxy)
        assert len(took) > 50
        # Clients wait while the management process changes. It takes 0.1 s on a calm machine.
        assert max(took) < 3


def test_upgrades_leave_what_was_there(start_proxy: StartProxy, installed: Installation) -> None:
    proxy = start_proxy("--workers", "2", command=installed.command, workers=None)

    def settled() -> bool:
        return len(proxy.tree()) == 4 and proxy.is_ready()

    def descriptors() -> list[object]:
        workers = [processes.descriptors_by_kind(pid) for pid in proxy.worker_pids()]
        management = processes.descriptors_by_kind(proxy.management_pid())
        return [processes.descriptors_by_kind(proxy.pid), management, workers]

    upgraded(proxy)
    wait_until(settled, 10, "four processes")
    before, memory = descriptors(), proxy.rss()
    for _ in range(7):
        upgraded(proxy)
    wait_until(settled, 10, "four processes")
    wait_until(lambda: descriptors() == before, 10, lambda: f"{descriptors()} as {before}")
    assert proxy.rss() < memory * 1.1
    children = [p for p in os.listdir("/proc") if p.isdigit() and parent_of(int(p)) == proxy.pid]
    assert len(children) == 3, "no zombies"


def parent_of(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text("latin-1").rpartition(")")[2].split()[1])
    except OSError:
        return 0


def test_pid_file_unix_socket_and_number_of_workers_stay(
    start_proxy: StartProxy, installed: Installation, tmp_path: Path
) -> None:
    pid_file, path = tmp_path / "pid", tmp_path / "socket"
    flags = ("--pid-file", str(pid_file), "--metrics-socket", str(path))
    proxy = start_proxy(*flags, "--workers", "1", command=installed.command, workers=None)
    proxy.signal(signal.SIGTTIN)
    wait_until(lambda: len(proxy.tree()) == 4, 10, "two workers")
    installed.install("7.8.9")
    upgraded(proxy)
    wait_until(lambda: len(proxy.tree()) == 4, 10, "two workers again")
    assert int(pid_file.read_text()) == proxy.pid
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    proxy.stop()
    assert not pid_file.exists()
    assert not path.exists()


def test_more_workers_drain_than_may(start_proxy: StartProxy, installed: Installation) -> None:
    with RawTarget(switched(echo)) as target, ExitStack() as tunnels:
        flags = ("--workers", "1", "--max-draining", "2")
        proxy = start_proxy(*flags, command=installed.command, workers=None)
        proxy.api.add("/", target.url)
        workers: set[int] = set()
        for _ in range(4):
            youngest = tunnels.enter_context(tunnel_elsewhere(proxy, workers))
            upgraded(proxy)
        proxy.wait_for_log(r"too many workers drain \(--max-draining\)")
        wait_until(lambda: len(proxy.tree()) == 5, 10, "two that drain, one that serves")
        assert says_back(youngest, "the youngest goes on")


def test_under_gunicorn(start_proxy: StartProxy, tmp_path: Path) -> None:
    with EchoTarget() as target:
        proxy = start_proxy(how="gunicorn", workers=2)
        proxy.api.add("/", target.url)
        before = set(proxy.tree())
        upgraded(proxy)
        wait_until(lambda: before & set(proxy.tree()) == {proxy.pid}, 10, "the old ones left")
        assert proxy.get("/").status == 200


def test_a_link_that_leads_to_another_version(start_proxy: StartProxy, tmp_path: Path) -> None:
    """One environment for each version, and a link to the one that counts."""
    for version in ("one", "two"):
        folder = tmp_path / version
        folder.mkdir()
        installed = Installation(folder)
        installed.install(f"{version}.0")
        script = folder / "chp-gevent"
        script.write_text(f"#!{sys.executable}\n{installed.command[2]}\n")
        script.chmod(0o755)
    current = tmp_path / "current"
    current.symlink_to("one")
    proxy = start_proxy(command=[str(current / "chp-gevent")], workers=None)
    new = tmp_path / "new"
    new.symlink_to("two")
    new.rename(current)
    assert upgraded(proxy).group(1) == "one.0"
    assert upgraded(proxy).group(1) == "two.0"


def test_systemd_is_told(start_proxy: StartProxy, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(30)
        proxy = start_proxy(env={"NOTIFY_SOCKET": str(tmp_path / "notify")})
        assert systemd.recv(1000) == b"READY=1"
        for _ in range(2):
            proxy.signal(signal.SIGHUP)
            reloading, at = systemd.recv(1000).decode().split("\n")
            assert reloading == "RELOADING=1"
            assert 0 <= time.monotonic() - int(at.removeprefix("MONOTONIC_USEC=")) / 1e6 < 30
            assert systemd.recv(1000) == b"READY=1\nSTATUS="
