"""Servers whose addresses and sockets are what a test is about, and TLS towards them."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from tests.kit import server
from tests.kit.api_client import ApiClient
from tests.kit.authority import HOST, Authority
from tests.kit.peers import RawClient, Response, get, wait_until
from tests.kit.server import (
    OTHER_COMMAND,
    REPOSITORY,
    START_TIMEOUT,
    STOP_TIMEOUT,
    TOKEN,
    Proxy,
    command_line,
    free_ports,
)


@contextmanager
def start_server(
    *flags: str,
    env: Mapping[str, str] | None = None,
    token: str | None = TOKEN,
    stop: signal.Signals = signal.SIGINT,
    ready_line: str = "Proxy API at",
) -> Iterator[Proxy]:
    """Run a server with these flags until the block ends; it listens when the block begins.

    Unlike ``server.start_proxy`` this may be one that speaks TLS, or listens on UNIX sockets.
    Ports on 127.0.0.1 and one worker are added where the flags don't speak of them. ``stop``
    is what ends it. ``ready_line`` is the line of the log that says that it listens; where the
    log is silent it is empty, and the ports tell.
    """
    arguments, ports = with_addresses(flags)
    proxy = Proxy(_spawn(arguments, env or {}, token), *ports, token)
    server.running.append(proxy)
    try:
        wait_until(
            lambda: _listens(proxy, ready_line),
            START_TIMEOUT,
            lambda: f"it listens:\n{proxy.log()}",
        )
        yield proxy
        proxy.api.close()
        if proxy.process.poll() is None:
            proxy.signal(stop)
            proxy.wait(STOP_TIMEOUT)
        proxy.assert_nothing_left()
    finally:
        server.running.remove(proxy)
        proxy.kill()


def with_addresses(flags: tuple[str, ...]) -> tuple[list[str], tuple[int, int]]:
    """Return the flags, completed, and the ports of the proxy and of the API (0: none)."""
    arguments = list(flags)
    port, api_port = free_ports(2)
    added = [("--socket", "--ip", "127.0.0.1"), ("--socket", "--port", str(port))]
    added += [("--api-socket", "--api-ip", "127.0.0.1")]
    added += [("--api-socket", "--api-port", str(api_port))]
    for unless, flag, value in added:
        if unless not in flags and flag not in flags:
            arguments += [flag, value]
    if "--workers" not in flags and not OTHER_COMMAND:
        arguments += ["--workers", "1"]
    return arguments, (_port(arguments, "--port"), _port(arguments, "--api-port"))


def _port(arguments: list[str], flag: str) -> int:
    return int(arguments[arguments.index(flag) + 1]) if flag in arguments else 0


def _spawn(
    arguments: list[str], env: Mapping[str, str], token: str | None
) -> subprocess.Popen[str]:
    line, _ = command_line("cli", arguments)
    environment = {key: os.environ[key] for key in os.environ if not key.startswith("CONFIGPROXY")}
    environment.update(env, PYTHONUNBUFFERED="1")
    if token is not None:
        environment["CONFIGPROXY_AUTH_TOKEN"] = token
    return subprocess.Popen(
        line,
        cwd=REPOSITORY,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    )


def _listens(proxy: Proxy, ready_line: str) -> bool:
    if proxy.process.poll() is not None:
        raise AssertionError(f"left with {proxy.wait()}:\n{proxy.log()}")
    if ready_line not in proxy.log():
        return False
    # The other command says so before it has looked its addresses up.
    asked = OTHER_COMMAND or not ready_line
    ports = [port for port in (proxy.port, proxy.api_port) if port and asked]
    return all(connects("127.0.0.1", port) or connects("::1", port) for port in ports)


def connects(host: str, port: int) -> bool:
    """Whether somebody listens on a TCP port."""
    try:
        socket.create_connection((host, port), timeout=2).close()
    except OSError:
        return False
    return True


# -- TLS


def trusting(authority: Authority, user: Authority | None = None, **cert: object) -> ssl.SSLContext:
    """Return a client that trusts ``authority``, with a certificate from ``user`` if given."""
    context = ssl.create_default_context(cafile=authority.ca)
    if user is not None:
        key, chain = user.issue("user@example.org", **cert)
        context.load_cert_chain(chain, key)
    return context


def ask(
    address: tuple[str, int] | str, context: ssl.SSLContext, path: str = "/_chp_healthz"
) -> Response:
    """GET a path over TLS on a connection of its own."""
    with RawClient(address, tls=context, server_name=HOST) as client:
        return client.request(get(path))


def handshake_error(address: tuple[str, int], context: ssl.SSLContext) -> OSError | None:
    """Shake hands and return how that fails for the client, None if it does not.

    With TLS 1.3 a client learns only after its part what the server makes of its certificate,
    so it listens for a moment; a server that is content says nothing.
    """
    try:
        with (
            socket.create_connection(address, timeout=10) as plain,
            context.wrap_socket(plain, server_hostname=HOST) as stream,
        ):
            stream.settimeout(0.5)
            stream.recv(1)
    except TimeoutError:
        return None
    except OSError as error:
        return error
    return ConnectionResetError("closed after the handshake")


def tls_api(proxy: Proxy, authority: Authority, *pair: str) -> ApiClient:
    """Return a client of an API that speaks TLS; ``pair`` are paths of certificate and key."""
    client = ApiClient(f"https://{HOST}:{proxy.api_port}", TOKEN)
    client.verify = authority.ca
    if pair:
        client.cert = (pair[0], pair[1])
    return client
