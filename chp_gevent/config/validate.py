"""From the values of a command line to validated `Options`. No I/O, but a count of the CPUs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import TypeVar

from chp_gevent.config.argv import CommandLine
from chp_gevent.config.options import (
    Address,
    ClientTlsOptions,
    Notice,
    OptionError,
    Options,
    ProxyOptions,
    RedirectOptions,
    ServerTlsOptions,
    StatsdOptions,
    TcpAddress,
    UnixAddress,
    passphrase_variable,
)
from chp_gevent.http.https_location import HTTPS_PORT
from chp_gevent.http.limits import LimitOptions
from chp_gevent.routing.custom_headers import fault_of_name, is_value
from chp_gevent.routing.target_url import check_target_url
from chp_gevent.runtime.cpus import usable_cpus

_DEFAULT_API_PORT = 8001  # CHP's, when clients connect to a UNIX socket
_MAX_WORKERS = 256
# Seconds. The kernel gives up connecting after 127; more is a number of milliseconds.
_MAX_CONNECT_TIMEOUT = 300.0
_MOST_DEFAULT_WORKERS = 8  # each worker holds a copy of the table: more are for who asks

_LOG_LEVELS = {
    "debug": "debug",
    "info": "info",
    "warn": "warn",
    "error": "error",
    # names that CHP's logger takes without listing them
    "silly": "debug",
    "verbose": "info",
    "http": "info",
    "warning": "warn",
}

_CLASS_PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")
_STATSD_PREFIX = re.compile(r"[^\s:|@]+")

_AUTH_TOKEN = re.compile(r"[\x21-\x7e]+")

_T = TypeVar("_T")


def options(arguments: CommandLine, environ: Mapping[str, str]) -> Options:
    """Validate a command line.

    ``environ`` holds the secrets: ``CONFIGPROXY_AUTH_TOKEN``,
    ``CONFIGPROXY_SSL_KEY_PASSPHRASE`` and ``CONFIGPROXY_API_SSL_KEY_PASSPHRASE``.

    Raises OptionError for the first thing that is wrong.
    """
    listen = _listen_address(arguments)
    tls = _server_tls(arguments, environ, "--ssl")
    parsed = Options(
        listen=listen,
        api=_api_address(arguments, listen),
        metrics=_metrics_address(arguments),
        redirect=_redirect(arguments, listen, tls),
        tls=tls,
        api_tls=_server_tls(arguments, environ, "--api-ssl"),
        proxy=_proxy(arguments),
        default_target=_target_url(arguments, "--default-target"),
        auth_token=_auth_token(environ),
        statsd=_statsd(arguments),
        storage_backend=arguments.parsed("--storage-backend", _class_path),
        pid_file=arguments.text("--pid-file"),
        log_level=_set(arguments.parsed("--log-level", _log_level)),
        log_format=_set(arguments.parsed("--log-format", _log_format)),
        access_log=arguments.text("--access-log"),
        workers=arguments.integer("--workers", 1, _MAX_WORKERS) or _default_workers(),
        drain_timeout=_set(arguments.seconds("--drain-timeout", 0)),
        reload_drain_timeout=_set(arguments.seconds("--reload-drain-timeout", 0, 30 * 86_400)),
        max_draining=_set(arguments.integer("--max-draining", 1, 100)),
        worker_connections=_set(arguments.integer("--worker-connections", 1, 1_000_000)),
        backlog=_set(arguments.integer("--backlog", 1, 65535)),
        max_requests=_set(arguments.integer("--max-requests", 0, 10**9)),
    )
    return replace(parsed, notices=tuple(_notices(arguments, parsed)))


def _set(value: _T | None) -> _T:
    """What can't be None, because the usage text has a default for it."""
    assert value is not None
    return value


def _listen_address(arguments: CommandLine) -> Address:
    for flag in ("--port", "--ip"):
        if {"--socket", flag} <= arguments.given:
            raise OptionError(f"option '--socket' cannot be used with option '{flag}'")
    path = arguments.socket_path("--socket")
    if path:
        return UnixAddress(path)
    ip = "" if arguments.text("--ip") == "*" else arguments.host("--ip") or ""
    return TcpAddress(ip, _set(arguments.port("--port")))


