"""The answers that the proxy gives itself."""

from __future__ import annotations

import pytest

from tests.kit.peers import get
from tests.kit.server import Proxy, free_ports


@pytest.fixture(scope="module")
def dead_path(proxy: Proxy) -> str:
    """The path of a route whose target does not exist."""
    proxy.api.add("/dead", f"http://127.0.0.1:{free_ports(1)[0]}")
    return "/dead"


@pytest.mark.parametrize(("path", "status"), [("/nowhere", 404), ("/dead", 503)])
@pytest.mark.usefixtures("dead_path")
def test_an_error_is_a_small_html_page(proxy: Proxy, path: str, status: int) -> None:
    answer = proxy.get(path)
    assert answer.status == status
    assert answer.get("content-type") == "text/html", "as CHP's"
    assert f"{status}".encode() in answer.body
    assert b"<html" in answer.body
    assert len(answer.body) < 4096


@pytest.mark.parametrize(("path", "status"), [("/nowhere", 404), ("/dead", 503)])
@pytest.mark.usefixtures("dead_path")
def test_an_error_is_logged_with_method_and_path_but_not_the_query(
    proxy: Proxy, path: str, status: int
) -> None:
    start = proxy.log_position()
    proxy.get(f"{path}/page?token=secret")
    line = proxy.wait_for_log(rf"error: {status} GET {path}/page", after=start)
    assert "secret" not in line


@pytest.mark.parametrize(("path", "status"), [("/nowhere", 404), ("/dead", 503), ("/%", 404)])
@pytest.mark.usefixtures("dead_path")
def test_errors_keep_the_connection_in_step(proxy: Proxy, path: str, status: int) -> None:
    with proxy.client() as client:
        for method in ("GET", "HEAD", "DELETE"):
            answer = client.request(f"{method} {path} HTTP/1.1\r\nHost: a\r\n\r\n")
            assert answer.status == status
        assert client.request(get("/_chp_healthz")).status == 200


@pytest.mark.ours
@pytest.mark.parametrize(("path", "status"), [("/nowhere", 404), ("/dead", 503)])
@pytest.mark.usefixtures("dead_path")
@pytest.mark.parametrize("length", [5, 1_000_000])
def test_the_body_of_a_refused_request_is_never_taken_for_the_next_one(
    proxy: Proxy, path: str, status: int, length: int
) -> None:
    smuggled = get("/_chp_healthz").encode()
    body = smuggled * (length // len(smuggled) + 1)
    head = f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with proxy.client() as client:
        client.send(head + body)
        answer = client.read_response()
        assert answer.status == status
        if (answer.get("connection") or "").lower() == "close":
            assert client.read_to_end() == b""
        else:
            assert client.request(get("/nowhere")).status == 404


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_the_health_check_answers_without_a_route(proxy: Proxy, method: str) -> None:
    with proxy.client() as client:
        answer = client.request(f"{method} /_chp_healthz HTTP/1.1\r\nHost: a\r\n\r\n")
    assert answer.status == 200
    assert answer.all("content-type") == ["application/json"]
    assert answer.body == b'{"status":"OK"}'


@pytest.mark.parametrize("path", ["/_chp_healthz/", "/_chp_healthz?x", "/x/_chp_healthz"])
def test_only_the_exact_path_is_the_health_check(proxy: Proxy, path: str) -> None:
    assert proxy.get(path).status == 404


@pytest.mark.parametrize(
    "request_text",
    [
        "nonsense\r\n\r\n",
        "GET / HTTP/9.9\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nBad Header: x\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
)
def test_a_malformed_request_is_a_400_and_the_connection_is_closed(
    proxy: Proxy, request_text: str
) -> None:
    with proxy.client() as client:
        client.send(request_text)
        assert client.read_response().status in (400, 505)
        client.assert_closed()
    assert proxy.get("/_chp_healthz").status == 200
