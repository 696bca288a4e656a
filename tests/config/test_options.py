"""What each option becomes, and which values are refused."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network

import pytest

from chp_gevent.cli import parse
from chp_gevent.config import validate as option_parsing
from chp_gevent.config.options import (
    ClientTlsOptions,
    OptionError,
    Options,
    ProxyOptions,
    RedirectOptions,
    ServerTlsOptions,
    StatsdOptions,
    TcpAddress,
    UnixAddress,
)
from chp_gevent.http.limits import LimitOptions
from chp_gevent.routing.target_url import check_target_url

TLS = ("--ssl-key", "k", "--ssl-cert", "c")


def options(*arguments: str, **environ: str) -> Options:
    """Parse with a token, so that its absence causes no notice."""
    return parse(arguments, {"CONFIGPROXY_AUTH_TOKEN": "secret", **environ})


def proxy(*arguments: str) -> ProxyOptions:
    """Parse what the data plane is told."""
    return options(*arguments).proxy


def refusal(*arguments: str, **environ: str) -> str:
    """Parse what must be refused, and return why."""
    with pytest.raises(OptionError) as caught:
        options(*arguments, **environ)
    message = str(caught.value)
    assert message.isprintable()
    return message


def notices(*arguments: str, **environ: str) -> list[str]:
    """Return what is logged at start."""
    return [notice.message for notice in options(*arguments, **environ).notices]


def test_defaults_of_the_usage_text_are_those_of_the_classes() -> None:
    expected = Options(listen=TcpAddress("", 8000), api=TcpAddress("localhost", 8001))
    parsed = options()
    assert parsed == replace(expected, workers=parsed.workers, auth_token="secret")


def test_there_are_as_many_workers_as_usable_cpus_but_at_most_8(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(option_parsing, "usable_cpus", lambda: 3)
    assert options().workers == 3
    monkeypatch.setattr(option_parsing, "usable_cpus", lambda: 64)
    assert options().workers == 8
    assert options("--workers", "12").workers == 12


@pytest.mark.parametrize(
    ("arguments", "listen", "api"),
    [
        (["--port", "80"], TcpAddress("", 80), TcpAddress("localhost", 81)),
        (["--port", " 80 "], TcpAddress("", 80), TcpAddress("localhost", 81)),
        (["--port", ""], TcpAddress("", 8000), TcpAddress("localhost", 8001)),
        (["--port", "0"], TcpAddress("", 0), TcpAddress("localhost", 0)),
        (["--api-port", "9"], TcpAddress("", 8000), TcpAddress("localhost", 9)),
        (["--ip", ""], TcpAddress("", 8000), TcpAddress("localhost", 8001)),
        (["--ip", "*"], TcpAddress("", 8000), TcpAddress("localhost", 8001)),
        (["--ip", "::1"], TcpAddress("::1", 8000), TcpAddress("localhost", 8001)),
        (["--ip", "hub.example"], TcpAddress("hub.example", 8000), TcpAddress("localhost", 8001)),
        (["--api-ip", ""], TcpAddress("", 8000), TcpAddress("", 8001)),
        (["--api-ip", "10.0.0.1"], TcpAddress("", 8000), TcpAddress("10.0.0.1", 8001)),
        (["--socket", "/run/s"], UnixAddress("/run/s"), TcpAddress("localhost", 8001)),
        (["--api-socket", "a"], TcpAddress("", 8000), UnixAddress("a")),
        (["--port=65535", "--api-port=1"], TcpAddress("", 65535), TcpAddress("localhost", 1)),
    ],
)
def test_addresses(
    arguments: list[str], listen: TcpAddress | UnixAddress, api: TcpAddress | UnixAddress
) -> None:
    parsed = options(*arguments)
    assert (parsed.listen, parsed.api) == (listen, api)


@pytest.mark.parametrize(
    ("arguments", "metrics"),
    [
        ([], None),
        (["--metrics-ip", "127.0.0.1"], None),
        (["--metrics-port", "9000"], TcpAddress("", 9000)),
        (["--metrics-port", "0", "--metrics-ip", "::1"], TcpAddress("::1", 0)),
        (["--metrics-socket", "/run/m"], UnixAddress("/run/m")),
    ],
)
def test_metrics_are_served_only_where_asked_for(
    arguments: list[str], metrics: TcpAddress | UnixAddress | None
) -> None:
    assert options(*arguments).metrics == metrics


@pytest.mark.parametrize("flag", ["--port", "--api-port", "--metrics-port", "--redirect-port"])
@pytest.mark.parametrize("value", ["x", "-1", "65536", "80x", "8e3", "80.5", "٣", "9" * 5000])
def test_ports_that_do_not_exist_are_refused(flag: str, value: str) -> None:
    assert refusal(*TLS, flag, value).startswith(f"{flag}: '{value}' is not a whole number")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--redirect-to", "0"], "--redirect-to: '0' is not a whole number from 1 to 65535"),
        (["--port", "65535"], "--api-port: must be given"),
        (["--ip", "1.2.3.4:80"], "--ip: '1.2.3.4:80' is neither an IP address nor a host name"),
        (["--ip", "[::1]"], "--ip: '[::1]' is neither"),
        (["--api-ip", "*"], "--api-ip: '*' is neither"),
        (["--metrics-ip", "a b"], "--metrics-ip: 'a b' is neither"),
        (["--statsd-host", "udp://x"], "--statsd-host: 'udp://x' is neither"),
        (["--statsd-prefix", "a:b"], "--statsd-prefix: 'a:b' has a character"),
        (["--socket", "s" * 108], "at most 107 bytes"),
        (["--socket", "s", "--port", "1"], "'--socket' cannot be used with option '--port'"),
        (["--socket", "s", "--ip", "::"], "'--socket' cannot be used with option '--ip'"),
        (["--workers", "0"], "--workers: '0' is not a whole number from 1 to 256"),
        (["--backlog", "0"], "--backlog: '0' is not"),
        (["--max-requests", "-1"], "--max-requests: '-1' is not"),
        (["--worker-connections", "many"], "--worker-connections: 'many' is not"),
        (["--drain-timeout", "1h"], "--drain-timeout: '1h' is not a number of seconds"),
        (["--header-timeout", "0"], "--header-timeout: '0' is not a number of seconds"),
        (["--body-timeout", "-1"], "--body-timeout: '-1' is not a number of seconds"),
        (["--connect-timeout", "0"], "--connect-timeout: '0' is not a number of seconds (0.1 to"),
        (["--connect-timeout", "10000"], "'10000' is not a number of seconds (0.1 to 300)"),
        (["--timeout", "1.5"], "--timeout: '1.5' is not a whole number"),
        (["--proxy-timeout", str(2**31)], "--proxy-timeout: '2147483648' is not"),
        (["--keep-alive-timeout", "-1"], "--keep-alive-timeout: '-1' is not"),
        (["--log-level", "loud"], "--log-level: 'loud' is not one of debug, info, warn, error"),
        (["--protocol-rewrite", "ftp"], "--protocol-rewrite: 'ftp' is neither http nor https"),
        (["--storage-backend", "redis"], "--storage-backend: 'redis' is neither sqlite:PATH,"),
        (["--storage-backend", "redis://u:p@host"], "--storage-backend: 'redis://***@host' has a"),
        (["--storage-backend", "redis://a,b"], "--storage-backend: 'redis://a,b' names several"),
        (["--storage-backend", "redis://a:x"], "--storage-backend: 'redis://a:x' names no host"),
        (["--storage-backend", "redis://a/b"], "--storage-backend: 'redis://a/b' may end with"),
        (["--storage-backend", "redis://a?x=1"], "'redis://a?x=1' has more than hosts and a path"),
        (["--storage-backend", "redis+sentinel://a"], "does not end with /NAME of the master"),
        (["--storage-backend", "redis+cluster://a/1"], "may end with /NUMBER of a database"),
        (["--storage-backend", "unix://x"], "names no socket, as unix:///run/redis/redis.sock"),
        (["--storage-prefix", "{x}"], "--storage-prefix: '{x}' is not 1 to 64 letters"),
        (["--replica-name", "a b"], "--replica-name: 'a b' is not 1 to 128 letters"),
        (["--storage-lease", "1"], "--storage-lease: '1' is not a number of seconds (2 to 60)"),
        (["--storage-wait", "1"], "--storage-wait: needs --storage-backend redis://HOST:PORT"),
        (
            ["--storage-backend", "redis://a", "--storage-ssl-ca", "f"],
            "--storage-ssl-ca: needs a --storage-backend that begins with rediss",
        ),
        (
            ["--storage-backend", "rediss://a", "--storage-ssl-key", "f"],
            "--storage-ssl-key: needs --storage-ssl-cert",
        ),
        (["--storage-backend", "sqlite:"], "--storage-backend: 'sqlite:' names no file"),
        (["--storage-backend", "./store.js"], "--storage-backend: './store.js' is neither"),
        (["--trusted-proxies", "10.0.0.1/8"], "10.0.0.1/8 has host bits set"),
        (["--trusted-proxies", "10.0.0.1,"], "--trusted-proxies: '10.0.0.1,' is not a list of"),
    ],
)
def test_refused_values_are_named_with_their_flag(arguments: list[str], message: str) -> None:
    assert message in refusal(*arguments)


def test_a_socket_for_the_api_or_the_metrics_wins_over_a_port_as_in_chp() -> None:
    arguments = ["--api-socket=a", "--api-port=1", "--api-ip=::1", "--metrics-socket=m"]
    arguments += ["--metrics-port=2"]
    parsed = options(*arguments)
    assert (parsed.api, parsed.metrics) == (UnixAddress("a"), UnixAddress("m"))
    assert notices(*arguments) == [
        "No effect of --api-ip, --api-port: the API listens on --api-socket.",
        "No effect of --metrics-port: the metrics server listens on --metrics-socket.",
    ]


def test_a_key_or_a_certificate_turns_tls_on() -> None:
    assert options().tls is None
    assert options(*TLS).tls == ServerTlsOptions("k", "c")
    assert options("--ssl-key", "k").tls == ServerTlsOptions("k", None)
    assert options("--api-ssl-cert", "c").api_tls == ServerTlsOptions(
        None, "c", flag_prefix="--api-ssl"
    )


def test_every_tls_option_of_the_proxy() -> None:
    parsed = options(
        *TLS,
        *("--ssl-ca", "ca", "--ssl-request-cert", "--ssl-reject-unauthorized"),
        *("--ssl-protocol", "TLSv1_2", "--ssl-ciphers", "HIGH", "--ssl-dhparam", "dh"),
        CONFIGPROXY_SSL_KEY_PASSPHRASE="open sesame",
        CONFIGPROXY_API_SSL_KEY_PASSPHRASE="other",
    )
    assert parsed.tls == ServerTlsOptions(
        key="k",
        cert="c",
        ca="ca",
        request_cert=True,
        reject_unauthorized=True,
        protocol="TLSv1_2",
        ciphers="HIGH",
        dhparam="dh",
        passphrase="open sesame",
    )


def test_the_api_has_its_own_keys_and_the_proxy_s_version_and_suites() -> None:
    parsed = options(
        *("--api-ssl-key", "k", "--api-ssl-cert", "c", "--api-ssl-ca", "ca"),
        *("--api-ssl-request-cert", "--api-ssl-reject-unauthorized"),
        *("--ssl-protocol", "TLSv1_2", "--ssl-ciphers", "HIGH", "--ssl-dhparam", "dh"),
        CONFIGPROXY_SSL_KEY_PASSPHRASE="other",
        CONFIGPROXY_API_SSL_KEY_PASSPHRASE="open sesame",
    )
    assert parsed.tls is None
    assert parsed.api_tls == ServerTlsOptions(
        key="k",
        cert="c",
        ca="ca",
        request_cert=True,
        reject_unauthorized=True,
        protocol="TLSv1_2",
        ciphers="HIGH",
        dhparam="dh",
        passphrase="open sesame",
        flag_prefix="--api-ssl",
    )


def test_tls_towards_targets() -> None:
    assert proxy().client_tls == ClientTlsOptions(verify=True)
    arguments = ["--client-ssl-key=k", "--client-ssl-cert=c", "--client-ssl-ca=a", "--insecure"]
    assert proxy(*arguments).client_tls == ClientTlsOptions("k", "c", "a", verify=False)


@pytest.mark.parametrize(
    ("arguments", "redirect"),
    [
        ([], None),
        (["--redirect-port", "80"], RedirectOptions(TcpAddress("", 80), 8000)),
        (["--redirect-port=80", "--port=443"], RedirectOptions(TcpAddress("", 80), 443)),
        (["--redirect-port=80", "--redirect-to=444"], RedirectOptions(TcpAddress("", 80), 444)),
    ],
)
def test_redirection_to_https(arguments: list[str], redirect: RedirectOptions | None) -> None:
    assert options(*TLS, *arguments).redirect == redirect


@pytest.mark.parametrize("listen", [["--port", "80"], ["--socket", "s"]])
def test_there_is_no_redirection_to_port_80_or_to_a_socket_as_in_chp(listen: list[str]) -> None:
    assert options(*TLS, *listen, "--redirect-port", "81").redirect is None
    assert notices(*TLS, *listen, "--redirect-port", "81") == [
        "No effect of --redirect-port: the proxy listens on port 80 or on a socket."
    ]


@pytest.mark.parametrize(
    ("arguments", "port"),
    [
        (["--trusted-proxies", "10.0.0.0/8"], None),
        (["--trusted-proxies", "10.0.0.0/8", "--redirect-http"], 443),
        (["--trusted-proxies", "10.0.0.0/8", "--redirect-http", "--redirect-to", "8443"], 8443),
        # Whoever is on the other side of a UNIX socket is trusted.
        (["--trusted-proxies", "none", "--redirect-http", "--socket", "s"], 443),
    ],
)
def test_redirection_where_tls_ends_in_front(arguments: list[str], port: int | None) -> None:
    parsed = options(*arguments)
    assert (parsed.proxy.https_port, parsed.notices) == (port, ())


def test_nobody_is_redirected_on_the_word_of_anybody() -> None:
    assert refusal("--redirect-http").startswith("--redirect-http: needs --trusted-proxies")


@pytest.mark.parametrize(
    ("flag", "field", "value"),
    [
        ("--no-x-forward", "x_forward", False),
        ("--no-prepend-path", "prepend_path", False),
        ("--no-include-prefix", "include_prefix", False),
        ("--auto-rewrite", "auto_rewrite", True),
        ("--change-origin", "change_origin", True),
        ("--host-routing", "host_routing", True),
    ],
)
def test_switches(flag: str, field: str, value: bool) -> None:
    assert proxy(flag) == replace(ProxyOptions(), **{field: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "field", "value"),
    [
        (["--timeout", "1500"], "timeout", 1.5),
        (["--timeout", "0"], "timeout", None),
        (["--proxy-timeout", "250"], "proxy_timeout", 0.25),
        (["--proxy-timeout", "0"], "proxy_timeout", None),
        (["--keep-alive-timeout", "7000"], "keep_alive_timeout", 7.0),
        (["--keep-alive-timeout", "0"], "keep_alive_timeout", 5.0),
        (["--connect-timeout", "2.5"], "connect_timeout", 2.5),
        ([], "connect_timeout", 10.0),
        (["--protocol-rewrite", "https"], "protocol_rewrite", "https"),
        (["--protocol-rewrite", "HTTP:"], "protocol_rewrite", "http"),
        (["--error-path", "pages"], "error_path", "pages"),
        (["--error-target", "http://h/error?a=b"], "error_target", "http://h/error?a=b"),
        (["--trusted-proxies", ""], "trusted_proxies", None),
        (["--trusted-proxies", "none"], "trusted_proxies", ()),
        (
            ["--trusted-proxies", "10.0.0.0/8, ::1"],
            "trusted_proxies",
            (ip_network("10.0.0.0/8"), ip_network("::1/128")),
        ),
        (
            ["--trusted-proxies", "::ffff:10.0.0.0/104,::ffff:192.0.2.1,::ffff:0:0/96,::/0"],
            "trusted_proxies",
            tuple(map(ip_network, ("10.0.0.0/8", "192.0.2.1/32", "0.0.0.0/0", "::/0"))),
        ),
    ],
)
def test_values_for_the_data_plane(arguments: list[str], field: str, value: object) -> None:
    assert getattr(proxy(*arguments), field) == value


def test_limits() -> None:
    arguments = ["--max-header-size=1000", "--max-request-line=500", "--max-headers=9"]
    arguments += ["--header-timeout=2.5", "--body-timeout=9"]
    assert proxy(*arguments).limits == LimitOptions(500, 1000, 9, 2.5, 9.0)
    assert proxy().limits.body_timeout == 300
    assert proxy("--body-timeout", "0").limits.body_timeout is None


def test_processes() -> None:
    parsed = options(
        *("--workers=3", "--drain-timeout=0.5", "--max-requests=1000", "--backlog=64"),
        *("--worker-connections=50", "--pid-file=p", "--storage-backend=a.b.Store"),
    )
    assert (parsed.workers, parsed.drain_timeout, parsed.max_requests) == (3, 0.5, 1000)
    assert (parsed.backlog, parsed.worker_connections, parsed.pid_file) == (64, 50, "p")
    assert parsed.storage_backend == "a.b.Store"


def test_statsd() -> None:
    assert options("--statsd-port=1").statsd is None
    assert options("--statsd-host=h").statsd == StatsdOptions("h", 8125, "chp")
    assert options("--statsd-host=h", "--statsd-port=9", "--statsd-prefix=a.b").statsd == (
        StatsdOptions("h", 9, "a.b")
    )


@pytest.mark.parametrize(
    ("given", "level"),
    [("DEBUG", "debug"), ("Warn", "warn"), ("warning", "warn"), ("silly", "debug"), ("", "info")],
)
def test_log_levels_are_taken_in_any_case(given: str, level: str) -> None:
    assert options("--log-level", given).log_level == level


@pytest.mark.parametrize(
    ("headers", "pairs"),
    [
        (["k:v"], (("k", "v"),)),
        (["  k1 :  v1  "], (("k1", "v1"),)),
        (["Authorization: Basic a:b=="], (("Authorization", "Basic a:b=="),)),
        (["empty:"], (("empty", ""),)),
        (["a: 1", "b: 2", "a: 3"], (("a", "3"), ("b", "2"))),
        (["x: é"], (("x", "é"),)),
    ],
)
def test_custom_headers(headers: list[str], pairs: tuple[tuple[str, str], ...]) -> None:
    arguments = [part for header in headers for part in ("--custom-header", header)]
    assert proxy(*arguments).custom_headers == pairs


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("plain", "A colon was expected in custom header: plain"),
        (" :value ", "A colon was expected in custom header: :value"),
        ("", "A colon was expected in custom header: "),
        ("a b: c", "--custom-header: 'a b' is not a name for a header"),
        ("a: b\r\nc: d", "--custom-header: 'b\\r\\nc: d' is not a value for a header"),
        ("a\r\nb", "A colon was expected in custom header: 'a\\r\\nb'"),
        ("a: 秀", "--custom-header: '秀' is not a value for a header"),
        ("Content-Length: 5", "--custom-header: 'Content-Length' is set by the proxy itself"),
        ("transfer-encoding: x", "--custom-header: 'transfer-encoding' is set by the proxy"),
    ],
)
def test_headers_that_can_not_be_sent_are_refused(header: str, message: str) -> None:
    assert message in refusal("--custom-header", header)


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost",
        "http://127.0.0.1:8081",
        "https://hub.example:443/a//b?c=d",
        "HTTP://my_service:80/",
        "http://[::1]:8081/x",
        "http://host:/",
        "http+unix://%2Frun%2Fx.sock",
        "unix+http://%2Frun%2Fx.sock/path",
    ],
)
def test_urls_of_targets(url: str) -> None:
    check_target_url(url)
    assert options("--default-target", url).default_target == url
    assert options("--error-target", url).proxy.error_target == url


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("localhost:8081", "does not begin with one of http://, https://, http+unix://"),
        ("127.0.0.1:8081", "does not begin with one of"),
        ("//host", "does not begin with one of"),
        ("http:/host", "does not begin with one of"),
        ("http:host", "does not begin with one of"),
        ("ftp://host", "does not begin with one of"),
        ("ws://host", "does not begin with one of"),
        ("https+unix://%2Fs", "does not begin with one of"),
        ("http://", "has no host"),
        ("http:///path", "has no host"),
        ("http://:80", "has a host that is neither"),
        ("http://_-:80", "has a host that is neither"),
        ("http://a%62c", "has a host that is neither"),
        ("http://::1:80", "has a"),
        ("http://[::1", "has a malformed host"),
        ("http://[::g]/", "has a"),
        ("http://host:0", "has a port that is not a number from 1 to 65535"),
        ("http://host:65536", "has a port that is not"),
        ("http://host:x", "has a port that is not"),
        ("http://host#top", "has a fragment"),
        ("http://host/a b", "has characters that must be percent-encoded"),
        ("http://host/\tx", "has characters that must be percent-encoded"),
        ("http://host\\evil", "has characters that must be percent-encoded"),
        ("http://hôte/", "has characters that must be percent-encoded"),
        ("http+unix:///run/x.sock", "has no host: write the socket's path as in http+unix://%2F"),
        ("http+unix://%00", "is not a path for a UNIX socket"),
        ("http+unix://%2F" + "x" * 107, "is not a path for a UNIX socket"),
    ],
)
def test_urls_that_no_request_can_be_sent_to_are_refused(url: str, reason: str) -> None:
    for flag in ("--default-target", "--error-target"):
        message = refusal(flag, url)
        assert message.startswith(f"{flag}: {url!r} ")
        assert reason in message


def test_passwords_in_urls_are_refused_and_not_shown() -> None:
    message = refusal("--default-target", "http://user:pa@ss@host/")
    assert message == (
        "--default-target: 'http://***@host/' has credentials, which are not sent to targets"
    )


def test_error_pages_may_come_from_two_places() -> None:
    parsed = proxy("--error-target", "http://e", "--error-path", "d")
    assert (parsed.error_target, parsed.error_path) == ("http://e", "d")


@pytest.mark.parametrize("token", ["two words", "line\n", "schlüssel"])
def test_a_token_that_no_client_can_send_is_refused_and_not_shown(token: str) -> None:
    message = refusal(CONFIGPROXY_AUTH_TOKEN=token)
    assert message.startswith("CONFIGPROXY_AUTH_TOKEN: ")
    assert token not in message


def test_secrets_are_not_in_the_text_form_of_the_options() -> None:
    parsed = options(*TLS, CONFIGPROXY_SSL_KEY_PASSPHRASE="sesame")
    assert parsed.auth_token == "secret"
    assert parsed.tls is not None
    assert parsed.tls.passphrase == "sesame"
    assert "secret" not in repr(parsed)
    assert "sesame" not in repr(parsed)


def test_an_empty_token_is_none() -> None:
    assert options(CONFIGPROXY_AUTH_TOKEN="").auth_token is None


def test_an_api_without_a_token_is_warned_about() -> None:
    assert notices(CONFIGPROXY_AUTH_TOKEN="") == ["REST API is not authenticated."]
    assert notices("--api-ip", "::1", CONFIGPROXY_AUTH_TOKEN="") == [
        "REST API is not authenticated."
    ]
    assert notices("--api-ip", "0.0.0.0", CONFIGPROXY_AUTH_TOKEN="") == [
        "REST API is not authenticated.",
        "Everyone who can reach 0.0.0.0 port 8001 can change routes: set CONFIGPROXY_AUTH_TOKEN.",
    ]
    assert notices("--api-ip", "0.0.0.0") == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--auto-rewrite"], "AutoRewrite of Location headers enabled."),
        (["--change-origin"], "Change Origin of host headers enabled."),
        (["--protocol-rewrite", "https"], "ProtocolRewrite enabled. Rewriting to https"),
        (
            ["--ip", "*"],
            "Interpreting ip='*' as all-interfaces. Preferred usage is 0.0.0.0 for all IPv4 or "
            "'' for all-interfaces.",
        ),
        (["--ssl-allow-rc4"], "No effect of --ssl-allow-rc4: OpenSSL 3 has no RC4."),
        (
            ["--ssl-ca=ca", "--ssl-request-cert"],
            "No effect of --ssl-ca, --ssl-request-cert: --ssl-key and --ssl-cert are not given: "
            "no TLS.",
        ),
        (
            ["--api-ssl-request-cert"],
            "No effect of --api-ssl-request-cert: --api-ssl-key and --api-ssl-cert are not "
            "given: no TLS.",
        ),
        (
            [*TLS, "--ssl-request-cert"],
            "--ssl-request-cert without --ssl-ca: certificates of every authority that this "
            "system trusts are accepted.",
        ),
        (
            ["--ssl-ciphers=HIGH:TLS_AES_128_GCM_SHA256"],
            "--ssl-ciphers: Python offers all suites of TLS 1.3 or none.",
        ),
        (
            ["--redirect-to=1"],
            "No effect of --redirect-to: neither --redirect-port nor --redirect-http is given.",
        ),
        (
            ["--redirect-http", "--trusted-proxies=none"],
            "No effect of --redirect-http: --trusted-proxies none: nobody is believed.",
        ),
    ],
)
def test_notices(arguments: list[str], message: str) -> None:
    assert notices(*arguments) == [message]
