"""From the values of a command line to validated `Options`. No I/O, but a count of the CPUs."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from ipaddress import ip_address

from chp_gevent.config.acme_options import AcmeOptions, default_storage
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
from chp_gevent.config.table import (
    acme,
    api,
    client_tls,
    general,
    listening,
    metrics,
    processes,
    requests,
    targets,
    timeouts,
)
from chp_gevent.config.validate_storage import shared_store
from chp_gevent.http.https_location import HTTPS_PORT
from chp_gevent.http.limits import LimitOptions
from chp_gevent.routing.custom_headers import fault_of_name, is_value
from chp_gevent.runtime.cpus import usable_cpus

_DEFAULT_API_PORT = 8001  # CHP's, when clients connect to a UNIX socket
_MOST_DEFAULT_WORKERS = 8  # each worker holds a copy of the table: more are for who asks

_AUTH_TOKEN = re.compile(r"[\x21-\x7e]+")


def options(arguments: CommandLine, environ: Mapping[str, str]) -> Options:
    """Validate a command line.

    ``environ`` holds the secrets: ``CONFIGPROXY_AUTH_TOKEN``,
    ``CONFIGPROXY_SSL_KEY_PASSPHRASE`` and ``CONFIGPROXY_API_SSL_KEY_PASSPHRASE``.

    Raises OptionError for the first thing that is wrong.
    """
    listen = _listen_address(arguments)
    acme_options = _acme(arguments, environ)
    tls = _server_tls(arguments, environ, "--ssl", acme_options)
    parsed = Options(
        listen=listen,
        api=_api_address(arguments, listen),
        metrics=_metrics_address(arguments),
        redirect=_redirect(arguments, listen, tls, acme_options),
        tls=tls,
        acme=acme_options,
        api_tls=_server_tls(arguments, environ, "--api-ssl"),
        proxy=_proxy(arguments),
        default_target=arguments.get(targets.DEFAULT_TARGET),
        auth_token=_auth_token(environ),
        statsd=_statsd(arguments),
        storage_backend=arguments.get(api.STORAGE_BACKEND),
        shared_store=shared_store(arguments, environ),
        pid_file=arguments.get(general.PID_FILE),
        log_level=arguments.get(general.LOG_LEVEL),
        log_format=arguments.get(general.LOG_FORMAT),
        access_log=arguments.get(general.ACCESS_LOG),
        workers=arguments.get(processes.WORKERS) or _default_workers(),
        drain_timeout=arguments.get(processes.DRAIN_TIMEOUT),
        reload_drain_timeout=arguments.get(processes.RELOAD_DRAIN_TIMEOUT),
        max_draining=arguments.get(processes.MAX_DRAINING),
        worker_connections=arguments.get(processes.WORKER_CONNECTIONS),
        backlog=arguments.get(processes.BACKLOG),
        max_requests=arguments.get(processes.MAX_REQUESTS),
    )
    return replace(parsed, notices=tuple(_notices(arguments, parsed)))


def _listen_address(arguments: CommandLine) -> Address:
    for flag in ("--port", "--ip"):
        if {"--socket", flag} <= arguments.given:
            raise OptionError(f"option '--socket' cannot be used with option '{flag}'")
    path = arguments.get(listening.SOCKET)
    if path:
        return UnixAddress(path)
    ip = "" if arguments.text(listening.IP.flag) == "*" else arguments.get(listening.IP) or ""
    return TcpAddress(ip, arguments.get(listening.PORT))


def _api_address(arguments: CommandLine, listen: Address) -> Address:
    path = arguments.get(api.API_SOCKET)
    if path:
        return UnixAddress(path)
    port = arguments.get(api.API_PORT)
    if port is None:
        port = _port_after(listen)
    return TcpAddress(arguments.get(api.API_IP), port)


def _port_after(listen: Address) -> int:
    if isinstance(listen, UnixAddress):
        return _DEFAULT_API_PORT
    if listen.port == 65535:
        raise OptionError("--api-port: must be given, as there is no port after --port 65535")
    return listen.port + 1 if listen.port else 0


def _metrics_address(arguments: CommandLine) -> Address | None:
    path = arguments.get(metrics.METRICS_SOCKET)
    if path:
        return UnixAddress(path)
    port = arguments.get(metrics.METRICS_PORT)
    ip = arguments.get(metrics.METRICS_IP) or ""
    return None if port is None else TcpAddress(ip, port)


def _server_tls(
    arguments: CommandLine,
    environ: Mapping[str, str],
    prefix: str,
    acme_options: AcmeOptions | None = None,
) -> ServerTlsOptions | None:
    """As CHP: a key or a certificate turns TLS on; version and suites are those of --ssl-*."""
    key, cert = arguments.text(f"{prefix}-key"), arguments.text(f"{prefix}-cert")
    if acme_options is not None:
        key, cert = acme_options.key, acme_options.certificate
    if not (key or cert):
        return None
    return ServerTlsOptions(
        key=key,
        cert=cert,
        ca=arguments.text(f"{prefix}-ca"),
        request_cert=arguments.switch(f"{prefix}-request-cert"),
        reject_unauthorized=arguments.switch(f"{prefix}-reject-unauthorized"),
        protocol=arguments.get(client_tls.SSL_PROTOCOL),
        ciphers=arguments.get(client_tls.SSL_CIPHERS),
        dhparam=arguments.get(client_tls.SSL_DHPARAM),
        passphrase=environ.get(passphrase_variable(prefix)) or None,
        flag_prefix=prefix,
        comes_later=acme_options is not None,
    )


def _acme(arguments: CommandLine, environ: Mapping[str, str]) -> AcmeOptions | None:
    domains = tuple(dict.fromkeys(arguments.get(acme.ACME_DOMAIN)))
    given = sorted(flag for flag in arguments.given if flag.startswith("--acme-"))
    if not domains:
        if given:
            raise OptionError(f"{given[0]}: is of no use without --acme-domain")
        return None
    for flag in ("--ssl-key", "--ssl-cert"):
        if arguments.text(flag):
            raise OptionError(
                f"option '--acme-domain' cannot be used with option '{flag}': the certificate "
                "comes from the CA"
            )
    if not arguments.get(acme.ACME_AGREE_TOS):
        raise OptionError(
            "--acme-domain: needs --acme-agree-tos, which says that you agree to the CA's terms of "
            "service (Let's Encrypt's: https://letsencrypt.org/repository/)"
        )
    storage = arguments.get(acme.ACME_STORAGE)
    return AcmeOptions(
        domains=domains,
        directory=arguments.get(acme.ACME_DIRECTORY),
        storage=os.path.abspath(storage or default_storage(environ, is_root=os.geteuid() == 0)),
        email=arguments.get(acme.ACME_EMAIL),
        ca=arguments.get(acme.ACME_CA),
    )


def _redirect(
    arguments: CommandLine,
    listen: Address,
    tls: ServerTlsOptions | None,
    acme_options: AcmeOptions | None,
) -> RedirectOptions | None:
    port = arguments.get(listening.REDIRECT_PORT)
    if acme_options is not None:
        _check_redirect_for_acme(listen, port)
    to_port = arguments.get(listening.REDIRECT_TO)
    if port is None:
        return None
    if tls is None:
        raise OptionError("HTTPS redirection specified but certificates not provided.")
    # as CHP, which has no redirections to port 80 or to a socket
    if isinstance(listen, UnixAddress) or listen.port == 80:
        return None
    return RedirectOptions(TcpAddress("", port), to_port or listen.port)


def _check_redirect_for_acme(listen: Address, port: int | None) -> None:
    """Check that there will be a listener for the CA's requests (HTTP-01; RFC 8555, 8.3)."""
    if port is None:
        raise OptionError(
            "--acme-domain: needs --redirect-port, where the CA's requests to port 80 of the "
            "domain arrive: 80, or the port that 80 is forwarded to"
        )
    if isinstance(listen, UnixAddress) or listen.port == 80:
        where = "a UNIX socket" if isinstance(listen, UnixAddress) else "port 80"
        raise OptionError(
            f"--acme-domain: the proxy listens on {where}, and HTTPS does not belong there: give "
            "another --port, such as 443"
        )


