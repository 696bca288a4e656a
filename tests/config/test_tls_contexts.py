"""TLS contexts, tested by real handshakes over a socket pair."""

from __future__ import annotations

import contextlib
import datetime
import math
import os
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from chp_gevent.config.options import ClientTlsOptions, OptionError, ServerTlsOptions
from chp_gevent.config.tls_contexts import (
    client_context,
    server_context,
)
from chp_gevent.runtime.tls_errors import describe_failure
from tests.kit.authority import HOST, Authority

TIMEOUT = 10
YESTERDAY = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(days=1)


@dataclass
class Outcome:
    """What both sides of a connection saw; an error of the client may come after its handshake."""

    server_error: OSError | None = None
    client_error: OSError | None = None
    echoed: bytes = b""
    version: str | None = None
    cipher: str = ""
    alpn: str | None = None

    @property
    def works(self) -> bool:
        return self.echoed == b"ping" and not (self.server_error or self.client_error)


def connect(server: ssl.SSLContext, client: ssl.SSLContext, name: str = HOST) -> Outcome:
    """Connect a client and a server, and send four bytes there and back."""
    outcome = Outcome()
    ours, theirs = socket.socketpair()
    ours.settimeout(TIMEOUT)
    theirs.settimeout(TIMEOUT)

    def serve() -> None:
        try:
            with ours, server.wrap_socket(ours, server_side=True) as connection:
                connection.sendall(connection.recv(4))
        except OSError as error:
            outcome.server_error = error

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with theirs, client.wrap_socket(theirs, server_hostname=name) as connection:
            outcome.version = connection.version()
            outcome.alpn = connection.selected_alpn_protocol()
            outcome.cipher = (connection.cipher() or ("",))[0]
            # A server that refused the client has said why before it closed.
            with contextlib.suppress(BrokenPipeError):
                connection.sendall(b"ping")
            outcome.echoed = connection.recv(4)
    except OSError as error:
        outcome.client_error = error
    thread.join()
    return outcome


@pytest.fixture
def ours(tmp_path: Path) -> Authority:
    """The authority that both sides trust."""
    return Authority(tmp_path / "ours")


@pytest.fixture
def other(tmp_path: Path) -> Authority:
    """An authority that nobody trusts."""
    return Authority(tmp_path / "other")


def refusal(check: Callable[[], object]) -> str:
    """Return the one line with which options are refused."""
    with pytest.raises(OptionError) as caught:
        check()
    message = str(caught.value)
    assert message.isprintable()
    return message


def test_a_client_that_trusts_the_authority_connects_with_tls_1_3(ours: Authority) -> None:
    outcome = connect(server_context(ours.server()), client_context(ours.client()))
    assert outcome.works
    assert (outcome.version, outcome.alpn) == ("TLSv1.3", "http/1.1")


def test_a_client_without_alpn_or_server_name_connects(ours: Authority) -> None:
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.load_verify_locations(ours.ca)
    server = server_context(ours.server())
    left, right = socket.socketpair()
    with left, right:
        thread = threading.Thread(target=lambda: server.wrap_socket(left, server_side=True).close())
        thread.start()
        with client.wrap_socket(right) as connection:
            assert connection.selected_alpn_protocol() is None
        thread.join()


@pytest.mark.parametrize(("offered", "chosen"), [(["h2", "http/1.1"], "http/1.1"), (["h2"], None)])
def test_http_2_is_never_chosen(ours: Authority, offered: list[str], chosen: str | None) -> None:
    client = client_context(ours.client())
    client.set_alpn_protocols(offered)
    outcome = connect(server_context(ours.server()), client)
    assert outcome.works
    assert outcome.alpn == chosen


@pytest.mark.parametrize("reject", [True, False])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_requested_client_certificates_are_required_as_in_chp(
    ours: Authority, other: Authority, reject: bool, version: ssl.TLSVersion
) -> None:
    server = server_context(ours.server(ca=ours.ca, request_cert=True, reject_unauthorized=reject))

    def outcome(options: ClientTlsOptions) -> Outcome:
        client = client_context(options)
        client.maximum_version = version
        return connect(server, client)

    assert outcome(ours.client_with_cert()).works

    missing = outcome(ours.client())
    assert missing.server_error is not None
    assert describe_failure(missing.server_error) == "peer did not return a certificate"

    wrong = outcome(replace(other.client_with_cert(), ca=ours.ca))
    assert wrong.server_error is not None
    assert describe_failure(wrong.server_error).startswith("certificate not accepted: ")

    expired = outcome(ours.client_with_cert(not_after=YESTERDAY))
    assert expired.server_error is not None
    assert describe_failure(expired.server_error) == (
        "certificate not accepted: certificate has expired"
    )

    for failed in (missing, wrong, expired):
        assert isinstance(failed.client_error, ssl.SSLError)
        assert failed.echoed == b""
    assert outcome(ours.client_with_cert()).works


