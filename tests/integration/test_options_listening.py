"""Where the server listens: addresses, ports and UNIX sockets, and what is in the way of that."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from tests.kit.authority import Authority
from tests.kit.option_servers import connects, start_server, with_addresses
from tests.kit.peers import EchoTarget, RawClient, RawTarget, fetch, get
from tests.kit.peers.upgrades import echo, receive, switched, switched_client
from tests.kit.server import OTHER_COMMAND, TOKEN, free_ports, run_to_exit


def has_ipv6() -> bool:
    """Whether this machine has the loopback address of IPv6."""
    with socket.socket(socket.AF_INET6) as probe, suppress(OSError):
        probe.bind(("::1", 0))
        return True
    return False


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here")


def refused(*flags: str) -> str:
    """Run the command, check that it leaves with status 1, and return the one line it says."""
    done = run_to_exit(*with_addresses(flags)[0])
    output = (done.stdout + done.stderr).strip()
    assert done.returncode == 1, output
    assert len(output.splitlines()) == 1, output
    assert "Traceback" not in output
    return output


@needs_ipv6
def test_all_interfaces_are_both_ipv4_and_ipv6() -> None:
    with EchoTarget() as target, start_server("--ip", "*", "--default-target", target.url) as proxy:
        proxy.wait_for_log(r"warn: Interpreting ip='\*' as all-interfaces")
        for host, shown in (("127.0.0.1", "127.0.0.1"), ("::1", "::1")):
            answer = fetch((host, proxy.port), get("/"))
            fields = dict(json.loads(answer.body)["headers"])
            lower = {name.lower(): value for name, value in fields.items()}
            if not OTHER_COMMAND:  # for which an IPv4 client has an IPv6 address here
                assert lower["x-forwarded-for"] == shown


@needs_ipv6
@pytest.mark.ours
def test_an_ipv4_client_has_an_ipv4_address_in_logs_and_for_trust() -> None:
    with (
        EchoTarget() as target,
        start_server(
            "--ip", "::", "--trusted-proxies", "127.0.0.1", "--default-target", target.url
        ) as proxy,
    ):
        answer = fetch(("127.0.0.1", proxy.port), get("/", "X-Forwarded-For: 192.0.2.1"))
        fields = {name.lower(): value for name, value in json.loads(answer.body)["headers"]}
        assert fields["x-forwarded-for"] == "192.0.2.1,127.0.0.1"
        assert fetch(("127.0.0.1", proxy.port), "nonsense\r\n\r\n").status == 400
        proxy.wait_for_log(r"400 refused a request from 127\.0\.0\.1:")


@needs_ipv6
def test_an_empty_ip_is_all_interfaces_and_an_address_is_itself_alone() -> None:
    with start_server("--ip", "", "--api-ip", "::1", token=None) as proxy:
        assert fetch(("127.0.0.1", proxy.port), get("/_chp_healthz")).status == 200
        assert fetch(("::1", proxy.port), get("/_chp_healthz")).status == 200
        assert fetch(("::1", proxy.api_port), get("/api/routes", host="[::1]")).body == b"{}"
        assert not connects("127.0.0.1", proxy.api_port)
        assert "Interpreting ip" not in proxy.log()
        assert "Everyone who can reach" not in proxy.log()


@needs_ipv6
def test_the_api_listens_on_all_addresses_of_localhost_and_an_empty_ip_is_all() -> None:
    names = {info[4][0] for info in socket.getaddrinfo("localhost", 0, type=socket.SOCK_STREAM)}
    with start_server("--ip", "::1", "--api-ip", "localhost", token=None) as proxy:
        proxy.wait_for_log(r"Proxy API at http://\S*localhost\S*/api/routes")
        answering = {str(name) for name in names if connects(str(name), proxy.api_port)}
        assert answering
        assert not connects("127.0.0.1", proxy.port)
        assert fetch(("::1", proxy.port), get("/_chp_healthz")).status == 200
        proxy.wait_for_log("warn: REST API is not authenticated")


@pytest.mark.ours
def test_an_open_api_on_all_interfaces_is_a_warning_of_its_own() -> None:
    with start_server("--api-ip", "", token=None) as proxy:
        proxy.wait_for_log(r"warn: Everyone who can reach any interface port \d+ can change routes")


@pytest.fixture(scope="module")
def stale(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Paths of sockets that a dead server has left, by the option they are for."""
    folder = tmp_path_factory.mktemp("sockets")
    paths = {flag: str(folder / flag) for flag in ("--socket", "--api-socket", "--metrics-socket")}
    for path in paths.values():
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(path)
            dead.listen()
    return paths


