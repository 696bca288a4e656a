"""--connect-timeout, and what the log says of targets that can't be reached."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.peers import RawTarget, response
from tests.kit.peers.dead_address import swallowing
from tests.kit.peers.loopback import LoopbackServer, hung_up
from tests.kit.server import Proxy, free_ports, start_proxy

pytestmark = pytest.mark.ours

SHORT = 0.5
"""What the timeout is set to, in seconds."""
SOON = 5.0
"""What must be over within: far more than a slow machine needs."""

SERVER_HELLO = b"\x16\x03\x03\x00\x7a\x02\x00\x00\x76\x03\x03" + bytes(99)
"""How a TLS server begins its part of the handshake, slowly."""


@pytest.fixture(scope="module")
def impatient() -> Iterator[Proxy]:
    """A server that gives up soon."""
    with start_proxy("--connect-timeout", str(SHORT)) as proxy:
        yield proxy


class MuteTarget(LoopbackServer):
    """Accepts connections; sends one of ``pieces`` every tenth of a second, then nothing."""

    def __init__(self, *pieces: bytes) -> None:
        super().__init__()
        self._pieces = pieces

    def serve(self, connection: socket.socket, index: int) -> None:
        """Say very little until the proxy goes away."""
        for piece in self._pieces:
            if hung_up(connection, 0.1):
                return
            connection.sendall(piece)
        hung_up(connection, 20)


def failed(proxy: Proxy, path: str, target: str) -> tuple[str, float]:
    """GET a path whose target can't be reached; return the reason in the log, and the time."""
    proxy.api.add(path, target)
    start = proxy.log_position()
    begun = time.monotonic()
    assert proxy.get(path).status == 503
    elapsed = time.monotonic() - begun
    line = proxy.wait_for_log(f"error: 503 GET {path} ", after=start)
    return line.partition(f"503 GET {path} ")[2], elapsed


def test_an_address_that_swallows_packets_is_a_503_in_time(impatient: Proxy) -> None:
    with swallowing(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        reason, elapsed = failed(impatient, "/lost", f"http://127.0.0.1:{port}")
    assert reason == f"127.0.0.1:{port}: connecting timed out after 0.5 s"
    assert SHORT <= elapsed < SOON


@pytest.mark.parametrize("says", [b"", SERVER_HELLO], ids=["silent", "slow"])
def test_a_handshake_that_does_not_end_is_a_503_in_time(impatient: Proxy, says: bytes) -> None:
    with MuteTarget(*(bytes([byte]) for byte in says)) as target:
        url = target.url.replace("http", "https")
        reason, elapsed = failed(impatient, "/mute", url)
        assert reason == f"127.0.0.1:{target.port}: TLS handshake timed out after 0.5 s"
        assert SHORT <= elapsed < SOON
        target.wait_for_connections(0)


def test_a_unix_socket_without_room_is_a_503_in_time_and_holds_nobody(
    impatient: Proxy, tmp_path: Path
) -> None:
    path = str(tmp_path / "full")
    with swallowing(path):
        used = impatient.cpu_seconds()
        url = "http+unix://" + path.replace("/", "%2F")
        reason, elapsed = failed(impatient, "/full", url)
    assert reason == f"{path}: connecting timed out after 0.5 s"
    assert SHORT <= elapsed < SOON
    assert impatient.cpu_seconds() - used < SHORT / 2


def test_the_timeout_ends_when_the_target_has_been_reached(impatient: Proxy) -> None:
    def slowly(exchange: object) -> None:
        time.sleep(2 * SHORT)
        exchange.send(response(b"late"))  # type: ignore[attr-defined]

    with RawTarget(slowly) as target:
        impatient.api.add("/slow", target.url)
        assert impatient.get("/slow").body == b"late"


def test_a_client_that_leaves_while_a_target_is_connected_to_is_noticed() -> None:
    with MuteTarget() as target, start_proxy("--connect-timeout", "60") as patient:
        patient.api.add("/mute", target.url.replace("http", "https"))
        with patient.client() as client:
            client.send("GET /mute HTTP/1.1\r\nHost: a\r\n\r\n")
            target.wait_for_connections(1)
        target.wait_for_connections(0)


def test_what_is_wrong_with_a_target_can_be_told_from_the_log(
    impatient: Proxy, tmp_path: Path
) -> None:
    port = free_ports(1)[0]
    refused, _ = failed(impatient, "/refused", f"http://127.0.0.1:{port}")
    assert refused == f"127.0.0.1:{port}: connection refused"
    nowhere, _ = failed(impatient, "/nowhere", f"http://[fe80::1%25nowhere0]:{port}")
    assert nowhere == f"[fe80::1%nowhere0]:{port}: no network interface nowhere0"
    socket_path = tmp_path / "none"
    missing, _ = failed(impatient, "/none", "http+unix://" + str(socket_path).replace("/", "%2F"))
    assert missing == f"{socket_path}: no such file or directory"
    with MuteTarget(b"HTTP/1.1 400 Bad Request\r\n\r\n") as plain:
        no_tls, _ = failed(impatient, "/plain", plain.url.replace("http", "https"))
    assert no_tls.startswith(f"127.0.0.1:{plain.port}: TLS handshake failed: ")
    assert no_tls.endswith("is its protocol http?")


def test_an_address_with_its_interface_is_reached(impatient: Proxy) -> None:
    host, zone = link_local_address()
    with OnInterface(host, zone) as target:
        for mark in ("%25", "%"):
            impatient.api.add("/zone", f"http://[{host}{mark}{zone}]:{target.port}")
            assert impatient.get("/zone").status == 200
        # The interface is this machine's own affair (RFC 6874, 4).
        with impatient.client() as client:
            assert client.request("GET /zone HTTP/1.0\r\n\r\n").status == 200
        assert target.requests[-1].get("host") == f"[{host}]:{target.port}"


class OnInterface(RawTarget):
    """A target that listens on a link-local address of one interface."""

    def __init__(self, host: str, zone: str) -> None:
        super().__init__(host="::1")
        self.listener.close()
        self.listener = socket.socket(socket.AF_INET6)
        self.listener.bind((host, 0, 0, socket.if_nametoindex(zone)))
        self.listener.listen(16)
        self.port = self.listener.getsockname()[1]


def link_local_address() -> tuple[str, str]:
    """Return an IPv6 address of this machine and its interface, which it needs; skip without."""
    try:
        lines = Path("/proc/net/if_inet6").read_text(encoding="ascii").splitlines()
    except OSError:
        lines = []
    for line in lines:
        digits, *_, name = line.split()
        if digits.startswith("fe80"):
            return socket.inet_ntop(socket.AF_INET6, bytes.fromhex(digits)), name
    pytest.skip("no link-local address here")