def _api_address(arguments: CommandLine, listen: Address) -> Address:
    path = arguments.socket_path("--api-socket")
    if path:
        return UnixAddress(path)
    port = arguments.port("--api-port")
    if port is None:
        port = _port_after(listen)
    return TcpAddress(_set(arguments.host("--api-ip")), port)


def _port_after(listen: Address) -> int:
    if isinstance(listen, UnixAddress):
        return _DEFAULT_API_PORT
    if listen.port == 65535:
        raise OptionError("--api-port: must be given, as there is no port after --port 65535")
    return listen.port + 1 if listen.port else 0


def _metrics_address(arguments: CommandLine) -> Address | None:
    path = arguments.socket_path("--metrics-socket")
    if path:
        return UnixAddress(path)
    port = arguments.port("--metrics-port")
    ip = arguments.host("--metrics-ip") or ""
    return None if port is None else TcpAddress(ip, port)


def _server_tls(
    arguments: CommandLine, environ: Mapping[str, str], prefix: str
) -> ServerTlsOptions | None:
    """As CHP: a key or a certificate turns TLS on; version and suites are those of --ssl-*."""
    key, cert = arguments.text(f"{prefix}-key"), arguments.text(f"{prefix}-cert")
    if not (key or cert):
        return None
    return ServerTlsOptions(
        key=key,
        cert=cert,
        ca=arguments.text(f"{prefix}-ca"),
        request_cert=arguments.switch(f"{prefix}-request-cert"),
        reject_unauthorized=arguments.switch(f"{prefix}-reject-unauthorized"),
        protocol=arguments.text("--ssl-protocol"),
        ciphers=arguments.text("--ssl-ciphers"),
        dhparam=arguments.text("--ssl-dhparam"),
        passphrase=environ.get(passphrase_variable(prefix)) or None,
        flag_prefix=prefix,
    )


def _redirect(
    arguments: CommandLine, listen: Address, tls: ServerTlsOptions | None
) -> RedirectOptions | None:
    port = arguments.port("--redirect-port")
    to_port = arguments.port("--redirect-to", minimum=1)
    if port is None:
        return None
    if tls is None:
        raise OptionError("HTTPS redirection specified but certificates not provided.")
    # as CHP, which has no redirections to port 80 or to a socket
    if isinstance(listen, UnixAddress) or listen.port == 80:
        return None
    return RedirectOptions(TcpAddress("", port), to_port or listen.port)


def _proxy(arguments: CommandLine) -> ProxyOptions:
    trusted_proxies = arguments.parsed("--trusted-proxies", _networks)
    proxy_protocol = arguments.switch("--proxy-protocol")
    if proxy_protocol and trusted_proxies is None:
        raise OptionError("--proxy-protocol: needs --trusted-proxies, who is to send its headers")
    return ProxyOptions(
        x_forward=not arguments.switch("--no-x-forward"),
        prepend_path=not arguments.switch("--no-prepend-path"),
        include_prefix=not arguments.switch("--no-include-prefix"),
        auto_rewrite=arguments.switch("--auto-rewrite"),
        change_origin=arguments.switch("--change-origin"),
        protocol_rewrite=arguments.parsed("--protocol-rewrite", _rewritten_protocol),
        custom_headers=_custom_headers(arguments.texts("--custom-header")),
        host_routing=arguments.switch("--host-routing"),
        error_target=_target_url(arguments, "--error-target"),
        error_path=arguments.text("--error-path"),
        timeout=arguments.milliseconds("--timeout"),
        proxy_timeout=arguments.milliseconds("--proxy-timeout"),
        connect_timeout=_set(arguments.seconds("--connect-timeout", 0.1, _MAX_CONNECT_TIMEOUT)),
        keep_alive_timeout=(
            arguments.milliseconds("--keep-alive-timeout") or ProxyOptions.keep_alive_timeout
        ),
        client_tls=ClientTlsOptions(
            key=arguments.text("--client-ssl-key"),
            cert=arguments.text("--client-ssl-cert"),
            ca=arguments.text("--client-ssl-ca"),
            verify=not arguments.switch("--insecure"),
        ),
        limits=LimitOptions(
            max_request_line=_set(arguments.integer("--max-request-line", 256, 2**20)),
            max_header_size=_set(arguments.integer("--max-header-size", 256, 2**24)),
            max_headers=_set(arguments.integer("--max-headers", 1, 10_000)),
            header_timeout=_set(arguments.seconds("--header-timeout", 0.1)),
            body_timeout=arguments.seconds("--body-timeout", 0) or None,
        ),
        trusted_proxies=trusted_proxies,
        proxy_protocol=proxy_protocol,
        https_port=_https_port(arguments, trusted=trusted_proxies is not None),
    )


