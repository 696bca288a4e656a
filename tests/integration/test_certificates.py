"""Certificates that are renewed under a running server, and TLS sessions that clients resume."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import requests
import trustme

from tests.kit.effort import rounds
from tests.kit.option_servers import start_server
from tests.kit.peers import wait_until
from tests.kit.processes import holder_of_connection
from tests.kit.server import Proxy, free_ports

pytestmark = pytest.mark.ours

StartServer = Callable[..., Proxy]

HOST = "proxy.example"
# Seconds within which a new certificate is to be served by all: two looks, and two heartbeats.
SOON = 5.0
SWAPS = rounds(5, 20)
ASK = b"GET /_chp_healthz HTTP/1.1\r\nHost: a\r\n\r\n"


class Issuer:
    """An authority, and where it puts what it issues."""

    def __init__(self, folder: Path) -> None:
        self.authority = trustme.CA()
        self.folder = folder
        self.ca = folder / "ca.pem"
        self.authority.cert_pem.write_to_path(str(self.ca))

    def issue(self, folder: Path) -> int:
        """Write a new pair into a folder, one file after the other; return its serial number."""
        issued = self.authority.issue_cert(HOST)
        folder.mkdir(exist_ok=True)
        (folder / "tls.key").write_bytes(issued.private_key_pem.bytes())
        (folder / "tls.crt").write_bytes(b"".join(b.bytes() for b in issued.cert_chain_pems))
        return serial_of(folder / "tls.crt")

    def context(self) -> ssl.SSLContext:
        """A client's that trusts it."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.authority.configure_trust(context)
        return context


def serial_of(path: Path) -> int:
    decoded = ssl._ssl._test_decode_cert(str(path))  # type: ignore[attr-defined]
    return int(decoded["serialNumber"], 16)


@pytest.fixture(name="start_server")
def start_server_fixture() -> Iterator[StartServer]:
    with ExitStack() as servers:
        yield lambda *flags: servers.enter_context(start_server(*flags))


@pytest.fixture
def issuer(tmp_path: Path) -> Issuer:
    return Issuer(tmp_path)


@pytest.fixture
def live(issuer: Issuer, tmp_path: Path) -> Path:
    """A folder with a pair of files that a server may be started with."""
    folder = tmp_path / "live"
    issuer.issue(folder)
    return folder


def flags(folder: Path, prefix: str = "--ssl") -> tuple[str, ...]:
    return f"{prefix}-key", str(folder / "tls.key"), f"{prefix}-cert", str(folder / "tls.crt")


@contextmanager
def connected(
    address: tuple[str, int], context: ssl.SSLContext, session: ssl.SSLSession | None = None
) -> Iterator[ssl.SSLSocket]:
    """A connection that has been answered once."""
    with (
        socket.create_connection(address, 10) as plain,
        context.wrap_socket(plain, server_hostname=HOST, session=session) as sock,
    ):
        sock.sendall(ASK)
        assert sock.recv(1000).startswith(b"HTTP/1.1 ")
        yield sock


def serials(address: tuple[str, int], context: ssl.SSLContext, count: int) -> set[int]:
    """Return the serial numbers that so many connections at once are shown."""
    with ExitStack() as held:
        socks = [held.enter_context(connected(address, context)) for _ in range(count)]
        return {serial_shown(sock) for sock in socks}


def serial_shown(sock: ssl.SSLSocket) -> int:
    return int(str((sock.getpeercert() or {})["serialNumber"]), 16)


def served_soon(proxy: Proxy, issuer: Issuer, serial: int) -> None:
    """Fail unless all workers show a certificate soon."""
    context = issuer.context()
    wait_until(
        lambda: (
            serials(proxy.address, context, 1) == serials(proxy.address, context, 8) == {serial}
        ),
        SOON,
        "the new certificate everywhere",
    )


