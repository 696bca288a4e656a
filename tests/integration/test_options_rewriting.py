"""What options change in requests and answers on their way through."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.kit.option_servers import start_server
from tests.kit.peers import EchoTarget, RawClient, RawTarget, fetch, get, response
from tests.kit.peers.messages import Request
from tests.kit.peers.upgrades import SWITCHING, echo, receive, switched, switched_client, upgrade
from tests.kit.server import OTHER_COMMAND, Proxy, run_to_exit


@pytest.fixture(scope="module")
def target() -> Iterator[RawTarget]:
    """A target whose requests are looked at."""
    with RawTarget() as target:
        yield target


def forwarded(proxy: Proxy, target: RawTarget, text: str) -> Request:
    """Send a request and return what the target got."""
    target.script()
    with proxy.client() as client:
        assert client.request(text).status == 200
    return target.request


@pytest.fixture(scope="module")
def plain(target: RawTarget) -> Iterator[Proxy]:
    """A server with the default of every option here."""
    with start_server() as proxy:
        yield proxy


@pytest.mark.parametrize(
    ("path_of_target", "asked", "received"),
    [
        ("", "/r/x?y=1", "/r/x?y=1"),
        ("/", "/r/x", "/r/x"),
        ("/base", "/r/x", "/base/r/x"),
        ("/base/", "/r/x", "/base/r/x"),
        ("/base//", "/r/x", "/base//r/x"),
        ("/b/a/s/e", "/r", "/b/a/s/e/r"),
        ("//double", "/r//x", "//double/r//x"),
        ("/base?a=1", "/r/x", "/base/r/x?a=1"),
        ("/base?a=1", "/r/x?b=2", "/base/r/x?a=1&b=2"),
        ("?a=1", "/r?b=2", "/r?a=1&b=2"),
        ("/with%20space", "/r/%41%2F", "/with%20space/r/%41%2F"),
        ("/base", "/r", "/base/r"),
    ],
)
def test_the_path_of_a_target_goes_before_that_of_the_request(
    plain: Proxy, target: RawTarget, path_of_target: str, asked: str, received: str
) -> None:
    plain.api.add("/r", target.url + path_of_target)
    assert forwarded(plain, target, get(asked)).target == received


def test_no_prepend_path_and_no_include_prefix(target: RawTarget) -> None:
    """Both together, so that what the target gets is what is left of the request's path."""
    with start_server("--no-prepend-path", "--no-include-prefix") as proxy:
        proxy.api.add("/a/b", target.url + "/base?q=1")
        proxy.api.add("/", target.url + "/root")
        for asked, received in (
            ("/a/b/c/d?x=1", "/c/d?x=1"),
            ("/a/b/", "/"),
            ("/a/b", "/"),
            ("/a/b?x", "/?x"),
            ("/a/b//c", "//c"),
        ):
            request = forwarded(proxy, target, get(asked))
            assert (asked, request.target) == (asked, received)
        assert forwarded(proxy, target, get("/other/x")).target == "/other/x"


def test_no_include_prefix_with_a_path_prepended(target: RawTarget) -> None:
    with start_server("--no-include-prefix") as proxy:
        proxy.api.add("/a/b", target.url + "/base")
        assert forwarded(proxy, target, get("/a/b/c?x")).target == "/base/c?x"
        with RawTarget(switched(echo)) as websocket:
            proxy.api.add("/ws", websocket.url + "/base")
            with proxy.client() as client:
                switched_client(client, "/ws/c?x").send("hello")
                assert receive(client, 5) == b"hello"
            assert websocket.request.target == "/base/c?x"


def test_no_x_forward_change_origin_and_custom_headers(target: RawTarget) -> None:
    flags = ["--no-x-forward", "--change-origin", "--custom-header", "X-One:1"]
    flags += ["--custom-header=  X-Two :  b: c ", "--custom-header", "X-One: 2"]
    flags += ["--custom-header", "User-Agent: of the proxy"]
    with start_server(*flags) as proxy:
        proxy.wait_for_log(r"info: Change Origin of host headers enabled\.")
        proxy.api.add("/r", target.url)
        lines = ["User-Agent: of the client", "x-two: of the client"]
        request = forwarded(proxy, target, get("/r", *lines, host="proxy.test:8000"))
        assert [name for name in request.names() if name.startswith("x-forwarded")] == []
        assert request.all("host") == [f"127.0.0.1:{target.port}"]
        assert request.all("x-one") == ["2"], "the last one of a name counts"
        assert request.all("x-two") == ["b: c"]
        assert request.all("user-agent") == ["of the proxy"]
        sent = forwarded(proxy, target, get("/r", "X-Forwarded-For: 1.2.3.4"))
        assert sent.all("x-forwarded-for") == ["1.2.3.4"], "not ours to remove"

        with RawTarget(switched(echo)) as websocket:
            proxy.api.add("/ws", websocket.url)
            with proxy.client() as client:
                switched_client(client, "/ws").send("hello")
                assert receive(client, 5) == b"hello"
            shaken = websocket.request
        assert shaken.all("x-one") == ["2"]
        assert shaken.all("host") == [f"127.0.0.1:{websocket.port}"]
        assert [name for name in shaken.names() if name.startswith("x-forwarded")] == []


