"""TLS towards targets: which of them are trusted, and what they are shown."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.config.test_tls_contexts import YESTERDAY
from tests.kit.authority import Authority
from tests.kit.option_servers import start_server
from tests.kit.peers import RawClient, RawTarget, get, response
from tests.kit.peers.loopback import LoopbackServer
from tests.kit.peers.upgrades import echo, receive, switched, upgrade
from tests.kit.server import Proxy

IP = "127.0.0.1"


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """The authority that the server is told to trust."""
    return Authority(tmp_path_factory.mktemp("ours") / "ca")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """An authority that it is not told of."""
    return Authority(tmp_path_factory.mktemp("other") / "ca")


def serving(
    authority: Authority, name: str = IP, *, clients_of: Authority | None = None, **cert: object
) -> ssl.SSLContext:
    """Return what a target speaks TLS with; it may want clients' certificates."""
    key, chain = authority.issue(name, **cert)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, key)
    if clients_of is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(clients_of.ca)
    return context


@pytest.fixture(scope="module")
def targets(ours: Authority, other: Authority) -> Iterator[dict[str, RawTarget]]:
    """Targets with certificates of all kinds."""
    contexts = {
        "good": serving(ours),
        "of another authority": serving(other),
        "for another host": serving(ours, "elsewhere.example"),
        "expired": serving(ours, not_after=YESTERDAY),
        "mutual": serving(ours, clients_of=ours),
    }
    with ExitStack() as stack:
        yield {
            name: stack.enter_context(RawTarget(response(name.encode()), tls=context))
            for name, context in contexts.items()
        }


def add_all(proxy: Proxy, targets: dict[str, RawTarget]) -> None:
    """Route ``/NAME`` to each target."""
    for name, target in targets.items():
        proxy.api.add("/" + name.replace(" ", "-"), target.url)


def outcome(proxy: Proxy, name: str) -> str:
    """GET from a target; return its body, or the log line of the 503."""
    path = "/" + name.replace(" ", "-")
    start = proxy.log_position()
    with proxy.client() as client:
        answer = client.request(get(path, host=IP))
    if answer.status == 200:
        return answer.body.decode()
    assert answer.status == 503, answer
    return proxy.wait_for_log(rf"error: 503 GET {path}", after=start)


def test_certificates_of_targets_are_verified_by_default(targets: dict[str, RawTarget]) -> None:
    with start_server() as proxy:
        add_all(proxy, targets)
        for name in targets:
            assert "certificate" in outcome(proxy, name), "the system knows none of our authorities"


def test_client_ssl_ca_says_whom_to_trust(
    targets: dict[str, RawTarget], ours: Authority, tmp_path: Path
) -> None:
    bundle = tmp_path / "bundle.pem"
    unrelated = Authority(tmp_path / "unrelated")
    texts = (Path(authority.ca).read_text() for authority in (unrelated, ours))
    bundle.write_text("# a\n" + "\n# b\n".join(texts))
    flags = ["--client-ssl-ca", str(bundle)]
    # Accepted, and without effect.
    flags += ["--client-ssl-request-cert", "--client-ssl-reject-unauthorized"]
    with start_server(*flags) as proxy:
        add_all(proxy, targets)
        assert outcome(proxy, "good") == "good"
        assert "certificate" in outcome(proxy, "of another authority")
        assert "expired" in outcome(proxy, "expired")
        assert "503" in outcome(proxy, "mutual")
        assert outcome(proxy, "good") == "good"


@pytest.mark.ours
def test_a_certificate_for_another_host_is_refused_whatever_the_host_header(
    targets: dict[str, RawTarget], ours: Authority
) -> None:
    with start_server("--client-ssl-ca", ours.ca) as proxy:
        add_all(proxy, targets)
        line = outcome(proxy, "for another host")
        assert "127.0.0.1" in line
        with proxy.client() as client:
            assert client.request(get("/good", host="elsewhere.example")).status == 200
            answer = client.request(get("/for-another-host", host="elsewhere.example"))
            assert answer.status == 503


def test_a_target_that_wants_a_certificate_is_shown_ours(
    targets: dict[str, RawTarget], ours: Authority
) -> None:
    key, cert = ours.issue("proxy@example.org")
    flags = ["--client-ssl-key", key, "--client-ssl-cert", cert, "--client-ssl-ca", ours.ca]
    with (
        start_server(*flags) as proxy,
        RawTarget(switched(echo), tls=serving(ours, clients_of=ours)) as websocket,
    ):
        add_all(proxy, targets)
        assert outcome(proxy, "mutual") == "mutual"
        assert outcome(proxy, "good") == "good"
        assert "certificate" in outcome(proxy, "of another authority")
        proxy.api.add("/ws", websocket.url)
        with proxy.client() as client:
            client.send(upgrade("/ws").replace("proxy.test:8000", IP))
            assert client.read_head().status == 101
            client.send(b"x" * 100_000)
            assert receive(client, 100_000) == b"x" * 100_000


@pytest.mark.ours
def test_insecure_trusts_everyone(targets: dict[str, RawTarget], ours: Authority) -> None:
    with start_server("--insecure") as proxy:
        add_all(proxy, targets)
        for name in ("good", "of another authority", "for another host", "expired"):
            assert outcome(proxy, name) == name
        assert "503" in outcome(proxy, "mutual")


@pytest.mark.ours
def test_error_targets_are_verified_like_any_other(ours: Authority, other: Authority) -> None:
    with ExitStack() as stack:
        pages = []
        for authority in (ours, other):
            target = RawTarget(response(b"a page"), tls=serving(authority))
            pages.append(stack.enter_context(target).url)
        for url, body in zip(pages, (b"a page", b"Not Found"), strict=True):
            with start_server("--client-ssl-ca", ours.ca, "--error-target", url) as proxy:
                answer = proxy.get("/nowhere")
                assert (answer.status, answer.body) == (404, body)


class PlainTarget(LoopbackServer):
    """Answers whatever comes with a line of plain HTTP."""

    def serve(self, connection: socket.socket, index: int) -> None:
        """Answer the first bytes, and close."""
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def test_an_http_target_behind_https_is_a_503_and_nothing_worse(ours: Authority) -> None:
    with PlainTarget() as target, start_server("--client-ssl-ca", ours.ca) as proxy:
        proxy.api.add("/x", target.url.replace("http:", "https:"))
        with RawClient(proxy.address) as client:
            for _ in range(3):
                assert client.request(get("/x")).status == 503
        assert "Traceback" not in proxy.log()
        proxy.wait_for_log("error: 503 GET /x")