class Handshakes:
    """New connections all the time; ``failed`` has what went wrong with which."""

    def __init__(self, proxy: Proxy, issuer: Issuer) -> None:
        self._proxy = proxy
        self._context = issuer.context()
        self.done = 0
        self.failed: list[str] = []
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(2)]

    def _run(self) -> None:
        while not self._end.wait(0.02):
            try:
                with connected(self._proxy.address, self._context):
                    self.done += 1
            except (OSError, AssertionError) as error:
                self.failed.append(repr(error))

    def __enter__(self) -> Handshakes:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()


def replace(source: Path, target: Path) -> None:
    """Put the files of one folder into another, each whole."""
    for name in ("tls.key", "tls.crt"):
        temporary = target / f".{name}"
        shutil.copy(source / name, temporary)
        temporary.rename(target / name)


def test_new_files_are_served_by_all_and_no_handshake_fails(
    start_server: StartServer, issuer: Issuer, live: Path, tmp_path: Path
) -> None:
    proxy = start_server(*flags(live), "--workers", "2")
    with connected(proxy.address, issuer.context()) as old, Handshakes(proxy, issuer) as handshakes:
        workers = proxy.worker_pids()
        for number in range(SWAPS):
            serial = issuer.issue(tmp_path / f"new-{number}")
            replace(tmp_path / f"new-{number}", live)
            served_soon(proxy, issuer, serial)
            old.sendall(ASK)
            assert old.recv(1000).startswith(b"HTTP/1.1 200"), "no connection is touched"
        assert proxy.worker_pids() == workers
    assert handshakes.failed == []
    assert handshakes.done > 5 * SWAPS
    assert (
        proxy.log().count("--ssl: the files have changed, and are in use as they are now") == SWAPS
    )


def test_the_links_of_kubernetes(start_server: StartServer, issuer: Issuer, tmp_path: Path) -> None:
    """A volume has links to ..data/FILE, and ..data is a link that is replaced."""
    volume = tmp_path / "volume"
    volume.mkdir()
    issuer.issue(volume / "..first")
    data = volume / "..data"
    data.symlink_to("..first")
    for name in ("tls.key", "tls.crt"):
        (volume / name).symlink_to(f"..data/{name}")
    proxy = start_server(*flags(volume), "--workers", "2")
    serial = issuer.issue(volume / "..second")
    (volume / "..data_tmp").symlink_to("..second")
    (volume / "..data_tmp").rename(data)
    shutil.rmtree(volume / "..first")
    served_soon(proxy, issuer, serial)


def test_the_links_of_certbot(start_server: StartServer, issuer: Issuer, tmp_path: Path) -> None:
    """live/NAME/privkey.pem leads to archive/NAME/privkey1.pem; each link is replaced by itself."""
    live, archive = tmp_path / "live", tmp_path / "archive"
    live.mkdir()
    archive.mkdir()

    def renew(number: int) -> int:
        serial = issuer.issue(tmp_path / f"issued{number}")
        for name in ("tls.key", "tls.crt"):
            (tmp_path / f"issued{number}" / name).rename(archive / f"{number}-{name}")
            (live / f"new-{name}").symlink_to(f"../archive/{number}-{name}")
            (live / f"new-{name}").rename(live / name)
        return serial

    renew(1)
    proxy = start_server(*flags(live), "--workers", "2")
    for number in (2, 3):
        served_soon(proxy, issuer, renew(number))


