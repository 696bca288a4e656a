"""The REST API, down to the bytes that clients compare."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.kit.peers import RawClient, RawTarget, Response, fetch, response, wait_until
from tests.kit.server import TOKEN, Proxy, start_proxy

AddRoute = Callable[[str], str]

TARGET = '{"target": "http://127.0.0.1:9"}'
ISO_8601 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


def call(
    proxy: Proxy,
    method: str,
    path: str,
    body: str = "",
    *,
    authorization: str | None = f"token {TOKEN}",
) -> Response:
    """Make one API call with exactly this path and body."""
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost"]
    if authorization is not None:
        lines.append(f"Authorization: {authorization}")
    encoded = body.encode()
    if encoded or method == "POST":
        lines.append(f"Content-Length: {len(encoded)}")
    return fetch(proxy.api_address, "\r\n".join([*lines, "", ""]).encode("latin-1") + encoded)


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "answer"),
    [
        ("POST", "/api/routes/new", TARGET, 201, ""),
        ("POST", "/api/routes/new/", TARGET, 201, ""),
        ("GET", "/api/routes/missing", "", 404, ""),
        ("DELETE", "/api/routes/missing", "", 404, ""),
        ("GET", "/api/route", "", 404, "Not Found"),
        ("GET", "/api/routesx", "", 404, "Not Found"),
        ("GET", "/api", "", 404, "Not Found"),
        ("GET", "/", "", 404, "Not Found"),
        ("POST", "/other", TARGET, 404, "Not Found"),
        ("PUT", "/api/routes/a", TARGET, 405, "Method not supported"),
        ("PATCH", "/api/routes", "", 405, "Method not supported"),
        ("OPTIONS", "/api/routes", "", 405, "Method not supported"),
        ("POST", "/api/routes/a", "{}", 400, "Must specify 'target' as string"),
        ("POST", "/api/routes/a", '{"target": 1}', 400, "Must specify 'target' as string"),
        ("POST", "/api/routes/a", '{"target": null}', 400, "Must specify 'target' as string"),
        ("POST", "/api/routes/a", "null", 400, "Must specify 'target' as string"),
        ("POST", "/api/routes/a", "[]", 400, "Must specify 'target' as string"),
        ("POST", "/api/routes/a", '"x"', 400, "Must specify 'target' as string"),
        (
            "GET",
            "/api/routes?inactive_since=xx",
            "",
            400,
            "Invalid datestamp 'xx' must be ISO8601.",
        ),
        (
            "GET",
            "/api/routes?inactiveSince=yesterday",
            "",
            400,
            "Invalid datestamp 'yesterday' must be ISO8601.",
        ),
    ],
)
def test_each_call_has_the_status_and_body_that_clients_know(
    proxy: Proxy, method: str, path: str, body: str, status: int, answer: str
) -> None:
    before = proxy.api.routes()
    got = call(proxy, method, path, body)
    assert (got.status, got.body.decode()) == (status, answer)
    if status != 201:
        assert proxy.api.routes() == before
    proxy.api.remove("/new")


@pytest.mark.parametrize("body", ["", "nonsense", '{"target": ', "{'target': 'x'}"])
def test_a_body_that_is_no_json_is_a_400_that_says_so(proxy: Proxy, body: str) -> None:
    got = call(proxy, "POST", "/api/routes/a", body)
    assert got.status == 400
    assert got.body.decode().startswith("Body not valid JSON: ")
    assert proxy.api.route("/a") is None


@pytest.mark.parametrize(
    "authorization", [None, "", "token", "token wrong", f"Bearer {TOKEN}", TOKEN, f"token {TOKEN}x"]
)
@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/api/routes", ""),
        ("GET", "/api/routes/x", ""),
        ("POST", "/api/routes/forbidden", TARGET),
        ("DELETE", "/api/routes/x", ""),
    ],
)
def test_a_call_without_the_token_is_a_403_with_an_empty_body(
    proxy: Proxy, method: str, path: str, body: str, authorization: str | None
) -> None:
    got = call(proxy, method, path, body, authorization=authorization)
    assert (got.status, got.body) == (403, b"")
    assert proxy.api.route("/forbidden") is None


def test_json_answers_have_a_bare_content_type(proxy: Proxy, add_route: AddRoute) -> None:
    path = add_route("http://127.0.0.1:9")
    for url in ("/api/routes", f"/api/routes{path}"):
        assert call(proxy, "GET", url).all("content-type") == ["application/json"]


def test_the_table_is_there_with_and_without_a_trailing_slash(
    proxy: Proxy, add_route: AddRoute
) -> None:
    add_route("http://127.0.0.1:9")
    answers = [call(proxy, "GET", path).body for path in ("/api/routes", "/api/routes/")]
    assert answers[0] == answers[1]


def test_extra_fields_are_stored_and_returned(proxy: Proxy) -> None:
    fields: dict[str, Any] = {
        "jupyterhub": True,
        "user": "秀樹",
        "server_name": "",
        "nested": {"list": [1, 2.5, None, "x"], "deep": {"a": {}}},
        "number": 12345678901,
        "hub": False,
    }
    proxy.api.add("/fields", "http://127.0.0.1:9", **fields)
    stored = proxy.api.route("/fields")
    assert stored is not None
    assert stored == proxy.api.routes()["/fields"]
    assert ISO_8601.fullmatch(stored.pop("last_activity"))
    assert stored == {"target": "http://127.0.0.1:9", **fields}
    proxy.api.add("/fields", "http://127.0.0.1:10")
    replaced = proxy.api.route("/fields")
    assert replaced is not None
    assert set(replaced) == {"target", "last_activity"}, "a POST replaces the route as a whole"
    proxy.api.remove("/fields")


def test_a_posted_last_activity_is_overwritten_with_now(proxy: Proxy) -> None:
    proxy.api.add("/old", "http://127.0.0.1:9", last_activity="2001-01-01T00:00:00.000Z")
    route = proxy.api.route("/old")
    assert route is not None
    now = time.strftime("%Y-%m-%dT%H:", time.gmtime())
    assert route["last_activity"].startswith(now) or now.endswith("T00:")
    proxy.api.remove("/old")


@pytest.mark.parametrize(
    ("posted", "stored", "wire"),
    [
        ("/p/plain", "/p/plain", "/p/plain"),
        ("/p/slash/", "/p/slash", "/p/slash"),
        ("/p/a%40b", "/p/a@b", "/p/a@b"),
        ("/p/a@b", "/p/a@b", "/p/a%40b"),
        ("/p/%E7%A7%80%E6%A8%B9", "/p/秀樹", "/p/%e7%a7%80%E6%A8%B9"),
        ("/p/has%20space", "/p/has space", "/p/has%20space"),
        ("/p/a%2Fb", "/p/a/b", "/p/a/b"),
        ("/p/per%2525", "/p/per%25", "/p/per%2525"),
        ("/p/q%3Fx", "/p/q?x", "/p/q%3Fx"),
    ],
)
def test_a_route_survives_in_every_encoding(
    proxy: Proxy, posted: str, stored: str, wire: str
) -> None:
    with RawTarget() as target:
        body = json.dumps({"target": target.url})
        assert call(proxy, "POST", f"/api/routes{posted}", body).status == 201
        assert stored in proxy.api.routes()
        for path in (posted, wire):
            assert call(proxy, "GET", f"/api/routes{path}").status == 200
            assert proxy.get(path + "/x").status == 200
        assert call(proxy, "DELETE", f"/api/routes{wire}").status == 204
        assert proxy.get(posted).status == 404
        assert stored not in proxy.api.routes()


def test_the_root_route_is_one_like_the_others(proxy: Proxy) -> None:
    for path in ("/api/routes", "/api/routes/"):
        assert call(proxy, "POST", path, TARGET).status == 201
        assert proxy.api.routes()["/"]["target"] == "http://127.0.0.1:9"
        assert call(proxy, "DELETE", "/api/routes/").status == 204
        assert "/" not in proxy.api.routes()


@pytest.mark.ours
def test_delete_without_a_path_removes_the_root_route(proxy: Proxy, add_route: AddRoute) -> None:
    other = add_route("http://127.0.0.1:9")
    call(proxy, "POST", "/api/routes", TARGET)
    assert call(proxy, "DELETE", "/api/routes").status == 204
    assert call(proxy, "DELETE", "/api/routes").status == 404
    assert set(proxy.api.routes()) == {other}


@pytest.mark.ours
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_a_route_that_is_not_utf8_is_refused(proxy: Proxy, method: str) -> None:
    assert call(proxy, method, "/api/routes/caf%E9", TARGET).status == 400
    assert call(proxy, "GET", "/api/routes").status == 200


@pytest.mark.ours
def test_without_a_token_no_page_of_another_site_adds_a_route() -> None:
    """A form in a page may be posted to localhost; a site's name may be led there."""
    evil = "http://evil.test"
    with start_proxy(token=None) as proxy:
        local = f"localhost:{proxy.api_port}"
        for host, origin, status in (
            (local, evil, 403),
            (local, "null", 403),
            ("evil.test", evil, 403),
            ("evil.test", None, 403),
            (local, f"http://{local}", 201),
            ("127.0.0.1", None, 201),
        ):
            lines = [f"POST /api/routes/a HTTP/1.1\r\nHost: {host}\r\nContent-Type: text/plain"]
            lines += [f"Content-Length: {len(TARGET)}"]
            lines += [f"Origin: {origin}"] if origin else []
            answer = fetch(proxy.api_address, "\r\n".join([*lines, "", TARGET]))
            assert (host, origin, answer.status) == (host, origin, status)
            if status == 403:
                assert answer.all("x-content-type-options") == ["nosniff"]
                assert proxy.api.routes() == {}


