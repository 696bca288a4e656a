"""Error pages of one's own: --error-path and --error-target."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.kit.option_servers import start_server
from tests.kit.peers import RawTarget, get, response, stalled, then_close
from tests.kit.peers.upgrades import upgrade
from tests.kit.server import Proxy, free_ports

ERRORS = [("/nowhere", 404, b"Not Found"), ("/dead/x", 503, b"Service Unavailable")]


def add_dead(proxy: Proxy) -> None:
    """Route ``/dead`` to where nobody listens."""
    proxy.api.add("/dead", f"http://127.0.0.1:{free_ports(1)[0]}")


def test_error_path_has_a_page_for_a_code_or_for_all_or_none(tmp_path: Path) -> None:
    (tmp_path / "404.html").write_text("<p>four-oh-four</p>")
    (tmp_path / "error.html").write_text("<p>caf\xe9</p>", encoding="utf-8")
    with start_server("--error-path", str(tmp_path), "--log-level", "debug") as proxy:
        add_dead(proxy)
        bodies = {404: b"<p>four-oh-four</p>", 503: "<p>caf\xe9</p>".encode()}
        with proxy.client() as client:
            for path, code, _ in ERRORS:
                answer = client.request(get(path))
                assert (answer.status, answer.body) == (code, bodies[code])
                assert answer.get("content-type") == "text/html"
        proxy.wait_for_log(rf"debug: No error file {tmp_path}/503\.html")

        (tmp_path / "404.html").write_text("changed")
        assert proxy.get("/nowhere").body == b"changed", "pages are read when they are needed"
        with proxy.client() as client:
            head = client.request("HEAD /nowhere HTTP/1.1\r\nHost: a\r\n\r\n")
            assert (head.status, head.body) == (404, b"")
            assert client.request(get("/nowhere")).body == b"changed"

        for page in list(tmp_path.iterdir()):
            page.unlink()
        for path, code, reason in ERRORS:
            answer = proxy.get(path)
            assert (answer.status, answer.body) == (code, reason)
        proxy.wait_for_log(rf"error: No error file {tmp_path}/error\.html")

        # Neither a page nor readable.
        (tmp_path / "error.html").mkdir()
        answer = proxy.get("/nowhere")
        assert (answer.status, answer.body) == (404, b"Not Found")
        proxy.wait_for_log(rf"error: Error reading {tmp_path}/error\.html")


PAGE = response(
    b"\x1f\x8bnot really",
    status="200 Very OK",
    headers=[
        ("Content-Type", "text/x-own"),
        ("Content-Encoding", "gzip"),
        ("Set-Cookie", "a=1"),
        ("Location", "/elsewhere"),
        ("X-Own", "1"),
    ],
)


@pytest.fixture(scope="module")
def error_target() -> Iterator[RawTarget]:
    """A target for error pages."""
    with RawTarget(PAGE) as target:
        yield target


@pytest.fixture(scope="module")
def proxy(error_target: RawTarget) -> Iterator[Proxy]:
    """A server whose error target has a path of its own."""
    with start_server("--error-target", f"{error_target.url}/hub/error") as proxy:
        add_dead(proxy)
        yield proxy


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/nowhere", 404),
        ("/nowhere?x=1&y=a%20b+c", 404),
        ("/caf%C3%A9/~a*b-c_d.e'(f)!/@:;,=$", 404),
        ("/dead/x?token", 503),
    ],
)
def test_error_target_is_asked_for_the_page_of_the_code_and_the_request(
    proxy: Proxy, error_target: RawTarget, path: str, code: int
) -> None:
    error_target.script(PAGE)
    answer = proxy.get(path, "Cookie: secret=1", "Authorization: token secret")
    assert answer.start == f"HTTP/1.1 {code} {answer.reason}"
    assert answer.body == b"\x1f\x8bnot really"
    assert answer.get("content-type") == "text/x-own"
    assert answer.get("content-encoding") == "gzip"
    for name in ("set-cookie", "location", "x-own"):
        assert answer.get(name) is None

    request = error_target.request
    asked = urlsplit(request.target)
    assert (request.method, asked.path) == ("GET", f"/hub/error/{code}")
    assert parse_qs(asked.query, strict_parsing=True) == {"url": [path]}
    assert set(asked.query) <= set(
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789%=*-._"
    )
    assert "secret" not in request.raw.decode("latin-1")
    assert request.get("host") == f"127.0.0.1:{error_target.port}"


def test_an_error_page_may_be_chunked_or_end_with_the_connection(
    proxy: Proxy, error_target: RawTarget
) -> None:
    chunked = b"HTTP/1.1 404 x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    closing = then_close(b"HTTP/1.1 500 x\r\nConnection: close\r\n\r\nabc")
    for reply in (chunked, closing, response(b"abc")):
        error_target.script(reply)
        with proxy.client() as client:
            for _ in range(2):
                answer = client.request(get("/nowhere"))
                assert (answer.status, answer.body) == (404, b"abc")


@pytest.mark.parametrize("first", [b"", b"HTTP/1.1 2"])
def test_when_the_error_target_breaks_off_there_is_the_plain_reason(
    proxy: Proxy, error_target: RawTarget, first: bytes
) -> None:
    error_target.script(then_close(first))
    start = proxy.log_position()
    answer = proxy.get("/nowhere")
    assert (answer.status, answer.body) == (404, b"Not Found")
    line = proxy.wait_for_log("error: Failed to get custom error page: ", after=start)
    assert "Traceback" not in line


@pytest.mark.ours
def test_an_error_target_that_is_slow_is_not_waited_for(
    proxy: Proxy, error_target: RawTarget
) -> None:
    error_target.script(stalled(threading.Event()))
    answer = proxy.get("/dead/slow")
    assert (answer.status, answer.body) == (503, b"Service Unavailable")


@pytest.mark.parametrize("scheme", ["http+unix", "unix+http"])
def test_an_error_target_may_be_a_unix_socket(tmp_path: Path, scheme: str) -> None:
    path = str(tmp_path / "error.sock")
    with ExitStack() as stack:
        target = stack.enter_context(RawTarget(PAGE, unix_path=path))
        url = target.url.replace("http+unix", scheme)
        proxy = stack.enter_context(start_server("--error-target", url + "/deep/"))
        answer = proxy.get("/nowhere?x")
        assert (answer.status, answer.body) == (404, b"\x1f\x8bnot really")
        assert target.request.target == "/deep/404?url=%2Fnowhere%3Fx"
        assert target.request.get("host") == "localhost"
        target.stop_listening()
        target.drop_connections()
        answer = proxy.get("/nowhere")
        assert (answer.status, answer.body) == (404, b"Not Found")


@pytest.mark.parametrize("kind", ["404", "503"])
def test_refused_websockets_have_no_page(proxy: Proxy, error_target: RawTarget, kind: str) -> None:
    error_target.script(PAGE)
    with proxy.client() as client:
        client.send(upgrade("/nowhere" if kind == "404" else "/dead"))
        answer = client.read_response()
        assert (answer.status, answer.body) == (int(kind), b"")
    assert error_target.requests == []


@pytest.mark.ours
def test_error_path_is_for_when_the_error_target_fails(
    error_target: RawTarget, tmp_path: Path
) -> None:
    (tmp_path / "error.html").write_text("<p>for all</p>")
    flags = ["--error-target", error_target.url, "--error-path", str(tmp_path)]
    with start_server(*flags) as proxy:
        error_target.script(PAGE)
        assert proxy.get("/nowhere").body == b"\x1f\x8bnot really"
        error_target.script(then_close(b"HTTP/1.1 2"))
        answer = proxy.get("/nowhere")
        assert (answer.status, answer.body) == (404, b"<p>for all</p>")
        assert answer.get("content-type") == "text/html"
        proxy.wait_for_log("error: Failed to get custom error page: ")
        (tmp_path / "error.html").unlink()
        answer = proxy.get("/nowhere")
        assert (answer.status, answer.body) == (404, b"Not Found")
