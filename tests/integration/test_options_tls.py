"""TLS towards clients of the proxy and of the API: real handshakes, good ones and bad ones."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from tests.config.test_tls_contexts import YESTERDAY, ffdhe2048
from tests.kit.authority import HOST, Authority
from tests.kit.option_servers import ask, handshake_error, start_server, tls_api, trusting
from tests.kit.peers import EchoTarget, RawClient, RawTarget, get, wait_until
from tests.kit.peers.upgrades import echo, receive, switched, switched_client
from tests.kit.server import OTHER_COMMAND, Proxy, run_to_exit

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """The authority of the server's certificate, and of most clients."""
    return Authority(tmp_path_factory.mktemp("ours") / "ca")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Another authority."""
    return Authority(tmp_path_factory.mktemp("other") / "ca")


@dataclass(frozen=True)
class Service:
    """The proxy or the API of a server: the prefix of its flags, its address, its log lines."""

    prefix: str
    address: tuple[str, int]
    failed: str


def services(proxy: Proxy) -> list[Service]:
    """Return both services of a server that speaks TLS on both."""
    return [
        Service("--ssl", proxy.address, "TLS handshake of 127.0.0.1 with the proxy failed: "),
        Service("--api-ssl", proxy.api_address, "TLS handshake of 127.0.0.1 with the API failed: "),
    ]


def for_both(authority: Authority, *names: str, **values: str) -> list[str]:
    """Return the flags of a key and a certificate, and more, for the proxy and for the API."""
    key, cert = authority.issue(HOST)
    flags = []
    for prefix in ("--ssl", "--api-ssl"):
        flags += [f"{prefix}-key", key, f"{prefix}-cert", cert]
        flags += [f"{prefix}-{name}" for name in names]
        for name, value in values.items():
            flags += [f"{prefix}-{name}", value]
    return flags


@contextmanager
def lives_on(proxy: Proxy, client: ssl.SSLContext) -> Iterator[None]:
    """Check, after the block, that the server serves as before, with the same processes."""

    def serves() -> None:
        for service in services(proxy):
            path = "/_chp_healthz" if service.prefix == "--ssl" else "/api/routes"
            assert ask(service.address, client, path).status in (200, 403)

    # Its worker may have been about to be forked.
    serves()
    before = proxy.tree()
    yield
    serves()
    assert proxy.tree() == before


@pytest.fixture(scope="module")
def plain(ours: Authority) -> Iterator[Proxy]:
    """A server with TLS and nothing special on both sides, without ``--ssl-request-cert``."""
    with (
        EchoTarget() as target,
        start_server(
            *for_both(ours, ca=ours.ca),
            *("--header-timeout", "1") if not OTHER_COMMAND else (),
            *("--default-target", target.url),
        ) as proxy,
    ):
        yield proxy


def test_requests_over_tls_are_forwarded_and_said_to_be(plain: Proxy, ours: Authority) -> None:
    plain.wait_for_log(r"Proxying https://")
    plain.wait_for_log(r"Proxy API at https://")
    context = trusting(ours)
    context.set_alpn_protocols(["h2", "http/1.1"])
    with RawClient(plain.address, tls=context, server_name=HOST) as client:
        assert isinstance(client.socket, ssl.SSLSocket)
        assert client.socket.version() == "TLSv1.3"
        assert client.socket.selected_alpn_protocol() == "http/1.1"
        for _ in range(3):
            seen = dict(json.loads(client.request(get("/", host="h")).body)["headers"])
            fields = {name.lower(): value for name, value in seen.items()}
            assert fields["x-forwarded-proto"] == "https"
            assert fields["x-forwarded-port"] == "443"


def test_server_name_and_alpn_are_not_required(plain: Proxy, ours: Authority) -> None:
    context = trusting(ours)
    context.check_hostname = False
    for service in services(plain):
        with (
            socket.create_connection(service.address, timeout=10) as plain_socket,
            context.wrap_socket(plain_socket) as stream,
        ):
            assert stream.selected_alpn_protocol() is None
            stream.sendall(get("/").encode())
            assert stream.recv(9) == b"HTTP/1.1 "


def test_websockets_go_through_tls(plain: Proxy, ours: Authority) -> None:
    api = tls_api(plain, ours)
    with RawTarget(switched(echo)) as target:
        api.add("/ws", target.url)
        with RawClient(plain.address, tls=trusting(ours), server_name=HOST) as client:
            switched_client(client, "/ws").send(b"x" * 100_000)
            assert receive(client, 100_000) == b"x" * 100_000
        assert target.request.get("x-forwarded-proto") == "wss"
        assert api.remove("/ws") == 204


def test_certificates_of_clients_are_not_asked_for_unless_requested(
    plain: Proxy, ours: Authority, other: Authority
) -> None:
    for service in services(plain):
        for context in (trusting(ours), trusting(ours, other)):
            assert ask(service.address, context, "/").status in (200, 404)


def test_a_client_that_does_not_trust_us_fails_alone(
    plain: Proxy, ours: Authority, other: Authority
) -> None:
    with lives_on(plain, trusting(ours)):
        for service in services(plain):
            start = plain.log_position()
            error = handshake_error(service.address, trusting(other))
            assert isinstance(error, ssl.SSLCertVerificationError)
            if not OTHER_COMMAND:
                plain.wait_for_log(f"warn: {service.failed}tlsv1 alert unknown ca", after=start)


def test_plain_http_to_a_tls_port_is_refused(plain: Proxy, ours: Authority) -> None:
    with lives_on(plain, trusting(ours)):
        for service in services(plain):
            start = plain.log_position()
            with RawClient(service.address) as client:
                client.send(get("/"))
                assert not client.read_to_end().startswith(b"HTTP/1.1 2")
            if not OTHER_COMMAND:
                plain.wait_for_log(f"warn: {service.failed}http request$", after=start)


@pytest.mark.ours
def test_a_client_that_never_shakes_hands_is_dropped(plain: Proxy, ours: Authority) -> None:
    with lives_on(plain, trusting(ours)), RawClient(plain.address) as client:
        client.send(b"\x16\x03\x01")
        client.assert_closed(within=5)
        plain.wait_for_log("warn: TLS handshake of 127.0.0.1 with the proxy failed: timed out")


@pytest.fixture(scope="module", params=["request-cert", "request-cert and reject-unauthorized"])
def mutual(
    request: pytest.FixtureRequest,
    ours: Authority,
    other: Authority,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Proxy]:
    """A server that wants client certificates of one of two authorities, on both sides."""
    bundle = tmp_path_factory.mktemp("bundle") / "ca.pem"
    second = other.authority.create_child_ca().cert_pem.bytes()
    bundle.write_bytes(b"# two\n" + Path(ours.ca).read_bytes() + b"\n# more\n" + second)
    flags = for_both(ours, *request.param.split(" and "), ca=str(bundle))
    with start_server(*flags) as proxy:
        yield proxy


@pytest.mark.parametrize("version", VERSIONS)
def test_clients_with_the_right_certificate_are_served(
    mutual: Proxy, ours: Authority, version: ssl.TLSVersion
) -> None:
    context = trusting(ours, ours)
    context.maximum_version = version
    assert ask(mutual.address, context).status == 200
    assert ask(mutual.api_address, context, "/api/routes").status == 403, "a token all the same"
    key, cert = ours.issue("hub@example.org")
    assert tls_api(mutual, ours, cert, key).routes() == {}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("who", "reason"),
    [
        ("missing", "peer did not return a certificate"),
        ("of another authority", "certificate not accepted: "),
        ("expired", "certificate not accepted: certificate has expired"),
    ],
)
def test_clients_without_it_fail_in_the_handshake_and_alone(
    mutual: Proxy,
    ours: Authority,
    other: Authority,
    version: ssl.TLSVersion,
    who: str,
    reason: str,
) -> None:
    contexts: dict[str, Callable[[], ssl.SSLContext]] = {
        "missing": lambda: trusting(ours),
        "of another authority": lambda: trusting(ours, other),
        "expired": lambda: trusting(ours, ours, not_after=YESTERDAY),
    }
    context = contexts[who]()
    context.maximum_version = version
    with lives_on(mutual, trusting(ours, ours)):
        for service in services(mutual):
            start = mutual.log_position()
            error = handshake_error(service.address, context)
            assert error is not None
            if not OTHER_COMMAND:
                assert isinstance(error, ssl.SSLError), "an alert that says what is wrong"
                line = mutual.wait_for_log(f"warn: {service.failed}{reason}", after=start)
                assert "Traceback" not in line
    assert "Traceback" not in mutual.log()


def test_the_version_and_the_suites_are_those_of_the_flags(ours: Authority, tmp_path: Path) -> None:
    key, cert = ours.issue(HOST, key_type=trustme.KeyType.RSA)
    dhparam = tmp_path / "dh.pem"
    dhparam.write_bytes(ffdhe2048())
    suites = "DHE-RSA-AES256-GCM-SHA384:ECDHE-RSA-AES128-GCM-SHA256"
    flags = ["--ssl-key", key, "--ssl-cert", cert, "--api-ssl-key", key, "--api-ssl-cert", cert]
    flags += ["--ssl-protocol", "TLSv1_2", "--ssl-ciphers", suites, "--ssl-dhparam", str(dhparam)]
    with start_server(*flags, "--ssl-allow-rc4") as proxy:
        if not OTHER_COMMAND:
            proxy.wait_for_log("warn: No effect of --ssl-allow-rc4: OpenSSL 3 has no RC4")
        for service in services(proxy):
            context = trusting(ours)
            with RawClient(service.address, tls=context, server_name=HOST) as client:
                assert isinstance(client.socket, ssl.SSLSocket)
                assert client.socket.version() == "TLSv1.2"
                chosen = client.socket.cipher()
                assert chosen is not None
                assert chosen[0] == "DHE-RSA-AES256-GCM-SHA384", "the server's order"
            context.set_ciphers("ECDHE-RSA-AES256-GCM-SHA384")
            assert isinstance(handshake_error(service.address, context), ssl.SSLError)
            context = trusting(ours)
            context.minimum_version = ssl.TLSVersion.TLSv1_3
            assert isinstance(handshake_error(service.address, context), ssl.SSLError)
            if not OTHER_COMMAND:
                proxy.wait_for_log(f"warn: {service.failed}no shared cipher")
                proxy.wait_for_log(f"warn: {service.failed}unsupported protocol")


@pytest.mark.ours
@pytest.mark.parametrize(
    ("name", "version"), [("TLSv1.2", "TLSv1.2"), ("TLSv1_3", "TLSv1.3"), ("TLS", "TLSv1.3")]
)
def test_versions_have_more_names_than_node_s(ours: Authority, name: str, version: str) -> None:
    with start_server(*for_both(ours), "--ssl-protocol", name) as proxy:
        for service in services(proxy):
            with RawClient(service.address, tls=trusting(ours), server_name=HOST) as client:
                assert isinstance(client.socket, ssl.SSLSocket)
                assert client.socket.version() == version


def encrypted(authority: Authority, passphrase: str) -> tuple[str, str]:
    """Issue a certificate; return the paths of its key, encrypted, and of its chain."""
    plain, cert = authority.issue(HOST)
    private = serialization.load_pem_private_key(Path(plain).read_bytes(), None)
    key = private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(passphrase.encode()),
    )
    return authority.write(f"{Path(plain).name}.encrypted", key), cert


def test_passphrases_of_keys_come_from_the_environment(ours: Authority) -> None:
    key, cert = encrypted(ours, "of the proxy")
    api_key, api_cert = encrypted(ours, "of the API")
    flags = ["--ssl-key", key, "--ssl-cert", cert]
    flags += ["--api-ssl-key", api_key, "--api-ssl-cert", api_cert]
    env = {
        "CONFIGPROXY_SSL_KEY_PASSPHRASE": "of the proxy",
        "CONFIGPROXY_API_SSL_KEY_PASSPHRASE": "of the API",
    }
    with start_server(*flags, env=env) as proxy:
        assert ask(proxy.address, trusting(ours)).status == 200
        assert tls_api(proxy, ours).routes() == {}
        assert "of the" not in proxy.log()
    if not OTHER_COMMAND:
        env["CONFIGPROXY_API_SSL_KEY_PASSPHRASE"] = "of something else"
        done = run_to_exit(*flags, "--port", "0", env=env)
        assert (done.returncode, done.stdout) == (1, "")
        variable = "CONFIGPROXY_API_SSL_KEY_PASSPHRASE"
        reason = f"can't be decrypted with the passphrase in {variable}"
        assert done.stderr == f"error: --api-ssl-key: {api_key!r} {reason}\n"


@pytest.mark.ours
def test_key_material_that_can_not_be_used_is_one_line_and_exit_1(
    ours: Authority, tmp_path: Path
) -> None:
    key, cert = ours.issue(HOST)
    other_key, _ = ours.issue(HOST)
    nothing = str(tmp_path / "nothing.pem")
    pair = ["--ssl-key", key, "--ssl-cert", cert]
    for flags, line in (
        (["--ssl-key", key], "--ssl-cert: is not given, and --ssl-key is of no use"),
        (["--ssl-key", nothing, "--ssl-cert", cert], f"--ssl-key: {nothing!r} can't be read: "),
        (["--ssl-key", other_key, "--ssl-cert", cert], f"--ssl-key: {other_key!r} is not the key "),
        ([*pair, "--ssl-ca", key], f"--ssl-ca: {key!r} has no certificate in PEM form"),
        ([*pair, "--ssl-dhparam", nothing], f"--ssl-dhparam: {nothing!r} can't be read: "),
        ([*pair, "--ssl-protocol", "SSLv3"], "--ssl-protocol: 'SSLv3' is not one of "),
        ([*pair, "--ssl-ciphers", "x"], "--ssl-ciphers: 'x' has no suite that OpenSSL knows"),
        (["--api-ssl-cert", cert], "--api-ssl-key: is not given, and --api-ssl-cert is"),
        (["--client-ssl-ca", nothing], f"--client-ssl-ca: {nothing!r} can't be read: "),
        (["--client-ssl-cert", cert], "--client-ssl-key: is not given, and --client-ssl-cert"),
    ):
        done = run_to_exit(*flags, "--port", "0")
        assert (done.returncode, done.stdout) == (1, ""), flags
        assert done.stderr.startswith(f"error: {line}"), done.stderr
        assert len(done.stderr.splitlines()) == 1, done.stderr


@pytest.mark.ours
def test_a_renewed_certificate_is_used_after_sighup(
    ours: Authority, other: Authority, tmp_path: Path
) -> None:
    key, cert = (str(tmp_path / name) for name in ("key", "cert"))

    def install(authority: Authority) -> None:
        for source, place in zip(authority.issue(HOST), (key, cert), strict=True):
            shutil.copy(source, place)

    install(ours)
    with start_server("--ssl-key", key, "--ssl-cert", cert) as proxy:
        assert ask(proxy.address, trusting(ours)).status == 200
        with RawClient(proxy.address) as client:
            worker = proxy.worker_of(client)
        install(other)
        proxy.signal(signal.SIGHUP)
        wait_until(lambda: worker not in proxy.tree(), 10, "the old worker is gone")
        assert ask(proxy.address, trusting(other)).status == 200
        assert handshake_error(proxy.address, trusting(ours)) is not None


@pytest.mark.ours
def test_tls_on_unix_sockets(ours: Authority, tmp_path: Path) -> None:
    public, api = str(tmp_path / "public"), str(tmp_path / "api")
    with start_server(*for_both(ours), "--socket", public, "--api-socket", api):
        assert ask(public, trusting(ours)).status == 200
        assert ask(api, trusting(ours), "/api/routes").status == 403


@pytest.mark.ours
def test_tls_options_without_a_key_are_a_warning() -> None:
    with start_server("--ssl-request-cert", "--api-ssl-ca", "/nowhere") as proxy:
        proxy.wait_for_log(
            "warn: No effect of --ssl-request-cert: --ssl-key and --ssl-cert are not"
        )
        proxy.wait_for_log("warn: No effect of --api-ssl-ca: --api-ssl-key and --api-ssl-cert are")