def _proxy(arguments: CommandLine) -> ProxyOptions:
    trusted_proxies = arguments.get(requests.TRUSTED_PROXIES)
    proxy_protocol = arguments.get(requests.PROXY_PROTOCOL)
    if proxy_protocol and trusted_proxies is None:
        raise OptionError("--proxy-protocol: needs --trusted-proxies, who is to send its headers")
    return ProxyOptions(
        x_forward=not arguments.get(requests.NO_X_FORWARD),
        prepend_path=not arguments.get(requests.NO_PREPEND_PATH),
        include_prefix=not arguments.get(requests.NO_INCLUDE_PREFIX),
        auto_rewrite=arguments.get(requests.AUTO_REWRITE),
        change_origin=arguments.get(requests.CHANGE_ORIGIN),
        protocol_rewrite=arguments.get(requests.PROTOCOL_REWRITE),
        custom_headers=_custom_headers(arguments.get(requests.CUSTOM_HEADER)),
        host_routing=arguments.get(requests.HOST_ROUTING),
        error_target=arguments.get(targets.ERROR_TARGET),
        error_path=arguments.get(targets.ERROR_PATH),
        timeout=arguments.get(timeouts.TIMEOUT),
        proxy_timeout=arguments.get(timeouts.PROXY_TIMEOUT),
        connect_timeout=arguments.get(processes.CONNECT_TIMEOUT),
        keep_alive_timeout=(
            arguments.get(timeouts.KEEP_ALIVE_TIMEOUT) or ProxyOptions.keep_alive_timeout
        ),
        client_tls=ClientTlsOptions(
            key=arguments.get(targets.CLIENT_SSL_KEY),
            cert=arguments.get(targets.CLIENT_SSL_CERT),
            ca=arguments.get(targets.CLIENT_SSL_CA),
            verify=not arguments.get(targets.INSECURE),
        ),
        limits=LimitOptions(
            max_request_line=arguments.get(processes.MAX_REQUEST_LINE),
            max_header_size=arguments.get(processes.MAX_HEADER_SIZE),
            max_headers=arguments.get(processes.MAX_HEADERS),
            header_timeout=arguments.get(processes.HEADER_TIMEOUT),
            body_timeout=arguments.get(processes.BODY_TIMEOUT) or None,
        ),
        trusted_proxies=trusted_proxies,
        proxy_protocol=proxy_protocol,
        https_port=_https_port(arguments, trusted=trusted_proxies is not None),
    )


