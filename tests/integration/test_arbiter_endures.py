"""Nothing that happens to a child, a file or the system ends the server."""

from __future__ import annotations

import errno
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trustme

from chp_gevent.config.options import Options, TcpAddress
from chp_gevent.master.arbiter import ProxyArbiter
from chp_gevent.master.gunicorn_app import gunicorn_settings
from chp_gevent.shared.segment import Segment
from tests.kit import faulty_server as faults
from tests.kit.faulty_server import faulty
from tests.kit.option_servers import start_server
from tests.kit.peers import EchoTarget, RawClient, get, wait_until
from tests.kit.processes import holder_of_connection
from tests.kit.server import REPOSITORY, Proxy, free_ports, run_to_exit

StartProxy = Callable[..., Proxy]

# <sys/select.h>
FD_SETSIZE = 1024

pytestmark = pytest.mark.ours


def replaced(proxy: Proxy, dead: int, number: int) -> bool:
    """Whether there are ``number`` workers again, and ``dead`` is none of them."""
    workers = proxy.worker_pids()
    return len(workers) == number and dead not in workers


def kill_one_worker(proxy: Proxy) -> int:
    """Kill a worker and return its pid when the arbiter has reaped it."""
    victim = min(proxy.worker_pids())
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: not os.path.exists(f"/proc/{victim}"), 5, "the worker is gone")
    return victim


def wait_until_serving(proxy: Proxy, number: int) -> None:
    """Wait until so many workers have accepted a connection each: a process may be a beginner."""
    serving: set[int] = set()
    with ExitStack() as held:

        def all_serve() -> bool:
            serving.add(proxy.worker_of(held.enter_context(proxy.client())))
            return len(serving) == number

        wait_until(all_serve, 10, lambda: f"{number} workers serve: {serving}")


def assert_serves(proxy: Proxy) -> None:
    """Fail unless requests and API calls are answered."""
    for _ in range(5):
        assert proxy.get("/_chp_healthz").status == 200
    assert isinstance(proxy.api.routes(), dict)


# -- certificates that don't fit


class Certificates:
    """Key and certificate of a server in files; ``authority`` vouches for all of them."""

    def __init__(self, folder: Path) -> None:
        self.authority = trustme.CA()
        self.key, self.cert = folder / "key.pem", folder / "cert.pem"
        self.flags = ("--ssl-key", str(self.key), "--ssl-cert", str(self.cert))
        self.renew()

    def renew(self, *, key: bool = True, cert: bool = True) -> None:
        """Write a new pair, or one half of it: the other one then does not fit any more."""
        issued = self.authority.issue_cert("proxy.example")
        if key:
            self.key.write_bytes(issued.private_key_pem.bytes())
        if cert:
            self.cert.write_bytes(issued.cert_chain_pems[0].bytes())

    def serial(self, proxy: Proxy) -> int:
        """Return the serial number of the certificate that a new connection gets."""
        context = ssl.create_default_context()
        self.authority.configure_trust(context)
        with (
            socket.create_connection(proxy.address, 5) as plain,
            context.wrap_socket(plain, server_hostname="proxy.example") as secure,
        ):
            return int(str(secure.getpeercert()["serialNumber"]), 16)  # type: ignore[index]


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return Certificates(tmp_path)


def cut_short(certificates: Certificates) -> None:
    """Leave half of the certificate's file, as a full disk or a renewal in progress does."""
    certificates.cert.write_bytes(certificates.cert.read_bytes()[:200])


def take_away(certificates: Certificates) -> None:
    """Remove the key's file."""
    certificates.key.unlink()


def put_pipe(certificates: Certificates) -> None:
    """Have a pipe where the certificate was: to open it is to wait for a writer."""
    certificates.cert.unlink()
    os.mkfifo(certificates.cert)


SPOILT = {
    "the key of another certificate": lambda each: each.renew(cert=False),
    "half a certificate": cut_short,
    "no key": take_away,
    "a pipe": put_pipe,
    "an empty certificate": lambda each: each.cert.write_bytes(b""),
}


@contextmanager
def secure_server(certificates: Certificates, workers: int = 1) -> Iterator[Proxy]:
    """A server with TLS towards its clients, all of whose workers are there."""
    with start_server(*certificates.flags, "--workers", str(workers)) as proxy:
        wait_until(lambda: len(proxy.worker_pids()) == workers, 5, "all workers")
        yield proxy


