"""--redirect-port, --redirect-to and --redirect-http: from HTTP to HTTPS."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.authority import HOST, Authority
from tests.kit.option_servers import ask, connects, start_server, trusting
from tests.kit.peers import EchoTarget, RawClient, get, wait_until
from tests.kit.peers.upgrades import upgrade
from tests.kit.server import Proxy, free_ports, run_to_exit, start_proxy


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


PROXIED = ["--trusted-proxies", "127.0.0.1", "--redirect-http"]
HTTP = "X-Forwarded-Proto: http"


@pytest.fixture(scope="module")
def target() -> Iterator[EchoTarget]:
    """A target that says what it was asked."""
    with EchoTarget() as target:
        yield target


@pytest.fixture(scope="module")
def behind(target: EchoTarget) -> Iterator[Proxy]:
    """A server behind a proxy that ends TLS."""
    with start_proxy("--default-target", target.url, *PROXIED) as proxy:
        yield proxy


@pytest.mark.ours
@pytest.mark.parametrize(
    ("method", "status"), [("GET", 301), ("HEAD", 301), ("POST", 308), ("DELETE", 308)]
)
def test_what_came_to_the_proxy_in_front_over_http_is_sent_to_https(
    behind: Proxy, method: str, status: int
) -> None:
    fields = f"Host: h.test:80\r\n{HTTP}\r\nContent-Length: 3\r\n\r\n"
    with behind.client() as client:
        answer = client.request(f"{method} /a%2fb?c=d HTTP/1.1\r\n{fields}abc")
        assert (answer.status, answer.body) == (status, b"")
        assert answer.get("location") == "https://h.test/a%2fb?c=d"
        assert answer.get("vary") == "X-Forwarded-Proto"
        # The connection to the proxy in front is kept.
        assert client.request(get("/", "X-Forwarded-Proto: https")).status == 200


@pytest.mark.ours
@pytest.mark.parametrize(
    ("fields", "location"),
    [
        (["X-Forwarded-Proto: HTTP"], "https://proxy.test/x"),
        (["X-Forwarded-Proto: http, https"], "https://proxy.test/x"),
        ([HTTP, "X-Forwarded-Host: hub.test:8080"], "https://hub.test/x"),
        ([HTTP, "X-Forwarded-Host: [::1]:80, inner"], "https://[::1]/x"),
        ([HTTP, "X-Forwarded-Host: a/b"], "https://proxy.test/x"),
        (["X-Forwarded-Proto: https"], None),
        (["X-Forwarded-Proto: https, http"], None),
        ([], None),
    ],
)
def test_the_first_value_is_about_the_client(
    behind: Proxy, fields: list[str], location: str | None
) -> None:
    answer = behind.get("/x", *fields)
    assert answer.status == (301 if location else 200)
    assert answer.get("location") == location


@pytest.mark.ours
def test_health_checks_and_websockets_are_not_redirected(behind: Proxy) -> None:
    assert behind.get("/_chp_healthz", HTTP).status == 200
    with behind.client() as client:
        client.send(upgrade("/socket", HTTP))
        assert client.read_response().status not in (301, 308)


@pytest.mark.ours
def test_only_who_is_trusted_is_believed(target: EchoTarget) -> None:
    flags = ["--trusted-proxies", "192.0.2.1", "--redirect-http"]
    with start_proxy("--default-target", target.url, *flags) as proxy:
        assert proxy.get("/x", HTTP).status == 200


@pytest.mark.ours
def test_the_port_is_that_of_redirect_to_and_the_answer_is_counted(target: EchoTarget) -> None:
    metrics = free_ports(1)[0]
    flags = [*PROXIED, "--redirect-to", "8443", "--metrics-port", str(metrics)]
    with start_proxy("--default-target", target.url, *flags) as proxy:
        assert proxy.get("/x", HTTP).get("location") == "https://proxy.test:8443/x"
        with RawClient(("127.0.0.1", metrics)) as client:
            page = client.request(get("/metrics")).body.decode()
        assert 'requests_proxy{status="301"} 1.0' in page
        assert "\nrequests_web 1.0" in page