@pytest.mark.ours
def test_unix_sockets_serve_all_that_ports_do_and_replace_those_of_the_dead(
    stale: dict[str, str],
) -> None:
    flags = [word for pair in stale.items() for word in pair]
    public, api, metrics = stale.values()
    with ExitStack() as stack:
        target = stack.enter_context(RawTarget(switched(echo)))
        default = stack.enter_context(EchoTarget())
        proxy = stack.enter_context(
            start_server(*flags, "--default-target", default.url, stop=signal.SIGTERM)
        )
        proxy.wait_for_log(f"Proxying http://{public} to {default.url}$")
        proxy.wait_for_log(f"Proxy API at http://{api}/api/routes$")
        proxy.wait_for_log(f"Serve metrics at http://{metrics}/metrics$")

        names = [name.lower() for name, _ in json.loads(fetch(public, get("/x")).body)["headers"]]
        assert "x-forwarded-for" not in names, "a UNIX socket has no address"
        assert {"x-forwarded-proto", "x-forwarded-host", "host"} <= set(names)

        body = json.dumps({"target": target.url})
        head = f"POST /api/routes/ws HTTP/1.1\r\nHost: a\r\nAuthorization: token {TOKEN}\r\n"
        assert fetch(api, f"{head}Content-Length: {len(body)}\r\n\r\n{body}").status == 201
        with RawClient(public) as client:
            switched_client(client, "/ws").send("hello")
            assert receive(client, 5) == b"hello"
        assert b"requests_ws 1" in fetch(metrics, get("/metrics")).body

        for path in (public, api, metrics):
            assert "in use" in refused("--metrics-socket", path)
        proxy.signal(signal.SIGTERM)
        assert proxy.wait() == 0
    assert [path for path in stale.values() if os.path.exists(path)] == []


@pytest.fixture
def living(tmp_path: Path) -> Iterator[str]:
    """The path of a socket that somebody else listens on."""
    path = str(tmp_path / "living")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        yield path


@pytest.mark.ours
@pytest.mark.parametrize("flag", ["--socket", "--api-socket", "--metrics-socket"])
def test_a_socket_of_a_living_server_is_left_alone(living: str, flag: str) -> None:
    assert refused(flag, living).startswith(f"error: {flag}: cannot listen on {living}: ")
    assert os.path.exists(living)
    RawClient(living).close()


@pytest.mark.ours
def test_a_file_in_the_way_of_a_socket_is_never_removed(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    line = refused("--socket", str(tmp_path / "file"))
    assert line.startswith(f"error: --socket: cannot listen on {tmp_path}/file: ")
    assert (tmp_path / "file").read_text() == "precious"
    line = refused("--socket", str(tmp_path / "no" / "folder"))
    assert line.startswith("error: --socket: cannot listen on ")


@pytest.mark.ours
def test_a_start_that_fails_leaves_no_sockets_behind(tmp_path: Path, living: str) -> None:
    public, api = str(tmp_path / "public"), str(tmp_path / "api")
    line = refused("--socket", public, "--api-socket", api, "--metrics-socket", living)
    assert line.startswith("error: --metrics-socket: ")
    assert sorted(os.listdir(tmp_path)) == ["living"]


@pytest.mark.ours
@pytest.mark.parametrize("flag", ["--metrics-port", "--redirect-port"])
def test_ports_in_use_are_named_with_their_option(flag: str, tls_flags: tuple[str, ...]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        line = refused(*tls_flags, flag, port)
    assert line.startswith(f"error: {flag}: cannot listen on ")
    assert f":{port}: " in line


@pytest.fixture(scope="module")
def tls_flags(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Flags that turn TLS on, as ``--redirect-port`` needs it."""
    key, cert = Authority(tmp_path_factory.mktemp("tls") / "ca").issue("localhost")
    return "--ssl-key", key, "--ssl-cert", cert


@pytest.mark.ours
@pytest.mark.parametrize(
    ("flag", "value"),
    [("--ip", "192.0.2.1"), ("--api-ip", "192.0.2.1"), ("--metrics-ip", "name.invalid")],
)
def test_an_address_that_is_not_ours_is_named_with_its_option(flag: str, value: str) -> None:
    port = str(free_ports(1)[0])
    line = refused(flag, value, "--metrics-port", port)
    assert line.startswith(f"error: {flag}: cannot listen on {value}:")


@pytest.mark.parametrize("other", [("--port", "8000"), ("--ip", "127.0.0.1")])
def test_a_socket_excludes_an_address(other: tuple[str, str]) -> None:
    done = run_to_exit("--socket", "/nowhere/x", *other)
    assert done.returncode == 1
    assert "option '--socket" in done.stderr
    assert f"cannot be used with option '{other[0]}" in done.stderr


@pytest.mark.ours
def test_the_socket_of_the_api_wins_over_its_address(tmp_path: Path) -> None:
    path = str(tmp_path / "api")
    with start_server("--api-socket", path, "--api-port", "1", "--api-ip", "127.0.0.1") as proxy:
        proxy.wait_for_log(
            "warn: No effect of --api-ip, --api-port: the API listens on --api-socket"
        )
        assert fetch(path, get("/api/routes")).status == 403