@pytest.mark.parametrize("name", ["inactive_since", "inactiveSince"])
def test_the_table_can_be_asked_for_inactive_routes(
    proxy: Proxy, add_route: AddRoute, name: str
) -> None:
    path = add_route("http://127.0.0.1:9")
    activity = proxy.api.routes()[path]["last_activity"]
    assert path in proxy.api.routes(**{name: "2999-01-01T00:00:00.000Z"})
    assert path in proxy.api.routes(**{name: "2999-01-01"})
    assert path in proxy.api.routes(**{name: "2999-01-01T00:00:00+02:00"})
    assert proxy.api.routes(**{name: "2001-01-01T00:00:00Z"}) == {}
    assert path not in proxy.api.routes(**{name: activity}), "only what is older"


def test_several_calls_share_a_connection(proxy: Proxy) -> None:
    with RawClient(proxy.api_address) as client:
        head = f"HTTP/1.1\r\nHost: a\r\nAuthorization: token {TOKEN}\r\n"
        post = f"POST /api/routes/kept {head}Content-Length: {len(TARGET)}\r\n\r\n{TARGET}"
        assert client.request(post).status == 201
        assert client.request(f"GET /api/routes/kept {head}\r\n").status == 200
        assert client.request(f"DELETE /api/routes/kept {head}\r\n").status == 204
        assert client.request(f"GET /api/routes/kept {head}\r\n").status == 404


