"""HTTPS by itself: servers that get their certificates from Let's Encrypt's server for tests."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.kit.option_servers import start_server
from tests.kit.pebble import MISSING, WHY_SKIPPED, Pebble, pebble
from tests.kit.peers import RawClient, get, wait_until
from tests.kit.server import Proxy, free_ports, run_to_exit

pytestmark = [
    pytest.mark.ours,
    pytest.mark.skipif(bool(MISSING), reason=WHY_SKIPPED),
]

NAME = "hub.test"
HEALTH = "/_chp_healthz"


class Site:
    """What a server for ``NAME`` is started with, and its clients."""

    def __init__(self, folder: Path, ca: Pebble, redirect_port: int) -> None:
        self.ca = ca
        self.redirect_port = redirect_port
        self.storage = folder / "storage"

    def server(self, *flags: str, workers: int = 1) -> AbstractContextManager[Proxy]:
        """Start a server."""
        return start_server(
            *("--acme-domain", NAME, "--acme-agree-tos", "--acme-ca", self.ca.ca),
            *("--acme-directory", self.ca.directory, "--acme-storage", str(self.storage)),
            *("--redirect-port", str(self.redirect_port), "--workers", str(workers)),
            *flags,
        )

    def context(self) -> ssl.SSLContext:
        """Return what trusts the CA's certificates, and nothing else."""
        return ssl.create_default_context(cafile=self.ca.root)

    def certificate(self, proxy: Proxy, context: ssl.SSLContext | None = None) -> str:
        """Return the serial number that a client is shown, which got a page. Raises OSError."""
        with (
            socket.create_connection(proxy.address, timeout=10) as sock,
            (context or self.context()).wrap_socket(sock, server_hostname=NAME) as client,
        ):
            client.sendall(get(HEALTH, host=NAME).encode())
            assert client.recv(4096).startswith(b"HTTP/1.1 200 ")
            shown = client.getpeercert()
            assert shown is not None
            return str(shown["serialNumber"])

    def state(self) -> dict[str, object]:
        """Return what the server remembers of its attempts."""
        state: dict[str, object] = json.loads((self.storage / "state.json").read_text())
        return state


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A site whose CA issues certificates for five years."""
    redirect_port = free_ports(1)[0]
    with pebble(tmp_path, redirect_port) as ca:
        yield Site(tmp_path, ca, redirect_port)


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl")
def test_from_nothing_to_a_page_with_one_command(site: Site) -> None:
    with site.server() as proxy:
        page = subprocess.run(
            [
                *("curl", "--silent", "--show-error", "--cacert", site.ca.root),
                *("--resolve", f"{NAME}:{proxy.port}:127.0.0.1"),
                f"https://{NAME}:{proxy.port}{HEALTH}",
            ],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert (page.stdout, page.stderr, page.returncode) == ('{"status":"OK"}', "", 0)


def test_handshakes_wait_on_all_workers_and_the_others_come_as_ever(site: Site) -> None:
    with site.server(workers=3) as proxy:
        context = site.context()
        serials: set[str] = set()
        failures: list[BaseException] = []

        def visit() -> None:
            try:
                serials.add(site.certificate(proxy, context))
            except OSError as error:
                failures.append(error)

        visitors = [threading.Thread(target=visit) for _ in range(24)]
        for visitor in visitors:
            visitor.start()
        for visitor in visitors:
            visitor.join()
        assert not failures
        assert len(serials) == 1
        # Anything but a challenge is redirected, whatever the host.
        with RawClient(("127.0.0.1", site.redirect_port)) as client:
            for path in ("/x", "/.well-known/acme-challenge/unknown"):
                answer = client.request(get(path, host="any.test"))
                assert answer.status == 301
                assert answer.get("location") == f"https://any.test:{proxy.port}{path}"


def test_ten_restarts_are_one_order(site: Site) -> None:
    serials = set()
    for _ in range(10):
        with site.server() as proxy:
            serials.add(site.certificate(proxy))
    assert site.ca.orders() == 1
    assert len(serials) == 1


def test_a_wrong_name_is_told_to_the_log_and_its_clients_fail_soon(site: Site) -> None:
    site.ca.lose_name(NAME)
    with site.server() as proxy:
        proxy.wait_for_log(f"error: ACME: no certificate for {NAME}: the CA says of {NAME}: ", 20)
        began = time.monotonic()
        for _ in range(2):
            assert served(site, proxy) == ""
        assert 5 < (time.monotonic() - began) / 2 < 10
        line = proxy.wait_for_log("warn: TLS handshakes fail, since there is no certificate for ")
        assert f"{NAME} yet: the CA says of {NAME}: " in line
        assert proxy.log().count("TLS handshakes fail") == 1
        proxy.api.routes()
    orders = site.ca.orders()
    # A restart is no reason to ask again.
    with site.server() as proxy:
        proxy.wait_for_log("warn: ACME: waiting before another certificate for ")
        proxy.api.routes()
    assert site.ca.orders() == orders
    site.ca.find_name(NAME)
    (site.storage / "state.json").unlink()
    with site.server() as proxy:
        site.certificate(proxy)


def test_a_ca_that_is_down_at_the_start_is_asked_again(site: Site) -> None:
    site.ca.stop()
    with site.server() as proxy:
        proxy.wait_for_log(f"error: ACME: no certificate for {NAME}: the CA can't be reached: ", 20)
        site.ca.start()
        proxy.wait_for_log(f"info: ACME: got a certificate for {NAME}, valid until ", 40)
        site.certificate(proxy)


def test_the_api_answers_while_the_ca_does_not(site: Site) -> None:
    site.ca.freeze()
    with site.server() as proxy:
        proxy.wait_for_log("info: ACME: asking ")
        slowest = 0.0
        for number in range(200):
            began = time.monotonic()
            proxy.api.add(f"/route-{number}", "http://127.0.0.1:9")
            slowest = max(slowest, time.monotonic() - began)
        assert slowest < 0.5
        site.ca.thaw()
        site.certificate(proxy)


def test_another_management_process_goes_on_with_the_order(site: Site) -> None:
    site.ca.stop()
    site.ca.start(PEBBLE_VA_NOSLEEP="", PEBBLE_VA_SLEEPTIME="3")
    with site.server() as proxy:
        wait_until(lambda: (site.storage / "state.json").exists(), 20, "an order is placed")
        subprocess.run(["kill", "-9", str(proxy.management_pid())], check=True)
        proxy.wait_for_log(f"info: ACME: got a certificate for {NAME}, valid until ", 60)
        site.certificate(proxy)
    assert site.ca.orders() == 1


@pytest.mark.parametrize("workers", [2])
def test_renewed_under_load_without_a_failure(tmp_path: Path, workers: int) -> None:
    """Certificates for 15 seconds, each renewed with 5 left; the load takes new connections."""
    redirect_port = free_ports(1)[0]
    with pebble(tmp_path, redirect_port, lifetime=15) as ca:
        site = Site(tmp_path, ca, redirect_port)
        with site.server(workers=workers) as proxy:
            context = site.context()
            site.certificate(proxy, context)
            serials: Counter[str] = Counter()
            failures: list[BaseException] = []
            over = threading.Event()

            def load() -> None:
                while not over.wait(0.05):
                    try:
                        serials[site.certificate(proxy, context)] += 1
                    except (OSError, AssertionError) as error:
                        failures.append(error)

            clients = [threading.Thread(target=load) for _ in range(4)]
            for client in clients:
                client.start()
            try:
                wait_until(lambda: len(serials) >= 4 or failures, 90, "three renewals")
            finally:
                over.set()
                for client in clients:
                    client.join()
            assert not failures
            assert sum(serials.values()) > 500
            assert ca.orders() >= 4


def test_the_ca_goes_and_comes_while_the_certificate_stays(tmp_path: Path) -> None:
    redirect_port = free_ports(1)[0]
    with pebble(tmp_path, redirect_port, lifetime=30) as ca:
        site = Site(tmp_path, ca, redirect_port)
        with site.server() as proxy:
            first = site.certificate(proxy)
            context = site.context()
            ca.stop()
            proxy.wait_for_log(f"error: ACME: certificate for {NAME} not renewed: the CA can't", 40)
            assert site.certificate(proxy, context) == first
            # It has forgotten the account, and has another root.
            position = proxy.log_position()
            ca.start()
            proxy.wait_for_log("info: ACME: got a certificate", 40, after=position)
            wait_until(lambda: served(site, proxy) not in ("", first), 10, "the new one is served")


def served(site: Site, proxy: Proxy) -> str:
    """Return the serial number that is shown, empty if it is not accepted."""
    try:
        return site.certificate(proxy)
    except OSError:
        return ""


def test_it_starts_with_a_corrupted_storage(site: Site) -> None:
    with site.server() as proxy:
        first = site.certificate(proxy)
    for file in ("current/fullchain.pem", "state.json", "account.key"):
        (site.storage / file).write_text("nonsense")
    with site.server() as proxy:
        assert site.certificate(proxy) != first


def test_a_reload_keeps_the_certificate(site: Site) -> None:
    with site.server(workers=2) as proxy:
        first = site.certificate(proxy)
        proxy.signal(signal.SIGHUP)
        proxy.wait_for_log("reloaded", 30)
        assert site.certificate(proxy) == first
    assert site.ca.orders() == 1


def test_servers_that_share_a_storage_share_the_certificate(site: Site) -> None:
    with site.server() as first:
        serial = site.certificate(first)
        site.redirect_port = free_ports(1)[0]
        with site.server() as second:
            assert site.certificate(second) == serial
            first.process.kill()
            first.wait()
            assert site.certificate(second) == serial
    assert site.ca.orders() == 1


def test_an_upgrade_in_the_middle_of_an_order_goes_on_with_it(site: Site) -> None:
    site.ca.stop()
    site.ca.start(PEBBLE_VA_NOSLEEP="", PEBBLE_VA_SLEEPTIME="5")
    with site.server(workers=2) as proxy:
        wait_until(lambda: (site.storage / "state.json").exists(), 20, "an order is placed")
        proxy.signal(signal.SIGHUP)
        proxy.wait_for_log("reloaded", 30)
        proxy.wait_for_log(f"info: ACME: got a certificate for {NAME}, valid until ", 60)
        site.certificate(proxy)
    assert site.ca.orders() == 1


def test_metrics_tell_of_success_failure_and_the_days_left(site: Site) -> None:
    port = free_ports(1)[0]
    site.ca.lose_name(NAME)

    def gauges() -> dict[str, float]:
        with RawClient(("127.0.0.1", port)) as client:
            text = client.request(get("/metrics")).body.decode()
        lines = [line.split(" ") for line in text.splitlines() if not line.startswith("#")]
        return {name: float(value) for name, value in lines}

    flags = ("--metrics-port", str(port), "--metrics-ip", "127.0.0.1")
    with site.server(*flags) as proxy:
        proxy.wait_for_log("error: ACME: no certificate for ", 20)
        failed = gauges()
        assert failed["chp_acme_last_failure_timestamp_seconds"] == pytest.approx(
            time.time(), abs=30
        )
        assert failed["chp_acme_last_success_timestamp_seconds"] == 0
        assert 'chp_certificate_days_left{certificate="public"}' not in failed
    site.ca.find_name(NAME)
    (site.storage / "state.json").unlink()
    with site.server(*flags) as proxy:
        site.certificate(proxy)
        succeeded = gauges()
        assert succeeded["chp_acme_last_success_timestamp_seconds"] == pytest.approx(
            time.time(), abs=30
        )
        assert succeeded['chp_certificate_days_left{certificate="public"}'] > 1800


def needs(*flags: str, **env: str) -> str:
    """Return the line with which a server with these flags refuses to start."""
    done = run_to_exit(*flags, env=env)
    assert done.returncode == 1
    line = (done.stdout + done.stderr).strip()
    assert "\n" not in line
    return line


DOMAIN = ["--acme-domain", NAME]
COMPLETE = [*DOMAIN, "--acme-agree-tos", "--redirect-port", "0"]


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (DOMAIN, "--acme-domain: needs --acme-agree-tos, which says that you agree"),
        ([*DOMAIN, "--acme-agree-tos"], "--acme-domain: needs --redirect-port, where the CA's"),
        (["--acme-email", "a@b.c"], "--acme-email: is of no use without --acme-domain"),
        (
            [*COMPLETE, "--ssl-key", "k"],
            "option '--acme-domain' cannot be used with option '--ssl-k",
        ),
        (
            [*COMPLETE, "--ssl-cert", "c"],
            "option '--acme-domain' cannot be used with option '--ssl-c",
        ),
        ([*COMPLETE, "--port", "80"], "--acme-domain: the proxy listens on port 80, and HTTPS"),
        ([*COMPLETE, "--socket", "/tmp/x"], "--acme-domain: the proxy listens on a UNIX socket"),
        ([*COMPLETE, "--acme-domain", "*.a.test"], "'*.a.test' is a wildcard"),
        ([*COMPLETE, "--acme-domain", "10.0.0.1"], "'10.0.0.1' is an address"),
        ([*COMPLETE, "--acme-domain", "a..b"], "'a..b' is not a host name"),
        (
            [*COMPLETE, "--acme-directory", "http://a/b"],
            "'http://a/b' is neither one of letsencrypt",
        ),
        ([*COMPLETE, "--acme-email", "nobody"], "'nobody' is not an e-mail address"),
        (
            [*COMPLETE, "--acme-storage", "/dev/null/x"],
            "--acme-storage: '/dev/null/x' can't be made",
        ),
        ([*COMPLETE, "--acme-storage", "/dev/null"], "--acme-storage: '/dev/null' can't be made"),
    ],
)
def test_what_is_wrong_with_the_options_is_one_line(flags: list[str], line: str) -> None:
    listens = [] if {"--port", "--socket"} & {*flags} else ["--port", str(free_ports(1)[0])]
    assert line in needs(*flags, *listens)


def test_a_file_of_authorities_is_checked_at_the_start(tmp_path: Path) -> None:
    storage = str(tmp_path / "storage")
    line = needs(*COMPLETE, "--acme-storage", storage, "--acme-ca", str(tmp_path / "none"))
    assert line.startswith("error: --acme-ca: ")


def test_without_the_option_nothing_of_it_is_loaded() -> None:
    with start_server() as proxy:
        for pid in proxy.tree():
            maps = Path(f"/proc/{pid}/maps").read_text()
            assert "cryptography" not in maps
            assert "_cffi_backend" not in maps