def test_client_certificates_are_not_asked_for_unless_requested(
    ours: Authority, other: Authority
) -> None:
    server = server_context(ours.server(ca=ours.ca, reject_unauthorized=True))
    assert connect(server, client_context(ours.client())).works
    wrong = replace(other.client_with_cert(), ca=ours.ca)
    assert connect(server, client_context(wrong)).works


def test_a_ca_file_may_have_several_certificates_and_comments(
    ours: Authority, other: Authority, tmp_path: Path
) -> None:
    both = tmp_path / "both.pem"
    texts = [f"# {path}\n{Path(path).read_text()}\n" for path in (other.ca, ours.ca)]
    both.write_text("".join(texts))
    server = server_context(ours.server(ca=str(both), request_cert=True))
    for authority in (ours, other):
        client = client_context(replace(authority.client_with_cert(), ca=str(both)))
        assert connect(server, client).works


def test_ssl_ca_completes_the_chain_of_the_server_s_certificate(ours: Authority) -> None:
    intermediate = ours.authority.create_child_ca()
    leaf = intermediate.issue_cert(HOST)
    key = ours.write("leaf.key", leaf.private_key_pem.bytes())
    cert = ours.write("leaf.crt", leaf.cert_chain_pems[0].bytes())
    ca = ours.write("intermediate.pem", intermediate.cert_pem.bytes())
    client = client_context(ours.client())
    assert connect(server_context(ServerTlsOptions(key, cert, ca=ca)), client).works
    assert not connect(server_context(ServerTlsOptions(key, cert)), client).works


def test_targets_with_certificates_of_an_unknown_authority_are_not_trusted(
    ours: Authority, other: Authority
) -> None:
    outcome = connect(server_context(other.server()), client_context(ours.client()))
    assert isinstance(outcome.client_error, ssl.SSLCertVerificationError)
    assert describe_failure(outcome.client_error).startswith("certificate not accepted: ")


def test_targets_with_a_certificate_for_another_host_are_not_trusted(ours: Authority) -> None:
    server = server_context(ours.server())
    outcome = connect(server, client_context(ours.client()), name="other.example")
    assert isinstance(outcome.client_error, ssl.SSLCertVerificationError)


def test_targets_with_an_expired_certificate_are_not_trusted(ours: Authority) -> None:
    key, cert = ours.issue(not_after=YESTERDAY)
    outcome = connect(server_context(ServerTlsOptions(key, cert)), client_context(ours.client()))
    assert isinstance(outcome.client_error, ssl.SSLCertVerificationError)
    assert describe_failure(outcome.client_error).endswith("certificate has expired")


def test_insecure_takes_every_certificate(ours: Authority, other: Authority) -> None:
    client = client_context(ours.client(verify=False))
    assert connect(server_context(other.server()), client, name="other.example").works