@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT.keys())
def test_a_reload_with_files_that_cannot_be_used_is_refused_in_one_line(
    certificates: Certificates, spoil: Callable[[Certificates], None]
) -> None:
    with secure_server(certificates, workers=2) as proxy:
        before, workers = certificates.serial(proxy), proxy.worker_pids()
        spoil(certificates)
        lines = proxy.log_position()
        proxy.signal(signal.SIGHUP)
        proxy.wait_for_log(r"error: not reloaded, the workers go on: --ssl-(key|cert): ")
        assert certificates.serial(proxy) == before
        assert proxy.worker_pids() == workers
        said = proxy.log().splitlines()[lines:]
        assert len([line for line in said if "not reloaded" in line]) == 1
        # The watch over the files says so, too, whoever is first.
        others = [line for line in said if "not reloaded" not in line]
        assert all("the new one can't be used" in line for line in others)
        certificates.cert.unlink()
        certificates.renew()
        proxy.signal(signal.SIGHUP)
        wait_until(lambda: certificates.serial(proxy) != before, 10, "the renewed certificate")
        wait_until(lambda: not workers & proxy.worker_pids(), 10, "the old workers have left")
        assert certificates.serial(proxy) != before


@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT.keys())
def test_a_worker_that_dies_meanwhile_is_replaced_by_one_with_the_old_certificate(
    certificates: Certificates, spoil: Callable[[Certificates], None]
) -> None:
    with secure_server(certificates) as proxy:
        before = certificates.serial(proxy)
        spoil(certificates)
        for _ in range(2):
            dead = kill_one_worker(proxy)
            wait_until(lambda pid=dead: replaced(proxy, pid, 1), 5, "another worker")  # type: ignore[misc]
            assert certificates.serial(proxy) == before


def test_a_refused_reload_leaves_later_workers_the_old_certificate(
    certificates: Certificates,
) -> None:
    with secure_server(certificates) as proxy:
        before = certificates.serial(proxy)
        certificates.renew(key=False)
        proxy.signal(signal.SIGHUP)
        proxy.wait_for_log("not reloaded")
        dead = kill_one_worker(proxy)
        wait_until(lambda: replaced(proxy, dead, 1), 5, "another worker")
        assert certificates.serial(proxy) == before


def test_any_worker_resumes_the_tls_session_of_another(certificates: Certificates) -> None:
    context = ssl.create_default_context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    certificates.authority.configure_trust(context)
    session: ssl.SSLSession | None = None
    served: set[int] = set()
    with secure_server(certificates, workers=2) as proxy:
        while len(served) < 2:
            with (
                socket.create_connection(proxy.address, 5) as plain,
                context.wrap_socket(
                    plain, server_hostname="proxy.example", session=session
                ) as secure,
            ):
                secure.sendall(b"GET /_chp_healthz HTTP/1.1\r\nHost: a\r\n\r\n")
                assert secure.recv(100).startswith(b"HTTP/1.1 200")
                assert secure.session_reused == (session is not None)
                session = session or secure.session
                peer = secure.getsockname()[1]
                served.add(holder_of_connection(proxy.tree(), proxy.port, peer) or 0)


# -- the package on disk is another one


def test_processes_that_die_come_back_when_the_package_is_broken(
    start_proxy: StartProxy, tmp_path: Path
) -> None:
    shutil.copytree(REPOSITORY / "chp_gevent", tmp_path / "chp_gevent")
    program = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); "
        "import chp_gevent; from chp_gevent.cli import main; main()"
    )
    with EchoTarget("here") as target:
        proxy = start_proxy(command=[sys.executable, "-c", program], workers=None)
        proxy.api.add("/", target.url)
        for module in (tmp_path / "chp_gevent").rglob("*.py"):
            module.write_text("raise ImportError('another version')\n")
        for cached in (tmp_path / "chp_gevent").rglob("__pycache__"):
            shutil.rmtree(cached)
        number = len(proxy.worker_pids())
        dead = kill_one_worker(proxy)
        wait_until(lambda: replaced(proxy, dead, number), 5, "another worker")
        os.kill(proxy.management_pid(), signal.SIGKILL)
        assert "/" in proxy.api.routes()
        old = proxy.worker_pids()
        proxy.signal(signal.SIGHUP)
        proxy.wait_for_log("error: not reloaded, the workers go on: ImportError: another ver", 30)
        for _ in range(5):
            assert b"here" in proxy.get("/").body
        assert proxy.worker_pids() == old
        assert "rror" not in re.sub(".*(SIGKILL|died|not reloaded).*", "", proxy.log())