def _https_port(arguments: CommandLine, *, trusted: bool) -> int | None:
    if not arguments.get(listening.REDIRECT_HTTP):
        return None
    if not trusted:
        raise OptionError(
            "--redirect-http: needs --trusted-proxies, which says whose X-Forwarded-Proto counts"
        )
    return arguments.get(listening.REDIRECT_TO) or HTTPS_PORT


def _statsd(arguments: CommandLine) -> StatsdOptions | None:
    host = arguments.get(metrics.STATSD_HOST)
    port = arguments.get(metrics.STATSD_PORT)
    prefix = arguments.get(metrics.STATSD_PREFIX)
    return StatsdOptions(host, port, prefix) if host else None


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
    if arguments.text(listening.IP.flag) == "*":
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
    if "TLS_" in (arguments.get(client_tls.SSL_CIPHERS) or ""):
        yield Notice("warn", "--ssl-ciphers: Python offers all suites of TLS 1.3 or none.")
    if "--ssl-allow-rc4" in given:
        yield _no_effect(["--ssl-allow-rc4"], "OpenSSL 3 has no RC4")
    if arguments.get(listening.REDIRECT_PORT) and not parsed.redirect:
        yield _no_effect(["--redirect-port"], "the proxy listens on port 80 or on a socket")
    redirects = arguments.get(listening.REDIRECT_PORT) or parsed.proxy.https_port
    if arguments.get(listening.REDIRECT_TO) and not redirects:
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