def test_client_ssl_ca_replaces_the_authorities_of_the_system(
    ours: Authority, other: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", ours.ca)
    server = server_context(ours.server())
    assert connect(server, client_context(ClientTlsOptions())).works
    assert not connect(server, client_context(ClientTlsOptions(ca=other.ca))).works


def test_without_ssl_ca_client_certificates_come_from_the_authorities_of_the_system(
    ours: Authority, other: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", other.ca)
    server = server_context(ours.server(request_cert=True))
    assert connect(server, client_context(replace(other.client_with_cert(), ca=ours.ca))).works
    assert not connect(server, client_context(ours.client_with_cert())).works


@pytest.mark.parametrize(
    ("name", "spoken", "refused"),
    [
        ("TLSv1_2", "TLSv1.2", ssl.TLSVersion.TLSv1_3),
        ("TLSv1.2", "TLSv1.2", ssl.TLSVersion.TLSv1_3),
        ("TLSv1_2_method", "TLSv1.2", ssl.TLSVersion.TLSv1_3),
        ("TLSv1_2_server_method", "TLSv1.2", ssl.TLSVersion.TLSv1_3),
        ("SSLv23", "TLSv1.2", ssl.TLSVersion.TLSv1_3),
        ("TLSv1_3", "TLSv1.3", ssl.TLSVersion.TLSv1_2),
        ("TLS", "TLSv1.3", None),
    ],
)
def test_the_version_can_be_pinned(
    ours: Authority, name: str, spoken: str, refused: ssl.TLSVersion | None
) -> None:
    server = server_context(ours.server(protocol=name))
    client = client_context(ours.client())
    assert connect(server, client).version == spoken
    if refused:
        client.minimum_version = client.maximum_version = refused
        outcome = connect(server, client)
        assert outcome.server_error is not None
        assert describe_failure(outcome.server_error) in (
            "unsupported protocol",
            "no shared cipher",
        )


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:ssl.OP_NO_:DeprecationWarning")
def test_old_versions_need_security_level_0(ours: Authority) -> None:
    message = refusal(lambda: server_context(ours.server(protocol="TLSv1_1")))
    assert message == (
        "--ssl-protocol: 'TLSv1_1' works in OpenSSL 3 only with --ssl-ciphers that contain "
        "@SECLEVEL=0"
    )
    server = server_context(ours.server(protocol="TLSv1_1", ciphers="ALL:@SECLEVEL=0"))
    client = client_context(ours.client())
    client.set_ciphers("ALL:@SECLEVEL=0")
    client.minimum_version = ssl.TLSVersion.TLSv1_1
    assert connect(server, client).version == "TLSv1.1"


@pytest.mark.parametrize("name", ["SSLv3", "SSLv2_method", "tls", "TLSv1_4", "TLSv1_2_client"])
def test_versions_that_there_are_not_are_refused(ours: Authority, name: str) -> None:
    message = refusal(lambda: server_context(ours.server(protocol=name)))
    assert message.startswith(f"--ssl-protocol: '{name}' is not one of SSLv23, TLS, ")


def test_the_server_chooses_the_cipher_suite(ours: Authority) -> None:
    suites = "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-ECDSA-AES128-GCM-SHA256"
    server = server_context(ours.server(protocol="TLSv1_2", ciphers=suites))
    client = client_context(ours.client())
    client.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384")
    assert connect(server, client).cipher == "ECDHE-ECDSA-AES256-GCM-SHA384"


def test_only_the_given_cipher_suites_are_spoken(ours: Authority) -> None:
    suites = "ECDHE-ECDSA-AES128-GCM-SHA256"
    server = server_context(ours.server(protocol="TLSv1_2", ciphers=suites))
    client = client_context(ours.client())
    assert connect(server, client).cipher == suites
    client.set_ciphers("ECDHE-ECDSA-AES256-GCM-SHA384")
    assert isinstance(connect(server, client).client_error, ssl.SSLError)


def test_weak_cipher_suites_are_not_offered_by_default(ours: Authority) -> None:
    names = [suite["name"] for suite in server_context(ours.server()).get_ciphers()]
    assert "ECDHE-RSA-AES128-GCM-SHA256" in names
    weak = ("RC4", "DES", "MD5", "NULL", "PSK", "SRP", "CAMELLIA", "ADH", "AECDH", "EXP")
    assert [name for name in names if any(part in name for part in weak)] == []


def test_suites_of_tls_1_3_alone_mean_tls_1_3_alone(ours: Authority) -> None:
    options = ours.server(ciphers="TLS_AES_128_GCM_SHA256")
    client = client_context(ours.client())
    assert connect(server_context(options), client).version == "TLSv1.3"
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    assert not connect(server_context(options), client).works


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"ciphers": "bogus"}, "--ssl-ciphers: 'bogus' has no suite that OpenSSL knows"),
        ({"ciphers": ":"}, "--ssl-ciphers: ':' has no suite that OpenSSL knows"),
        ({"ciphers": "TLS_X:HIGH"}, "--ssl-ciphers: 'TLS_X' is not a suite that OpenSSL offers"),
        (
            {"ciphers": "TLS_AES_128_GCM_SHA256", "protocol": "TLSv1_2"},
            "--ssl-ciphers: 'TLS_AES_128_GCM_SHA256' has no suite for --ssl-protocol",
        ),
    ],
)
def test_cipher_suites_that_can_not_be_spoken_are_refused(
    ours: Authority, fields: dict[str, object], message: str
) -> None:
    assert refusal(lambda: server_context(ours.server(**fields))) == message