def test_custom_headers_without_a_colon_are_refused() -> None:
    for header in ("no colon", ": no name"):
        done = run_to_exit("--custom-header", header)
        assert done.returncode == 1
        assert done.stderr.strip().endswith(f"olon was expected in custom header: {header}")


LOCATIONS = [
    # status, location, with --auto-rewrite, with --protocol-rewrite https
    (301, "http://TARGET/x?y#z", "http://HOST/x?y#z", "https://TARGET/x?y#z"),
    (201, "http://TARGET/x", "http://HOST/x", "https://TARGET/x"),
    (302, "http://TARGET/", "http://HOST/", "https://TARGET/"),
    (307, "http://TARGET/x", "http://HOST/x", "https://TARGET/x"),
    (308, "http://TARGET/%7Ex//y", "http://HOST/%7Ex//y", "https://TARGET/%7Ex//y"),
    (300, "http://TARGET/x", None, None),
    (200, "http://TARGET/x", None, None),
    (404, "http://TARGET/x", None, None),
    (302, "/relative", None, None),
    (302, "relative?x", None, None),
    (302, "http://elsewhere.test/x", None, None),
    (302, "http://127.0.0.1/other-port", None, None),
    (302, "", None, None),
]
if not OTHER_COMMAND:  # which forgets it
    LOCATIONS.append((303, "http://TARGET/x", "http://HOST/x", "https://TARGET/x"))


@pytest.mark.parametrize("how", ["auto", "protocol", "both"])
def test_locations_on_the_target_are_rewritten(target: RawTarget, how: str) -> None:
    flags = [] if how == "protocol" else ["--auto-rewrite"]
    flags += [] if how == "auto" else ["--protocol-rewrite", "https"]
    with start_server(*flags) as proxy:
        if how != "protocol":
            proxy.wait_for_log(r"info: AutoRewrite of Location headers enabled\.")
        if how != "auto":
            proxy.wait_for_log(r"info: ProtocolRewrite enabled\. Rewriting to https")
        proxy.api.add("/", target.url)
        origin, host = f"127.0.0.1:{target.port}", "proxy.test:8443"
        for status, location, auto, protocol in LOCATIONS:
            rewritten = {"auto": auto, "protocol": protocol, "both": auto}[how]
            if how == "both" and auto:
                rewritten = auto.replace("http:", "https:")
            expected = location if rewritten is None else rewritten
            fields = [("Location", location.replace("TARGET", origin)), ("X-Other", "http://x")]
            target.script(response(status=f"{status} X", headers=fields))
            with proxy.client() as client:
                answer = client.request(get("/", host=host))
            wanted = expected.replace("TARGET", origin).replace("HOST", host)
            assert (status, answer.all("location")) == (status, [wanted])
            assert answer.get("x-other") == "http://x"


def test_locations_stay_as_they_are_without_the_options(plain: Proxy, target: RawTarget) -> None:
    plain.api.add("/r", target.url)
    for status in (201, 301, 302, 307, 308):
        target.script(response(status=f"{status} X", headers=[("Location", f"{target.url}/x")]))
        assert plain.get("/r").get("location") == f"{target.url}/x"


@pytest.mark.parametrize("scheme", ["http+unix", "unix+http"])
@pytest.mark.parametrize("base", ["", "/base?q=1"])
def test_targets_on_unix_sockets(plain: Proxy, tmp_path: Path, scheme: str, base: str) -> None:
    path = str(tmp_path / "Target.sock")
    with RawTarget(unix_path=path) as target:
        url = target.url.replace("http+unix", scheme) + base
        plain.api.add("/unix", url)
        for _ in range(2):
            assert plain.get("/unix/x?y").status == 200
        expected = "/base/unix/x?q=1&y" if base else "/unix/x?y"
        assert {request.target for request in target.requests} == {expected}
        assert target.requests[0].get("host") == "proxy.test"
        target.script(switched(echo, answer=SWITCHING))
        with plain.client() as client:
            client.send(upgrade("/unix/ws"))
            assert client.read_head().status == 101
            client.send("hello")
            assert receive(client, 5) == b"hello"
    assert plain.get("/unix/x").status == 503, "nobody listens there now"


def test_targets_with_an_ipv6_address(plain: Proxy) -> None:
    try:
        target = EchoTarget(host="::1")
    except OSError:
        pytest.skip("no IPv6 here")
    with target:
        plain.api.add("/six", target.url + "/base")
        with plain.client() as client:
            for _ in range(2):
                answer = json.loads(client.request(get("/six/x")).body)
                assert answer["target"] == "/base/six/x"


def test_change_origin_towards_ipv6_and_unix_targets(tmp_path: Path) -> None:
    with ExitStack() as stack:
        unix = stack.enter_context(RawTarget(unix_path=str(tmp_path / "t")))
        proxy = stack.enter_context(start_server("--change-origin"))
        proxy.api.add("/unix", unix.url)
        assert proxy.get("/unix").status == 200
        if not OTHER_COMMAND:  # which sends the percent-encoded path
            assert unix.request.all("host") == ["localhost"]
        try:
            six = stack.enter_context(RawTarget(host="::1"))
        except OSError:
            return
        proxy.api.add("/six", six.url)
        assert proxy.get("/six").status == 200
        assert six.request.all("host") == [f"[::1]:{six.port}"]