def test_children_load_nothing_from_the_disk(start_proxy: StartProxy) -> None:
    (metrics,) = free_ports(1)
    with EchoTarget() as target:
        proxy = start_proxy(
            *("--metrics-ip", "127.0.0.1", "--metrics-port", str(metrics)),
            command=[
                *(sys.executable, "-X", "importtime", "-c"),
                "from chp_gevent.cli import main; main()",
            ],
            workers=None,
        )
        start = proxy.log_position()
        proxy.api.add("/", target.url.replace("127.0.0.1", "localhost"))
        assert proxy.get("/").status == 200
        for _ in range(3):
            kill_one_worker(proxy)
            assert proxy.get("/").status == 200
        os.kill(proxy.management_pid(), signal.SIGKILL)
        assert "/" in proxy.api.routes()
        with RawClient(("127.0.0.1", metrics)) as client:
            assert client.request(get("/metrics")).status == 200
        loaded = [line for line in proxy.log().splitlines()[start:] if "import time:" in line]
        assert loaded == []


# -- the system has no room for another process, pipe or file


@pytest.mark.parametrize("fault", [faults.FORK_FAILS, faults.PIPE_FAILS], ids=["fork", "pipe"])
def test_processes_that_cannot_be_started_are_tried_again(
    start_proxy: StartProxy, tmp_path: Path, fault: str
) -> None:
    flag = tmp_path / "broken"
    proxy = start_proxy("--workers", "2", command=faulty(flag, fault), workers=None)
    wait_until_serving(proxy, 2)
    flag.touch()
    if fault == faults.FORK_FAILS:
        kill_one_worker(proxy)
        proxy.wait_for_log(r"error: cannot start a worker: .*; trying again in 0\.25 s")
        proxy.wait_for_log(r"error: cannot start a worker: .*; trying again in 0\.5 s")
        assert proxy.get("/_chp_healthz").status == 200
    os.kill(proxy.management_pid(), signal.SIGKILL)
    proxy.wait_for_log("error: cannot start the management process: .*; trying again")
    flag.unlink()
    wait_until_serving(proxy, 2)
    assert_serves(proxy)


def test_a_worker_that_is_killed_before_it_serves_leaves_the_others(
    start_proxy: StartProxy, tmp_path: Path
) -> None:
    program = faulty(tmp_path / "x", faults.ONE_SERVES_UNNOTICED)
    proxy = start_proxy("--workers", "2", command=program, workers=None)
    with proxy.client() as client:
        serves = proxy.worker_of(client)
    (victim,) = wait_until(lambda: proxy.worker_pids() - {serves}, 5, "the second worker")
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: replaced(proxy, victim, 2), 10, "another worker")
    assert serves in proxy.worker_pids()
    assert_serves(proxy)


def test_a_management_process_that_dies_is_never_taken_for_one_that_was_stopped(
    start_proxy: StartProxy,
) -> None:
    proxy = start_proxy(workers=2)
    for _ in range(5):
        # Both at once: whoever asks the kernel for one child gets to know of the other, too.
        victim, management = min(proxy.worker_pids()), proxy.management_pid()
        os.kill(management, signal.SIGKILL)
        os.kill(victim, signal.SIGKILL)
        proxy.wait_for_log(rf"management process \(pid {management}\) died; restarting it")
        wait_until(lambda dead=victim: replaced(proxy, dead, 2), 5, "another worker")  # type: ignore[misc]
    assert "was stopped" not in proxy.log()


def test_no_file_is_needed_for_workers(start_proxy: StartProxy, tmp_path: Path) -> None:
    proxy = start_proxy(command=faulty(tmp_path / "x", faults.NO_TEMPORARY_FILES), workers=None)
    dead = kill_one_worker(proxy)
    wait_until(lambda: dead not in proxy.worker_pids(), 5, "another worker")
    assert_serves(proxy)