def test_a_chunked_body_is_understood(proxy: Proxy) -> None:
    data = f"{len(TARGET):x}\r\n{TARGET}\r\n0\r\n\r\n"
    head = f"POST /api/routes/chunked HTTP/1.1\r\nHost: a\r\nAuthorization: token {TOKEN}\r\n"
    got = fetch(proxy.api_address, f"{head}Transfer-Encoding: chunked\r\n\r\n{data}")
    assert got.status == 201
    assert proxy.api.remove("/chunked") == 204


def activity_after(proxy: Proxy, path: str, use: Callable[[], object]) -> tuple[str, str]:
    """Return the last activity of a route before and after ``use``, a moment later."""
    before = proxy.api.routes()[path]["last_activity"]
    later = time.time() + 0.02
    wait_until(lambda: time.time() > later, 1, "the clock has gone on")
    use()
    return before, proxy.api.routes()[path]["last_activity"]


@pytest.mark.parametrize("status", ["200 OK", "204 No Content", "206 Partial Content"])
def test_a_finished_answer_below_300_is_activity(
    proxy: Proxy, add_route: AddRoute, status: str
) -> None:
    with RawTarget(response(b"", status)) as target:
        path = add_route(target.url)
        before, after = activity_after(proxy, path, lambda: proxy.get(path))
    assert after > before


@pytest.mark.parametrize(
    "status", ["302 Found", "304 Not Modified", "404 Not Found", "403 Forbidden", "503 Busy"]
)
def test_redirects_and_errors_are_no_activity(
    proxy: Proxy, add_route: AddRoute, status: str
) -> None:
    with RawTarget(response(b"", status)) as target:
        path = add_route(target.url)
        before, after = activity_after(proxy, path, lambda: proxy.get(path))
    assert after == before


def test_a_target_that_cannot_be_reached_is_no_activity(proxy: Proxy, add_route: AddRoute) -> None:
    with RawTarget() as target:
        path = add_route(target.url)
    before, after = activity_after(proxy, path, lambda: proxy.get(path))
    assert after == before
