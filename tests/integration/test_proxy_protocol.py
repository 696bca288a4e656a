"""--proxy-protocol: load balancers that forward bytes say who their clients are."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.http.test_proxy_protocol import IPV4, tls_field, v2
from tests.kit.authority import HOST, Authority
from tests.kit.option_servers import start_server, trusting
from tests.kit.peers import EchoTarget, RawClient, get
from tests.kit.server import Proxy, run_to_exit

pytestmark = pytest.mark.ours

V1 = b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n"
V2 = v2(0x21, 0x11, IPV4)
MAPPED = b"PROXY TCP6 ::ffff:192.0.2.1 ::1 56324 443\r\n"
FLAGS = ["--proxy-protocol", "--trusted-proxies", "127.0.0.1"]


@pytest.fixture(scope="module")
def balanced() -> Iterator[Proxy]:
    """A server behind a load balancer on this machine."""
    with EchoTarget() as target, start_server(*FLAGS, "--default-target", target.url) as proxy:
        yield proxy


def forwarded_fields(client: RawClient, request: str) -> dict[str, str]:
    """Send a request and return the fields that the target got."""
    answer = client.request(request)
    assert answer.status == 200
    return {name.lower(): value for name, value in json.loads(answer.body)["headers"]}


@pytest.mark.parametrize("header", [V1, V2, MAPPED], ids=["v1", "v2", "mapped"])
def test_the_client_that_is_named_has_sent_all_requests_of_the_connection(
    balanced: Proxy, header: bytes
) -> None:
    with balanced.client() as client:
        client.send(header)
        for _ in range(2):
            # It is no proxy, so that it says nothing about others.
            fields = forwarded_fields(client, get("/", "X-Forwarded-For: 10.9.9.9"))
            assert fields["x-forwarded-for"] == "192.0.2.1"


@pytest.mark.parametrize(("flags", "proto"), [(1, "https"), (0, "http")])
def test_tls_that_ended_at_the_balancer_is_tls(balanced: Proxy, flags: int, proto: str) -> None:
    """As HAProxy says it with ``send-proxy-v2-ssl``."""
    with balanced.client() as client:
        client.send(v2(0x21, 0x11, IPV4 + tls_field(flags)))
        fields = forwarded_fields(client, get("/", host="hub.test"))
        port = {"https": "443", "http": "80"}[proto]
        assert (fields["x-forwarded-proto"], fields["x-forwarded-port"]) == (proto, port)
        assert fields["x-forwarded-for"] == "192.0.2.1"


def test_a_header_may_come_in_pieces_and_with_the_first_request(balanced: Proxy) -> None:
    with balanced.client() as client:
        for byte in V2[:20]:
            client.send(bytes([byte]))
        client.send(V2[20:] + get("/").encode())
        answer = client.read_response()
        assert dict(json.loads(answer.body)["headers"])["X-Forwarded-For"] == "192.0.2.1"


@pytest.mark.parametrize("header", [b"PROXY UNKNOWN\r\n", v2(0x20, 0, b"")], ids=["v1", "v2"])
def test_a_health_check_of_the_balancer_is_its_own(balanced: Proxy, header: bytes) -> None:
    with balanced.client() as client:
        client.send(header)
        fields = forwarded_fields(client, get("/", "X-Forwarded-For: 10.9.9.9"))
        assert fields["x-forwarded-for"] == "10.9.9.9,127.0.0.1"


@pytest.mark.parametrize(
    "sent", [get("/").encode(), b"PROXY TCP4 nonsense\r\n", v2(0x22, 0x11, IPV4)]
)
def test_a_balancer_that_names_no_client_gets_no_answer(balanced: Proxy, sent: bytes) -> None:
    start = balanced.log_position()
    with balanced.client() as client:
        client.send(sent)
        client.assert_closed()
    balanced.wait_for_log(
        r"400 refused a request from 127\.0\.0\.1: .*PROXY protocol header", after=start
    )


def test_others_speak_http_as_ever_and_name_nobody() -> None:
    flags = ["--proxy-protocol", "--trusted-proxies", "192.0.2.0/24"]
    with EchoTarget() as target, start_server(*flags, "--default-target", target.url) as proxy:
        with proxy.client() as client:
            assert forwarded_fields(client, get("/"))["x-forwarded-for"] == "127.0.0.1"
        for header in (V1, V2):
            with proxy.client() as client:
                client.send(header + get("/").encode())
                assert client.read_response().status == 400


def test_the_header_comes_before_tls(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    key, cert = authority.issue(HOST)
    flags = [*FLAGS, "--ssl-key", key, "--ssl-cert", cert]
    with (
        EchoTarget() as target,
        start_server(*flags, "--default-target", target.url) as proxy,
        socket.create_connection(proxy.address, timeout=10) as plain,
    ):
        plain.sendall(V1)
        with trusting(authority).wrap_socket(plain, server_hostname=HOST) as client:
            client.sendall(get("/", "Connection: close").encode())
            answer = b"".join(iter(lambda: client.recv(65536), b""))
        fields = dict(json.loads(answer.partition(b"\r\n\r\n")[2])["headers"])
        assert fields["X-Forwarded-For"] == "192.0.2.1"
        assert fields["X-Forwarded-Proto"] == "https"

        # And TLS without it is no header.
        with (
            socket.create_connection(proxy.address, timeout=10) as plain,
            pytest.raises(OSError, match=r"EOF|reset|closed"),
        ):
            trusting(authority).wrap_socket(plain, server_hostname=HOST)


def test_who_may_name_clients_has_to_be_said() -> None:
    done = run_to_exit("--proxy-protocol")
    assert done.returncode == 1
    assert "--proxy-protocol: needs --trusted-proxies" in done.stderr