def test_host_routing_takes_the_host_as_first_segment() -> None:
    with ExitStack() as stack:
        names = ["/", "/one.test", "/one.test/deep", "/user"]
        targets = [stack.enter_context(EchoTarget(name)) for name in names]
        flags = ["--host-routing", "--default-target", targets[0].url]
        proxy = stack.enter_context(start_server(*flags))
        for name, target in zip(names[1:], targets[1:], strict=True):
            proxy.api.add(name, target.url)
        assert proxy.api.routes()["/one.test/deep"]["host"] == "one.test"

        def leads_to(host: str, path: str) -> tuple[str, str]:
            answer = json.loads(fetch(proxy.address, get(path, host=host)).body)
            return answer["name"], answer["target"]

        assert leads_to("one.test", "/x?y") == ("/one.test", "/x?y")
        assert leads_to("one.test:8000", "/") == ("/one.test", "/")
        assert leads_to("one.test", "/deep/x") == ("/one.test/deep", "/deep/x")
        assert leads_to("one.test", "/deeper") == ("/one.test", "/deeper")
        assert leads_to("two.test", "/user") == ("/", "/user")
        assert leads_to("sub.one.test", "/deep") == ("/", "/deep")
        if not OTHER_COMMAND:  # which compares with the case that was sent
            assert leads_to("One.TEST:80", "/x") == ("/one.test", "/x")
            assert leads_to("one.test.", "/x") == ("/one.test", "/x")
            assert leads_to("one.test.:80", "/deep") == ("/one.test/deep", "/deep")
            assert leads_to("one.test..", "/x") == ("/", "/x")
            proxy.api.add("/Three.Test./x", targets[1].url)
            assert leads_to("three.test", "/x/y") == ("/one.test", "/x/y")
        assert fetch(proxy.address, get("/_chp_healthz", host="one.test")).status == 200

        with RawTarget(switched(echo)) as websocket, proxy.client() as client:
            proxy.api.add("/proxy.test", websocket.url)
            switched_client(client, "/ws").send("hello")
            assert receive(client, 5) == b"hello"
            assert websocket.request.target == "/ws"
        with RawClient(proxy.address) as client:
            assert client.request("GET /x HTTP/1.0\r\n\r\n").status in (200, 404), "no host at all"


@pytest.mark.ours
def test_host_routing_without_the_prefix_keeps_what_is_not_the_host() -> None:
    with EchoTarget() as target, start_server("--host-routing", "--no-include-prefix") as proxy:
        proxy.api.add("/one.test/deep", target.url)
        answer = fetch(proxy.address, get("/deep/x?y", host="one.test:80"))
        assert json.loads(answer.body)["target"] == "/x?y"


@pytest.mark.ours
def test_a_hub_behind_tls_termination_is_told_https_once() -> None:
    """As nginx sends it: without a port, and its own address in no field."""
    lines = ["X-Forwarded-For: 192.0.2.1", "X-Forwarded-Proto: https"]
    with (
        RawTarget() as hub,
        start_server("--trusted-proxies", "127.0.0.1", "--default-target", hub.url) as proxy,
    ):
        request = forwarded(proxy, hub, get("/hub/", *lines, host="hub.example"))
        assert [
            request.all(f"x-forwarded-{name}") for name in ("for", "port", "proto", "host")
        ] == [
            ["192.0.2.1,127.0.0.1"],
            ["443"],
            ["https"],
            ["hub.example"],
        ]
        hub.script(switched(echo))
        with proxy.client() as client:
            switched_client(client, "/ws", *lines)
        assert hub.request.all("x-forwarded-proto") == ["https"]


@pytest.mark.ours
def test_trusted_proxies_say_whose_x_forwarded_fields_are_kept(target: RawTarget) -> None:
    lines = ["X-Forwarded-For: 1.2.3.4", "X-Forwarded-Proto: https", "X-Forwarded-Host: front"]
    lines += ["X-Forwarded-Port: 443", "Forwarded: for=1.2.3.4", "X-Real-IP: 1.2.3.4"]
    names = ("for", "proto", "host", "port")
    for trusted, kept in (("none", False), ("10.0.0.0/8,::1", False), ("127.0.0.0/8", True)):
        with start_server("--trusted-proxies", trusted) as proxy:
            proxy.api.add("/r", target.url)
            request = forwarded(proxy, target, get("/r", *lines, host="h:1"))
            values = [request.get(f"x-forwarded-{name}") for name in names]
            if kept:
                assert values == ["1.2.3.4,127.0.0.1", "https", "front", "443"]
            else:
                assert values == ["127.0.0.1", "http", "h:1", "1"]
            assert (request.get("forwarded") is not None) == kept
            assert (request.get("x-real-ip") is not None) == kept
