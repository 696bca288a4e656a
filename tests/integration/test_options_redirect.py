"""--redirect-port and --redirect-to: from HTTP to HTTPS."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.option_servers import HOST, ask, connects, start_server, trusting
from tests.integration.server import free_ports, run_to_exit
from tests.peers import RawClient, get, wait_until
from tests.test_tls import Authority


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """The authority of the server's certificate."""
    return Authority(tmp_path_factory.mktemp("tls") / "ca")


@pytest.mark.parametrize("redirect_to", ["", "443", "12345"])
def test_http_requests_are_sent_to_https(authority: Authority, redirect_to: str) -> None:
    key, cert = authority.issue(HOST)
    from_port = free_ports(1)[0]
    flags = ["--ssl-key", key, "--ssl-cert", cert, "--redirect-port", str(from_port)]
    flags += ["--redirect-to", redirect_to] if redirect_to else []
    with start_server(*flags) as proxy:
        to_port = redirect_to or str(proxy.port)
        proxy.wait_for_log(f"info: Added HTTP to HTTPS redirection from {from_port} to {to_port}$")
        address = ("127.0.0.1", from_port)
        wait_until(lambda: connects(*address), 5, "the redirect server listens")
        with RawClient(address) as client:
            for host, path in (("h.test", "/a/b?c=d"), ("h.test:8000", "/%ff//x"), ("h.test", "/")):
                answer = client.request(get(path, host=host))
                assert answer.status == 301
                assert answer.get("location") == f"https://h.test:{to_port}{path}"
            answer = client.request("POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc")
            assert (answer.status, answer.get("location")) == (301, f"https://h:{to_port}/x")
            answer = client.request("HEAD /x HTTP/1.1\r\nHost: h\r\n\r\n")
            assert (answer.status, answer.get("location")) == (301, f"https://h:{to_port}/x")
        with RawClient(address) as client:
            answer = client.request("GET /x HTTP/1.0\r\n\r\n")
            assert answer.status == 400
            assert b"HTTPS-only" in answer.body
            assert to_port.encode() in answer.body
        assert ask(proxy.address, trusting(authority)).status == 200


def test_without_tls_there_is_nothing_to_redirect_to() -> None:
    done = run_to_exit("--redirect-port", str(free_ports(1)[0]))
    assert done.returncode == 1
    line = "HTTPS redirection specified but certificates not provided."
    assert line in done.stdout + done.stderr


@pytest.mark.ours
def test_a_proxy_on_a_unix_socket_redirects_nobody(authority: Authority, tmp_path: Path) -> None:
    key, cert = authority.issue(HOST)
    port = str(free_ports(1)[0])
    flags = ["--ssl-key", key, "--ssl-cert", cert, "--redirect-port", port]
    with start_server(*flags, "--socket", str(tmp_path / "public")) as proxy:
        proxy.wait_for_log("warn: No effect of --redirect-port: the proxy listens on ")
        assert not connects("127.0.0.1", int(port))