def test_what_does_not_fit_is_not_taken_and_said_once(
    start_server: StartServer, issuer: Issuer, live: Path, tmp_path: Path
) -> None:
    before = serial_of(live / "tls.crt")
    proxy = start_server(*flags(live), "--workers", "1")
    context = issuer.context()
    serial = issuer.issue(tmp_path / "new")
    refused = "error: the certificate in use stays, the new one can't be used: "
    key = live / "tls.key"
    shutil.copy(tmp_path / "new" / "tls.key", key)
    proxy.wait_for_log(f"{refused}--ssl-key: '{key}' is not the key of --ssl-cert", 10)
    key.unlink()
    proxy.wait_for_log(f"{refused}--ssl: {key}: No such file or directory", 10)
    os.mkfifo(key)
    proxy.wait_for_log(f"{refused}--ssl: '{key}' is not a regular file", 10)
    key.unlink()
    key.write_bytes((tmp_path / "new" / "tls.key").read_bytes()[:100])
    proxy.wait_for_log(f"{refused}--ssl-key: '{key}' (is malformed|has no private key)", 10)
    assert serials(proxy.address, context, 2) == {before}
    seen = proxy.log().count(refused)
    proxy.signal(signal.SIGTTIN)
    wait_until(lambda: len(proxy.worker_pids()) == 2, 10, "another worker")
    assert serials(proxy.address, context, 8) == {before}, "one that was made meanwhile, too"
    replace(tmp_path / "new", live)
    served_soon(proxy, issuer, serial)
    assert proxy.log().count(refused) == seen
    assert "/proc/self" not in proxy.log()


def test_a_worker_that_is_made_later_has_the_new_certificate(
    start_server: StartServer, issuer: Issuer, live: Path
) -> None:
    proxy = start_server(*flags(live), "--workers", "1")
    serial = issuer.issue(live)
    served_soon(proxy, issuer, serial)
    (worker,) = proxy.worker_pids()
    shutil.rmtree(live)
    os.kill(worker, signal.SIGKILL)
    wait_until(lambda: proxy.worker_pids() and worker not in proxy.tree(), 10, "another worker")
    assert serials(proxy.address, issuer.context(), 4) == {serial}


def test_the_certificate_of_the_api(start_server: StartServer, issuer: Issuer, live: Path) -> None:
    proxy = start_server(*flags(live, "--api-ssl"))
    management = management_of(proxy, issuer.context())
    serial = issuer.issue(live)
    context = issuer.context()

    def shown() -> bool:
        with connected(proxy.api_address, context) as sock:
            return serial_shown(sock) == serial

    wait_until(shown, SOON, "the new certificate")
    assert management_of(proxy, context) == management, "it is the same process"


def management_of(proxy: Proxy, context: ssl.SSLContext) -> int:
    with connected(proxy.api_address, context) as sock:
        peer = sock.getsockname()[1]
        found = holder_of_connection(proxy.tree(), proxy.api_port, peer)
    assert found is not None
    return found


def test_the_certificate_towards_targets(
    start_server: StartServer, issuer: Issuer, tmp_path: Path
) -> None:
    folder = tmp_path / "client"
    issuer.issue(folder)
    seen: list[str] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    issuer.authority.issue_cert("localhost").configure_cert(context)
    issuer.authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED

    def serve(listener: socket.socket) -> None:
        while True:
            try:
                plain, _ = listener.accept()
                with context.wrap_socket(plain, server_side=True) as sock:
                    seen.append(str((sock.getpeercert() or {})["serialNumber"]))
                    sock.recv(10_000)
                    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                    sock.sendall(answer)
            except OSError:
                return

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        try:
            client = (*flags(folder, "--client-ssl"), "--client-ssl-ca", str(issuer.ca))
            proxy = start_server(*client, "--workers", "1")
            proxy.api.add("/", f"https://localhost:{listener.getsockname()[1]}")
            assert proxy.get("/").status == 200
            serial = issuer.issue(folder)

            def shown() -> bool:
                assert proxy.get("/").status == 200
                return int(seen[-1], 16) == serial

            wait_until(shown, SOON, "the new certificate")
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


# -- sessions