def test_a_working_directory_that_is_gone_does_not_matter(
    start_proxy: StartProxy, tmp_path: Path
) -> None:
    lost = tmp_path / "lost"
    lost.mkdir()
    # A file, as the command is: with -c, Python 3.13.0 fails there by itself.
    program = tmp_path / "program.py"
    program.write_text(
        f"import os, sys; sys.path.insert(0, {str(REPOSITORY)!r}); os.chdir({str(lost)!r}); "
        f"os.rmdir({str(lost)!r}); from chp_gevent.cli import main; main()",
        encoding="utf-8",
    )
    proxy = start_proxy(command=[sys.executable, str(program)], workers=None)
    dead = kill_one_worker(proxy)
    wait_until(lambda: dead not in proxy.worker_pids(), 5, "another worker")
    assert_serves(proxy)


def test_a_bug_in_the_loop_is_a_line_and_not_the_end(
    start_proxy: StartProxy, tmp_path: Path
) -> None:
    flag = tmp_path / "broken"
    proxy = start_proxy(command=faulty(flag, faults.THE_LOOP_HAS_A_BUG), workers=None)
    flag.touch()
    proxy.wait_for_log("looking after hanging workers failed: RuntimeError: a bug; trying again")
    dead = kill_one_worker(proxy)
    wait_until(lambda: dead not in proxy.worker_pids(), 5, "another worker")
    assert_serves(proxy)
    assert proxy.log().count("a bug") == 1, "the same is not said each second"


# -- workers that can't boot


def test_a_worker_that_cannot_boot_is_one_line_and_tried_again(
    start_proxy: StartProxy, tmp_path: Path
) -> None:
    flag = tmp_path / "broken"
    command = faulty(flag, faults.WORKERS_CANNOT_BOOT)
    proxy = start_proxy("--workers", "2", command=command, workers=None)
    wait_until_serving(proxy, 2)
    flag.touch()
    kill_one_worker(proxy)
    proxy.wait_for_log("error: worker could not start: MemoryError: not enough of it")
    proxy.wait_for_log(r"error: worker \(pid \d+\) could not start; trying again in 0\.25 s")
    proxy.wait_for_log(r"error: worker \(pid \d+\) could not start; trying again in 0\.5 s")
    assert "Traceback" not in proxy.log()
    assert_serves(proxy)
    arbiter_files = len(os.listdir(f"/proc/{proxy.pid}/fd"))
    proxy.wait_for_log(r"could not start; trying again in 1 s", 10)
    assert len(os.listdir(f"/proc/{proxy.pid}/fd")) <= arbiter_files, "heartbeats are closed"
    flag.unlink()
    wait_until_serving(proxy, 2)


def test_a_worker_that_ends_at_once_is_replaced_after_a_pause(
    start_proxy: StartProxy, tmp_path: Path
) -> None:
    flag = tmp_path / "broken"
    command = faulty(flag, faults.WORKERS_END_AT_ONCE)
    proxy = start_proxy("--workers", "2", command=command, workers=None)
    served: set[int] = set()
    while len(served) < 2:
        with proxy.client() as client:
            assert client.request(get("/_chp_healthz")).status == 200
            served.add(proxy.worker_of(client))
    flag.touch()
    kill_one_worker(proxy)
    for pause in ("0.25", "0.5", "1"):
        proxy.wait_for_log(rf"error: worker \(pid \d+\) ended at once; .* in {pause} s")
    assert_serves(proxy)
    flag.unlink()
    wait_until_serving(proxy, 2)