def _https_port(arguments: CommandLine, *, trusted: bool) -> int | None:
    if not arguments.switch("--redirect-http"):
        return None
    if not trusted:
        raise OptionError(
            "--redirect-http: needs --trusted-proxies, which says whose X-Forwarded-Proto counts"
        )
    return arguments.port("--redirect-to", minimum=1) or HTTPS_PORT


def _statsd(arguments: CommandLine) -> StatsdOptions | None:
    host = arguments.host("--statsd-host")
    port = _set(arguments.port("--statsd-port", minimum=1))
    prefix = _set(arguments.parsed("--statsd-prefix", _statsd_prefix))
    return StatsdOptions(host, port, prefix) if host else None


def _target_url(arguments: CommandLine, flag: str) -> str | None:
    def checked(url: str) -> str:
        check_target_url(url)
        return url

    return arguments.parsed(flag, checked)


def _auth_token(environ: Mapping[str, str]) -> str | None:
    token = environ.get("CONFIGPROXY_AUTH_TOKEN")
    if token and not _AUTH_TOKEN.fullmatch(token):
        # such a token can't be sent in a header: with CHP every request is a 403
        raise OptionError(
            "CONFIGPROXY_AUTH_TOKEN: has spaces, line ends or characters outside of ASCII"
        )
    return token or None


def _custom_headers(headers: list[str]) -> tuple[tuple[str, str], ...]:
    """Names and values; the last value of a name counts, in the place of the first."""
    values: dict[str, str] = {}
    for header in headers:
        name, colon, value = (part.strip() for part in header.partition(":"))
        if not colon or not name:
            raise OptionError(f"A colon was expected in custom header: {_one_line(header.strip())}")
        if fault := fault_of_name(name):
            raise OptionError(f"--custom-header: {name!r} {fault}")
        if not is_value(value):
            raise OptionError(f"--custom-header: {value!r} is not a value for a header")
        values[name] = value
    return tuple(values.items())


def _one_line(text: str) -> str:
    return text if text.isprintable() else repr(text)


def _networks(value: str) -> tuple[IPv4Network | IPv6Network, ...]:
    """Networks that are separated by commas; ``none`` is no network at all."""
    if value.strip().lower() == "none":
        return ()
    networks = []
    for item in value.split(","):
        try:
            networks.append(_plain_network(ip_network(item.strip())))
        except ValueError as error:
            raise ValueError(f"is not a list of IP addresses and networks: {error}") from None
    return tuple(networks)


def _plain_network(network: IPv4Network | IPv6Network) -> IPv4Network | IPv6Network:
    """Return a network of IPv4 addresses in IPv6's notation (``::ffff:…``) as one of IPv4."""
    first = getattr(network.network_address, "ipv4_mapped", None)
    if first is None or network.prefixlen < 96:
        return network
    return IPv4Network((first, network.prefixlen - 96))


def _rewritten_protocol(value: str) -> str:
    protocol = value.lower().removesuffix(":")
    if protocol not in ("http", "https"):
        raise ValueError("is neither http nor https")
    return protocol


def _log_level(value: str) -> str:
    if value.lower() not in _LOG_LEVELS:
        raise ValueError("is not one of debug, info, warn, error")
    return _LOG_LEVELS[value.lower()]