def versions() -> list[ssl.TLSVersion]:
    return [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


def resumed(
    proxy: Proxy, context: ssl.SSLContext, session: ssl.SSLSession, count: int = 60
) -> tuple[int, set[int]]:
    """Come back so often with the same session; return how often it was resumed, and by whom.

    16 connections stay open, so that all workers have some.
    """
    reused, workers = 0, set()
    with ExitStack() as held:
        kept: list[ssl.SSLSocket] = []
        for _ in range(count):
            sock = held.enter_context(connected(proxy.address, context, session))
            reused += bool(sock.session_reused)
            peer = sock.getsockname()[1]
            workers.add(holder_of_connection(proxy.tree(), proxy.port, peer) or 0)
            kept.append(sock)
            if len(kept) > 16:
                kept.pop(0).close()
    return reused, workers


@pytest.mark.parametrize("version", versions())
def test_a_session_is_resumed_by_any_worker_of_any_generation(
    start_server: StartServer, issuer: Issuer, live: Path, version: ssl.TLSVersion
) -> None:
    proxy = start_server(*flags(live), "--workers", "4")
    context = issuer.context()
    context.minimum_version = context.maximum_version = version
    with connected(proxy.address, context) as first:
        session = first.session
    assert session is not None

    def comes_back(when: str) -> None:
        count, workers = resumed(proxy, context, session)
        assert count == 60, when
        assert len(workers) == 4, when

    comes_back("at first")
    victim = min(proxy.worker_pids())
    os.kill(victim, signal.SIGKILL)
    wait_until(
        lambda: victim not in proxy.tree() and len(proxy.worker_pids()) == 4, 10, "another worker"
    )
    comes_back("after a worker died")
    old = proxy.worker_pids()
    proxy.signal(signal.SIGHUP)
    proxy.wait_for_log("reloaded: 4 new workers serve", 30)
    wait_until(lambda: not old & proxy.worker_pids(), 10, "the old workers have left")
    comes_back("after an upgrade")
    serial = issuer.issue(live)
    served_soon(proxy, issuer, serial)
    comes_back("with another certificate")


def test_sessions_are_counted(start_server: StartServer, issuer: Issuer, live: Path) -> None:
    (port,) = free_ports(1)
    metrics = ("--metrics-ip", "127.0.0.1", "--metrics-port", str(port))
    proxy = start_server(*flags(live), *metrics, "--workers", "1")
    context = issuer.context()

    def counted() -> dict[str, float]:
        text = requests.get(f"http://127.0.0.1:{port}/metrics", timeout=10).text
        lines = [line.rpartition(" ") for line in text.splitlines() if line.startswith("chp_")]
        return {name: float(value) for name, _, value in lines}

    full = 'chp_tls_handshakes_total{kind="full",worker="0"}'
    again = 'chp_tls_handshakes_total{kind="resumed",worker="0"}'
    wait_until(lambda: full in counted(), 10, "the worker has its row")
    before = counted()
    with connected(proxy.address, context) as first:
        session = first.session
    assert session is not None
    resumed(proxy, context, session, 3)

    def grown() -> bool:
        now = counted()
        return (now[full] - before[full], now[again] - before[again]) == (1, 3)

    wait_until(grown, 5, lambda: f"{counted()} after {before}")
    assert counted()['chp_certificate_days_left{certificate="public"}'] > 1000


def test_sessions_end_with_the_authorities_of_clients(
    start_server: StartServer, issuer: Issuer, live: Path, tmp_path: Path
) -> None:
    """Who had a certificate of an authority that is trusted no more is not let in by a ticket."""
    clients = tmp_path / "clients.pem"
    trusted, others = trustme.CA(), trustme.CA()
    clients.write_bytes(trusted.cert_pem.bytes())
    proxy = start_server(*flags(live), "--ssl-request-cert", "--ssl-ca", str(clients))
    context = issuer.context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    trusted.issue_cert("somebody@example.org").configure_cert(context)
    with connected(proxy.address, context) as first:
        session = first.session
    with connected(proxy.address, context, session) as again:
        assert again.session_reused
    clients.write_bytes(others.cert_pem.bytes())
    proxy.wait_for_log("--ssl: the files have changed", 10)

    def is_refused() -> bool:
        try:
            with connected(proxy.address, context, session):
                return False
        except (OSError, AssertionError):
            return True

    wait_until(is_refused, SOON, "nobody is let in")
    others.issue_cert("another@example.org").configure_cert(context)
    with connected(proxy.address, context, None) as sock:
        assert not sock.session_reused