def test_at_the_first_start_a_worker_that_cannot_boot_ends_the_server(tmp_path: Path) -> None:
    flag = tmp_path / "broken"
    flag.touch()
    port, api_port = free_ports(2)
    result = subprocess.run(
        [
            *faulty(flag, faults.WORKERS_CANNOT_BOOT),
            *("--ip", "127.0.0.1", "--port", str(port), "--workers", "1"),
            *("--api-ip", "127.0.0.1", "--api-port", str(api_port), "--log-level", "error"),
        ],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    lines = (result.stdout + result.stderr).splitlines()
    assert result.returncode == 3
    assert len(lines) == 1
    assert "worker could not start: MemoryError: not enough of it" in lines[0]


def test_old_workers_serve_until_all_new_ones_accept(
    start_proxy: StartProxy, tmp_path: Path
) -> None:
    flag = tmp_path / "broken"
    command = faulty(flag, faults.WORKERS_BOOT_FOR_EVER)
    proxy = start_proxy("--workers", "2", command=command, workers=None)
    wait_until_serving(proxy, 2)
    old = proxy.worker_pids()
    flag.touch()
    proxy.signal(signal.SIGHUP)
    wait_until(lambda: len(proxy.worker_pids()) == 4, 5, "new workers beside the old ones")
    assert_serves(proxy)
    assert old < proxy.worker_pids()
    flag.unlink()
    proxy.wait_for_log("info: reloaded: 2 new workers serve, the old ones drain")
    wait_until(lambda: not old & proxy.worker_pids(), 5, "the old workers have left")
    assert_serves(proxy)


@pytest.mark.parametrize("fault", [faults.WORKERS_BOOT_FOR_EVER, faults.WORKERS_CANNOT_BOOT])
def test_old_workers_go_on_when_new_ones_do_not_come_up(
    start_proxy: StartProxy, tmp_path: Path, fault: str
) -> None:
    flag = tmp_path / "broken"
    command = faulty(flag, fault, faults.RENEWALS_ARE_OVERDUE_AFTER_A_SECOND)
    proxy = start_proxy("--workers", "2", command=command, workers=None)
    wait_until_serving(proxy, 2)
    old = proxy.worker_pids()
    flag.touch()
    proxy.signal(signal.SIGHUP)
    proxy.wait_for_log("error: not reloaded, the old workers go on: new ones did not come up")
    assert_serves(proxy)
    flag.unlink()
    wait_until(lambda: proxy.worker_pids() == old, 10, "the old workers, and no others")
    assert_serves(proxy)


def test_a_reload_during_a_reload_is_done_after_it(start_proxy: StartProxy) -> None:
    proxy = start_proxy()
    for _ in range(2):
        proxy.signal(signal.SIGHUP)
        wait_until(lambda: "reloaded" in proxy.log() or len(proxy.tree()) > 3, 5, "it has begun")
    wait_until(lambda: proxy.log().count("reloaded:") == 2, 10, "both reloads")
    assert_serves(proxy)


def test_middleware_that_cannot_be_loaded_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "broken_middleware.py").write_text("raise KeyError('setting')\n")
    (tmp_path / "conf.py").write_text(
        "from chp_gevent.cli import settings_from_environment\n"
        "globals().update(settings_from_environment())\n"
        "wsgi_app = 'broken_middleware:application'\n"
    )
    result = subprocess.run(
        [sys.executable, "-m", "gunicorn", "-c", str(tmp_path / "conf.py")],
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": f"{REPOSITORY}:{tmp_path}",
            "CHP_ARGS": "--ip 127.0.0.1 --port 0 --api-ip 127.0.0.1 --api-port 0",
            "CONFIGPROXY_AUTH_TOKEN": "x",
        },
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert result.returncode == 1
    assert result.stderr.splitlines() == ["error: wsgi_app can't be loaded: KeyError: 'setting'"]


def test_options_are_checked_at_the_start_before_anything_listens(tmp_path: Path) -> None:
    result = run_to_exit("--error-path", str(tmp_path / "missing"))
    assert result.returncode == 1
    assert "--error-path" in result.stderr


def test_workers_beyond_the_rows_of_the_segment_are_refused() -> None:
    arbiter = ProxyArbiter.__new__(ProxyArbiter)
    arbiter.segment = Segment(rows=3, routes=1)
    arbiter.options = Options(TcpAddress("", 0), TcpAddress("", 0))
    arbiter.tls = arbiter._journal = None  # type: ignore[assignment]
    taken: list[Any] = [SimpleNamespace(row_index=index) for index in range(2)]
    third: Any = SimpleNamespace()
    arbiter.WORKERS = {1: taken[0]}
    arbiter.draining = {2: taken[1]}
    # The last row is the management process's.
    with pytest.raises(RuntimeError, match="there are 2 workers already"):
        arbiter.assign_row(third)


def test_systemd_is_told_and_the_children_are_none_the_worse(
    start_proxy: StartProxy, tmp_path: Path
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
        notified.bind(str(tmp_path / "notify"))
        notified.settimeout(10)
        proxy = start_proxy(env={"NOTIFY_SOCKET": str(tmp_path / "notify")})
        assert b"READY=1" in notified.recv(1000)
        dead = kill_one_worker(proxy)
        wait_until(lambda: replaced(proxy, dead, 1), 5, "another worker")
        os.kill(proxy.management_pid(), signal.SIGKILL)
        assert_serves(proxy)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGQUIT])