def _log_format(value: str) -> str:
    if value.lower() not in ("chp", "json"):
        raise ValueError("is not one of chp, json")
    return value.lower()


def _class_path(value: str) -> str:
    if not _CLASS_PATH.fullmatch(value):
        raise ValueError("is not the path of a Python class, such as package.module.Class")
    return value


def _statsd_prefix(value: str) -> str:
    if not _STATSD_PREFIX.fullmatch(value):
        raise ValueError("has a character that statsd gives a meaning to")
    return value


def _default_workers() -> int:
    return min(usable_cpus(), _MOST_DEFAULT_WORKERS)


def _notices(arguments: CommandLine, parsed: Options) -> Iterator[Notice]:
    """What the operator should see in the log; CHP's lines first, in CHP's words."""
    proxy = parsed.proxy
    if proxy.auto_rewrite:
        yield Notice("info", "AutoRewrite of Location headers enabled.")
    if proxy.change_origin:
        yield Notice("info", "Change Origin of host headers enabled.")
    if proxy.protocol_rewrite:
        yield Notice("info", f"ProtocolRewrite enabled. Rewriting to {proxy.protocol_rewrite}")
    if not parsed.auth_token:
        yield Notice("warn", "REST API is not authenticated.")
        if isinstance(parsed.api, TcpAddress) and not _is_loopback(parsed.api.ip):
            yield Notice(
                "warn",
                f"Everyone who can reach {parsed.api.ip or 'any interface'} port "
                f"{parsed.api.port} can change routes: set CONFIGPROXY_AUTH_TOKEN.",
            )
    if arguments.text("--ip") == "*":
        yield Notice(
            "warn",
            "Interpreting ip='*' as all-interfaces. Preferred usage is 0.0.0.0 for all IPv4 "
            "or '' for all-interfaces.",
        )
    yield from _notices_of_no_effect(arguments, parsed)


def _notices_of_no_effect(arguments: CommandLine, parsed: Options) -> Iterator[Notice]:
    """Options that CHP ignores in silence in this combination."""
    given = arguments.given
    for service, sockets in (("API", "--api"), ("metrics server", "--metrics")):
        ignored = sorted(given & {f"{sockets}-ip", f"{sockets}-port"})
        if ignored and arguments.text(f"{sockets}-socket"):
            yield _no_effect(ignored, f"the {service} listens on {sockets}-socket")
    for prefix, tls in (("--ssl", parsed.tls), ("--api-ssl", parsed.api_tls)):
        own = {f"{prefix}-{name}" for name in ("ca", "request-cert", "reject-unauthorized")}
        ignored = sorted(given & own)
        if ignored and tls is None:
            yield _no_effect(ignored, f"{prefix}-key and {prefix}-cert are not given: no TLS")
        if tls and tls.request_cert and not tls.ca:
            yield Notice(
                "warn",
                f"{prefix}-request-cert without {prefix}-ca: certificates of every authority "
                "that this system trusts are accepted.",
            )
    if "TLS_" in (arguments.text("--ssl-ciphers") or ""):
        yield Notice("warn", "--ssl-ciphers: Python offers all suites of TLS 1.3 or none.")
    if "--ssl-allow-rc4" in given:
        yield _no_effect(["--ssl-allow-rc4"], "OpenSSL 3 has no RC4")
    if arguments.text("--redirect-port") and not parsed.redirect:
        yield _no_effect(["--redirect-port"], "the proxy listens on port 80 or on a socket")
    redirects = arguments.text("--redirect-port") or parsed.proxy.https_port
    if arguments.text("--redirect-to") and not redirects:
        yield _no_effect(["--redirect-to"], "neither --redirect-port nor --redirect-http is given")
    if (
        parsed.proxy.https_port
        and not parsed.proxy.trusted_proxies
        and isinstance(parsed.listen, TcpAddress)
    ):
        yield _no_effect(["--redirect-http"], "--trusted-proxies none: nobody is believed")


def _no_effect(flags: list[str], reason: str) -> Notice:
    return Notice("warn", f"No effect of {', '.join(flags)}: {reason}.")


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