def der(tag: int, content: bytes) -> bytes:
    """Encode an ASN.1 value (X.690, 8.1) of less than 128 or of 256 to 65535 bytes."""
    length = len(content)
    return bytes([tag, length] if length < 128 else [tag, 0x82, *divmod(length, 256)]) + content


def ffdhe2048() -> bytes:
    """The Diffie-Hellman group of RFC 7919, appendix A.1, computed as it says there."""
    guard = 64  # more bits than the rounding of the sum can spoil
    e_by_2_to_1918 = sum((1 << (1918 + guard)) // math.factorial(k) for k in range(400)) >> guard
    p = 2**2048 - 2**1984 + (e_by_2_to_1918 + 560316) * 2**64 - 1
    group = der(0x30, der(2, p.to_bytes(257, "big")) + der(2, b"\x02"))
    return ssl.DER_cert_to_PEM_cert(group).replace("CERTIFICATE", "DH PARAMETERS").encode()


def test_diffie_hellman_parameters_allow_dhe_suites(ours: Authority) -> None:
    key, cert = ours.issue(key_type=trustme.KeyType.RSA)
    options = ServerTlsOptions(key, cert, protocol="TLSv1_2")
    client = client_context(ours.client())
    client.set_ciphers("DHE-RSA-AES128-GCM-SHA256")
    assert not connect(server_context(options), client).works
    dhparam = ours.write("dh.pem", ffdhe2048())
    outcome = connect(server_context(replace(options, dhparam=dhparam)), client)
    assert outcome.works
    assert outcome.cipher == "DHE-RSA-AES128-GCM-SHA256"


@pytest.mark.parametrize(
    "form", [serialization.PrivateFormat.PKCS8, serialization.PrivateFormat.TraditionalOpenSSL]
)
@pytest.mark.parametrize("prefix", ["--ssl", "--api-ssl"])
def test_encrypted_keys_are_opened_with_the_passphrase(
    ours: Authority, form: serialization.PrivateFormat, prefix: str
) -> None:
    plain, cert = ours.issue()
    private = serialization.load_pem_private_key(Path(plain).read_bytes(), None)
    encryption = serialization.BestAvailableEncryption(b"open sesame")
    key = ours.write(
        "encrypted.key", private.private_bytes(serialization.Encoding.PEM, form, encryption)
    )
    options = ServerTlsOptions(key, cert, passphrase="open sesame", flag_prefix=prefix)
    assert connect(server_context(options), client_context(ours.client())).works

    variable = f"CONFIGPROXY_{prefix[2:].replace('-', '_').upper()}_KEY_PASSPHRASE"
    message = refusal(lambda: server_context(replace(options, passphrase=None)))
    assert message == f"{prefix}-key: {key!r} is encrypted, and {variable} is not set"
    message = refusal(lambda: server_context(replace(options, passphrase="closed")))
    assert message == (
        f"{prefix}-key: {key!r} can't be decrypted with the passphrase in {variable}"
    )
    message = refusal(lambda: client_context(ClientTlsOptions(key, cert)))
    assert message == f"--client-ssl-key: {key!r} is encrypted, and there is no passphrase for it"


def test_a_passphrase_for_a_key_that_is_not_encrypted_does_no_harm(ours: Authority) -> None:
    server_context(ours.server(passphrase="needless"))


MALFORMED = b"-----BEGIN %s-----\nAAAA\n-----END %s-----\n"


@pytest.mark.parametrize(
    ("field", "content", "message"),
    [
        ("key", None, "--ssl-key: {path!r} can't be read: No such file or directory"),
        ("cert", None, "--ssl-cert: {path!r} can't be read: No such file or directory"),
        ("ca", None, "--ssl-ca: {path!r} can't be read: No such file or directory"),
        ("dhparam", None, "--ssl-dhparam: {path!r} can't be read: No such file or directory"),
        ("key", b"", "--ssl-key: {path!r} has no private key in PEM form"),
        ("cert", b"\x00\xff", "--ssl-cert: {path!r} has no certificate in PEM form"),
        ("ca", b"", "--ssl-ca: {path!r} has no certificate in PEM form"),
        ("dhparam", b"", "--ssl-dhparam: {path!r} has no Diffie-Hellman parameters in PEM form"),
        ("key", MALFORMED.replace(b"%s", b"PRIVATE KEY"), "--ssl-key: {path!r} is malformed"),
        ("cert", MALFORMED.replace(b"%s", b"CERTIFICATE"), "--ssl-cert: {path!r} is malformed"),
        ("ca", MALFORMED.replace(b"%s", b"CERTIFICATE"), "--ssl-ca: {path!r} is malformed"),
        ("dhparam", MALFORMED.replace(b"%s", b"DH PARAMETERS"), "--ssl-dhparam: {path!r} "),
    ],
)
def test_unusable_files_are_named_with_their_flag(
    ours: Authority, field: str, content: bytes | None, message: str
) -> None:
    path = str(ours.folder / "missing.pem") if content is None else ours.write("x.pem", content)
    options = ours.server(**{field: path})
    assert refusal(lambda: server_context(options)).startswith(message.format(path=path))


def test_a_folder_is_no_certificate(ours: Authority) -> None:
    message = refusal(lambda: server_context(ours.server(ca=str(ours.folder))))
    assert message.endswith("can't be read: Is a directory")


def test_the_key_of_another_certificate_is_refused(ours: Authority) -> None:
    key, _ = ours.issue()
    options = ours.server(key=key, flag_prefix="--api-ssl")
    assert refusal(lambda: server_context(options)) == (
        f"--api-ssl-key: {key!r} is not the key of --api-ssl-cert {options.cert!r}"
    )
    client = ours.client(key=key, cert=options.cert)
    assert refusal(lambda: client_context(client)) == (
        f"--client-ssl-key: {key!r} is not the key of --client-ssl-cert {options.cert!r}"
    )


@pytest.mark.parametrize("missing", ["key", "cert"])
def test_a_key_and_a_certificate_belong_together(ours: Authority, missing: str) -> None:
    key, cert = ours.issue()
    half = {"key": key, "cert": cert, missing: None}
    given = {"key": "cert", "cert": "key"}[missing]
    message = refusal(lambda: server_context(ServerTlsOptions(**half)))  # type: ignore[arg-type]
    assert message == f"--ssl-{missing}: is not given, and --ssl-{given} is of no use alone"
    client = ours.client(**half)
    assert refusal(lambda: client_context(client)) == (
        f"--client-ssl-{missing}: is not given, and --client-ssl-{given} is of no use alone"
    )


def test_failures_without_a_tls_reason_are_described() -> None:
    assert describe_failure(ConnectionResetError(104, "Connection reset by peer")) == (
        "Connection reset by peer"
    )
    assert describe_failure(TimeoutError()) == "TimeoutError"


def test_a_plain_http_request_on_a_tls_port_is_described(ours: Authority) -> None:
    left, right = socket.socketpair()
    with left, right:
        right.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        with pytest.raises(ssl.SSLError) as caught:
            server_context(ours.server()).wrap_socket(left, server_side=True)
    assert describe_failure(caught.value) == "http request"


# Both sides run as greenlets of one thread: blocking sockets would never finish.
PATCH_AFTER_CHECKING = """
import sys, warnings
warnings.simplefilter("error")
warnings.simplefilter("ignore", ResourceWarning)  # of the two sockets below
from chp_gevent.config import tls_contexts as tls
from chp_gevent.config.options import ClientTlsOptions, ServerTlsOptions
key, cert, ca, name = sys.argv[1:]
server_options = ServerTlsOptions(key, cert, ca=ca, request_cert=True, protocol="TLSv1_2")
client_options = ClientTlsOptions(key, cert, ca)
tls.server_context(server_options)
tls.client_context(client_options)
from gevent import monkey
monkey.patch_all()
import gevent, gevent.socket
left, right = gevent.socket.socketpair()
server = tls.server_context(server_options)
accepted = gevent.spawn(lambda: server.wrap_socket(left, server_side=True).version())
client = tls.client_context(client_options)
with gevent.Timeout(20):
    print(client.wrap_socket(right, server_hostname=name).version(), accepted.get())
"""


def test_options_may_be_checked_before_gevent_patches_the_process(ours: Authority) -> None:
    key, cert = ours.issue()
    result = subprocess.run(
        [sys.executable, "-c", PATCH_AFTER_CHECKING, key, cert, ours.ca, HOST],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ,
    )
    assert (result.stdout, result.stderr) == ("TLSv1.2 TLSv1.2\n", "")


def test_a_target_that_cuts_its_connection_is_no_target_that_closes_it() -> None:
    assert not client_context(ClientTlsOptions()).options & ssl.OP_IGNORE_UNEXPECTED_EOF