def test_a_signal_to_the_whole_group_ends_all_without_a_traceback(
    start_proxy: StartProxy, number: signal.Signals
) -> None:
    proxy = start_proxy(workers=2)
    for _ in range(3):
        # Ctrl-C, pressed again and again.
        os.killpg(proxy.pid, number)
    assert proxy.wait(10) == 0
    proxy.assert_nothing_left()
    assert "Traceback" not in proxy.log()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_unix_socket_whose_file_is_gone_does_not_disturb_the_end(
    tmp_path: Path, number: signal.Signals
) -> None:
    path = tmp_path / "proxy.sock"
    with start_server("--socket", str(path), stop=number) as proxy:
        wait_until(lambda: len(proxy.worker_pids()) == 1, 5, "the worker")
        path.unlink()
        proxy.signal(number)
        assert proxy.wait(10) == 0
    assert "Traceback" not in proxy.log()


def test_a_stop_at_once_does_not_wait_for_a_worker_that_stands_still(
    start_proxy: StartProxy,
) -> None:
    proxy = start_proxy(workers=2)
    os.kill(min(proxy.worker_pids()), signal.SIGSTOP)
    proxy.signal(signal.SIGINT)
    assert proxy.wait(10) == 0
    proxy.assert_nothing_left()


def test_a_hang_up_of_the_whole_group_is_a_reload(start_proxy: StartProxy) -> None:
    """As when the terminal is closed."""
    proxy = start_proxy(workers=2)
    os.killpg(proxy.pid, signal.SIGHUP)
    proxy.wait_for_log("reloaded: 2 new workers serve")
    assert_serves(proxy)
    assert "was sent SIGHUP" not in proxy.log()


def test_a_reload_does_not_need_the_folder_of_the_pid_file(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    with start_server("--pid-file", str(folder / "proxy.pid")) as proxy:
        shutil.rmtree(folder)
        proxy.signal(signal.SIGHUP)
        proxy.wait_for_log("reloaded: 1 new workers serve")


def test_more_descriptors_than_select_takes_do_not_matter() -> None:
    """The arbiter has one for each worker that serves or drains."""
    read, write = os.pipe()
    inherited = [read, write]
    try:
        while inherited[-1] < FD_SETSIZE + 64:
            inherited.append(os.dup(write))
        for descriptor in inherited:
            os.set_inheritable(descriptor, True)
        port, api_port = free_ports(2)
        flags = f"--ip 127.0.0.1 --port {port} --api-port {api_port} --workers 1"
        with subprocess.Popen(
            [sys.executable, "-m", "chp_gevent", *flags.split()],
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            close_fds=False,
        ) as process:
            assert process.stdout is not None
            lines = iter(process.stdout.readline, "")
            assert any("Proxy API at" in line for line in lines)
            process.send_signal(signal.SIGTERM)
            assert process.wait(10) == 0
    finally:
        for descriptor in inherited:
            os.close(descriptor)


def test_draining_workers_leave_rows_for_a_reload(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when there are more workers than the server was started with (SIGTTIN)."""
    arbiter = ProxyArbiter.__new__(ProxyArbiter)
    arbiter.segment = Segment(rows=11, routes=1)
    arbiter.options = Options(TcpAddress("", 0), TcpAddress("", 0), max_draining=8)
    arbiter._num_workers = 3
    arbiter._cut_off = {}
    drain: dict[int, Any] = dict.fromkeys(range(6))
    arbiter.draining = drain
    ended: list[int] = []
    monkeypatch.setattr(ProxyArbiter, "kill_worker", lambda self, pid, sig: ended.append(pid))
    arbiter._cut_off_oldest()
    # Ten rows: three workers serve, a reload starts three more.
    assert ended == [0, 1]


def test_a_start_without_memory_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(arbiter: object, options: Options) -> None:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    monkeypatch.setattr(ProxyArbiter, "adopt", fail)
    settings = gunicorn_settings(Options(TcpAddress("", 0), TcpAddress("", 0)))
    with pytest.raises(SystemExit) as end:
        settings["on_starting"](SimpleNamespace())
    assert end.value.code == 1
    assert capsys.readouterr().err == "error: cannot start: Cannot allocate memory\n"
