"""What the REST API answers and logs; see tests/integration/test_api.py for the wire."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chp_gevent.management.api import Api
from chp_gevent.management.counters import management_row, read_totals, statuses
from chp_gevent.management.routes import Routes
from chp_gevent.routing import target_url
from chp_gevent.routing.route_options import RouteOptions
from chp_gevent.shared.publisher import Publisher
from chp_gevent.shared.segment import OPEN_CONNECTIONS, Segment
from tests.kit.api_calls import Call, call_wsgi, conforming
from tests.management.conftest import Clock

TARGET = b'{"target": "http://127.0.0.1:9"}'
NOW = "2026-01-01T00:00:00.000Z"

NO_SNIFFING = [("X-Content-Type-Options", "nosniff")]

MakeCall = Callable[..., Call]


def test_answers_have_the_statuses_headers_and_bodies_of_chp(call: Call) -> None:
    assert call("POST", "/api/routes/a", TARGET) == (201, [], b"")
    shown = b'{"target":"http://127.0.0.1:9","last_activity":"%s"}' % NOW.encode()
    json_type = [("Content-Type", "application/json")]
    assert call("GET", "/api/routes/a") == (200, json_type, shown)
    assert call("GET", "/api/routes") == (200, json_type, b'{"/a":%s}' % shown)
    assert call("DELETE", "/api/routes/a") == (204, [], b"")
    assert call("DELETE", "/api/routes/a") == (404, [], b"")
    assert call("GET", "/api/routes/a") == (404, [], b"")
    assert call("GET", "/api/routes") == (200, json_type, b"{}")
    assert call("GET", "/other") == (404, [], b"Not Found")
    assert call("PUT", "/api/routes/a") == (405, NO_SNIFFING, b"Method not supported")


def test_fields_come_back_in_the_order_in_which_they_were_posted(call: Call) -> None:
    call(
        "POST", "/api/routes/a", b'{"user": "x", "target": "http://h", "last_activity": 1, "b": 2}'
    )
    assert list(json.loads(call("GET", "/api/routes/a").body)) == [
        "user",
        "target",
        "b",
        "last_activity",
    ]


@pytest.mark.parametrize(
    "target",
    [
        "/api/routes/user/a%2Fb",
        "/api/routes/user/a/b/",
        "/api/routes/user/a/b///",
        "/api/routes//user/a/b",
        "/api/x/../routes/user/./a/b",
        "http://elsewhere/api/routes/user/a/b?q#f",
    ],
)
def test_a_path_has_many_spellings(call: Call, target: str) -> None:
    assert call("POST", target, TARGET).status == 201
    assert list(json.loads(call("GET", "/api/routes").body)) == ["/user/a/b"]
    assert call("GET", target).status == 200
    assert call("DELETE", target).status == 204


@pytest.mark.parametrize("path", ["", "/", "//"])
def test_the_root_can_be_added_and_removed(call: Call, path: str) -> None:
    assert call("POST", f"/api/routes{path}", TARGET).status == 201
    assert list(json.loads(call("GET", "/api/routes").body)) == ["/"]
    assert call("DELETE", f"/api/routes{path}").status == 204


@pytest.mark.parametrize("escape", ["%ff", "%E7%A7", "a/caf%E9", "caf\xe9", "%ED%A0%80"])
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_a_path_that_is_not_utf8_has_no_name_in_json_and_is_refused(
    call: Call, lines: list[str], method: str, escape: str
) -> None:
    target = f"/api/routes/{escape}"
    assert call(method, target, TARGET) == (400, NO_SNIFFING, b"Malformed path")
    assert lines == [f"warn: 400 {method} {target} Malformed path"]


@pytest.mark.parametrize(
    ("sent", "path"),
    [
        ("100%", "/100%"),
        ("%zz", "/%zz"),
        ("caf\xc3\xa9", "/café"),
        ("caf\xc3%A9/", "/café"),
    ],
)
def test_a_path_is_known_by_its_bytes_however_they_are_written(
    call: Call, sent: str, path: str
) -> None:
    assert call("POST", f"/api/routes/{sent}", TARGET).status == 201
    assert list(json.loads(call("GET", "/api/routes").body)) == [path]
    escaped = "".join(f"%{byte:02X}" for byte in path[1:].encode())
    assert call("GET", f"/api/routes/{escaped}").status == 200
    assert call("DELETE", f"/api/routes/{escaped}").status == 204


def test_without_a_token_pages_of_other_origins_change_and_see_nothing(
    make_call: MakeCall, routes: Routes, lines: list[str]
) -> None:
    call = make_call(routes)
    page = {"HTTP_HOST": "localhost:8001", "HTTP_ORIGIN": "http://evil.example"}
    for method in ("GET", "POST", "DELETE", "PUT"):
        answer = call(method, "/api/routes/a", TARGET, **page)
        assert answer.status == 403
        assert answer.headers == NO_SNIFFING
        assert lines.pop() == f"warn: 403 {method} /api/routes/a {answer.body.decode()}"
    assert len(routes) == 0
    with_token = make_call(routes, "secret")
    page["HTTP_AUTHORIZATION"] = "token secret"
    assert with_token("POST", "/api/routes/a", TARGET, **page).status == 201


# -- options of one route


def test_options_are_published_and_shown_as_they_were_posted(
    call: Call, publisher: Publisher
) -> None:
    body = (
        b'{"strip_prefix":true,"headers":{"X-A":" 1 "},"target":"http://h:1","timeout":30,'
        b'"change_origin":null'
    )
    assert call("POST", "/api/routes/a", body + b"}").status == 201
    shown = body + b',"last_activity":"%s"}' % NOW.encode()
    assert call("GET", "/api/routes/a").body == shown
    assert publisher.routes["/a"].options == RouteOptions(
        strip_prefix=True, timeout=30.0, headers=(("X-A", "1"),)
    )
    assert call("POST", "/api/routes/a", b'{"target":"http://h:1","timeout":0}').status == 201
    assert publisher.routes["/a"].options == RouteOptions(timeout=0.0)
    assert call("POST", "/api/routes/a", TARGET).status == 201
    assert publisher.routes["/a"].options is None


def test_options_that_can_not_be_used_change_nothing(
    call: Call, publisher: Publisher, lines: list[str]
) -> None:
    call("POST", "/api/routes/a", TARGET)
    lines.clear()
    body = (
        b'{"target": "http://h:1", "timeout": "5", "headers": {"Authorization": "Bearer secret"}}'
    )
    message = "Invalid 'timeout': it is not a number of seconds from 0.001 to 86400, or 0 for never"
    assert call("POST", "/api/routes/a", body) == (400, NO_SNIFFING, message.encode())
    assert lines == [
        'warn: Bad POST data: {"target":"http://h:1","timeout":"5","headers":"..."}',
        f"warn: 400 POST /api/routes/a {message}",
    ]
    assert publisher.routes["/a"].target == "http://127.0.0.1:9"
    for name in ("strip_prefix", "change_origin", "timeout", "headers"):
        body = b'{"target": "http://h:1", "%s": "x"}' % name.encode()
        answer = call("POST", "/api/routes/b", body)
        assert (answer.status, answer.body.partition(b":")[0]) == (
            400,
            f"Invalid '{name}'".encode(),
        )
    assert list(publisher.routes) == ["/a"]


# -- bodies


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{bad",
        b'{"target": "http://h"} x',
        b'{"target": "http://h", "a": NaN}',
        b'{"target": "http://h", "a": "\xff"}',
        b'{"target": "http://h", "a": "\\ud800"}',
        b"\xef\xbb\xbf" + TARGET,
        b"[" * 100_000,
        b"9" * 100_000,
        b'{"target": "http://h", "a": 1e999}',
    ],
)
def test_a_body_that_is_no_json_is_refused(call: Call, lines: list[str], body: bytes) -> None:
    answer = call("POST", "/api/routes/a", body)
    assert answer.status == 400
    assert answer.body.startswith(b"Body not valid JSON: ")
    assert len(lines) == 1
    assert lines[0].startswith("warn: 400 POST /api/routes/a Body not valid JSON: ")
    assert call("GET", "/api/routes").body == b"{}"


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        (b"{}", "{}"),
        (b"null", "{}"),
        (b"0", "{}"),
        (b"3", "3"),
        (b"[]", "{}"),
        (b'"text"', '"text"'),
        (b'{"target": 3}', '{"target":3}'),
        (b'{"target": null}', '{"target":null}'),
        (b'{"a": "\\n"}', '{"a":"\\n"}'),
        (b'{"a": "%s"}' % (b"x" * 1000), '{"a":"' + "x" * 194),
    ],
)
def test_a_body_without_a_target_is_refused(
    call: Call, lines: list[str], body: bytes, shown: str
) -> None:
    answer = call("POST", "/api/routes/a", body)
    assert answer == (400, NO_SNIFFING, b"Must specify 'target' as string")
    assert lines == [
        f"warn: Bad POST data: {shown}",
        "warn: 400 POST /api/routes/a Must specify 'target' as string",
    ]


@pytest.mark.parametrize(
    "target",
    [
        "",
        "foo",
        "h:1",
        "/path",
        "//host",
        "ftp://host",
        "ws://host",
        "file:///etc/passwd",
        "javascript://host",
        "http:",
        "http:/host",
        "http://",
        "http:///path",
        "http://:80",
        "http://user@host",
        "http://user:secret@host:1",
        "http://host#fragment",
        "http://host/#",
        "http://host:0",
        "http://host:65536",
        "http://host:99999",
        "http://host:port",
        "http://host\n:1",
        "http://host/\r\nX-Injected: 1",
        "http://host/\x00",
        "http://host/a b",
        "http://host\\@evil",
        "http://hö.example",
        "http://[::1",
        "http://::1",
        "http+unix://",
        "http+unix:///run/x.sock",
    ],
)
def test_a_target_that_no_request_could_be_sent_to_is_refused(
    call: Call, publisher: Publisher, target: str
) -> None:
    call("POST", "/api/routes/a", TARGET)
    generation = publisher.generation
    answer = call("POST", "/api/routes/a", json.dumps({"target": target}).encode())
    assert answer.status == 400
    assert answer.body.startswith(b"Invalid target: it ")
    assert publisher.generation == generation
    assert json.loads(call("GET", "/api/routes/a").body)["target"] == "http://127.0.0.1:9"


@pytest.mark.parametrize(
    "target",
    [
        "http://host",
        "http://host/",
        "HTTP://Host:1",
        "https://host:65535/base/path?query=1",
        "http://127.0.0.1:12345",
        "http://[::1]:8888/user",
        "http://some_container.internal:80",
        "http+unix://%2Frun%2Fx.sock",
        "unix+http://%2Frun%2Fx.sock/path",
    ],
)
def test_targets_of_every_kind_are_kept_as_posted(call: Call, target: str) -> None:
    assert call("POST", "/api/routes/a", json.dumps({"target": target}).encode()).status == 201
    assert json.loads(call("GET", "/api/routes/a").body)["target"] == target


@given(st.from_regex(target_url._USUAL, fullmatch=True))
def test_the_shortcut_for_usual_targets_takes_none_that_the_check_refuses(target: str) -> None:
    target_url._check_parts(target)


# -- who may call


@pytest.mark.parametrize("authorization", ["token s3cret", "token   s3cret", "xtoken s3cret y"])
def test_the_token_lets_in(make_call: MakeCall, routes: Routes, authorization: str) -> None:
    call = make_call(routes, "s3cret")
    assert call("GET", "/api/routes", HTTP_AUTHORIZATION=authorization).status == 200


@pytest.mark.parametrize(
    "authorization",
    [None, "", "token", "token s3cre", "token s3cret2", "Token s3cret", "Bearer s3cret", "s3cret"],
)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_nobody_else_is_let_in(
    make_call: MakeCall,
    routes: Routes,
    lines: list[str],
    method: str,
    authorization: str | None,
) -> None:
    call = make_call(routes, "s3cret")
    environ = {} if authorization is None else {"HTTP_AUTHORIZATION": authorization}
    assert call(method, "/api/routes/a", TARGET, **environ) == (403, [], b"")
    assert lines == [f"warn: 403 {method} /api/routes/a "]
    assert len(routes) == 0


def test_a_token_may_have_any_characters(make_call: MakeCall, routes: Routes) -> None:
    call = make_call(routes, "秘密")
    sent = "token " + "秘密".encode().decode("latin-1")
    assert call("GET", "/api/routes", HTTP_AUTHORIZATION=sent).status == 200


def test_no_token_is_ever_logged(
    make_call: MakeCall, routes: Routes, lines: list[str], log: logging.Logger
) -> None:
    log.setLevel(logging.DEBUG)
    call = make_call(routes, "s3cret")
    call("GET", "/api/routes", HTTP_AUTHORIZATION="token s3cret", REMOTE_ADDR="10.0.0.1")
    call("GET", "/api/routes", HTTP_AUTHORIZATION="token other", REMOTE_ADDR="10.0.0.1")
    assert lines == [
        "info: 200 GET /api/routes ",
        "debug: Rejecting API request from: 10.0.0.1",
        "warn: 403 GET /api/routes ",
    ]


def test_a_call_is_checked_before_its_body_is_read(make_call: MakeCall, routes: Routes) -> None:
    call = make_call(routes, "s3cret")
    assert call("GET", "/other").status == 404
    assert call("PUT", "/api/routes").status == 405
    unreadable = {"wsgi.input": None}
    assert call("POST", "/api/routes/a", **unreadable).status == 403
    assert call("DELETE", "/api/routes/a", **unreadable).status == 403
    right = {"HTTP_AUTHORIZATION": "token s3cret"}
    assert call("POST", "/api/routes/a", b"{bad", **right).status == 400
    assert call("GET", "/api/routes?inactive_since=xx").status == 403


# -- inactive routes


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        ("", ["/old", "/new"]),
        ("?inactive_since=2026-01-01T00:00:00.001Z", ["/old"]),
        ("?inactiveSince=2026-01-01T00:00:00.001Z", ["/old"]),
        ("?inactive_since=2026-01-01T00:00:00.000Z", []),
        ("?inactive_since=2026-01-01T02:00:00.001%2B02:00", ["/old"]),
        ("?inactive_since=", ["/old", "/new"]),
        ("?inactiveSince=&inactive_since=2026-01-01", []),
        ("?inactiveSince=2999&inactive_since=xx", ["/old", "/new"]),
        ("?other=1", ["/old", "/new"]),
    ],
)
def test_the_table_can_be_cut_down_to_what_is_inactive(
    call: Call, clock: Clock, query: str, shown: list[str]
) -> None:
    call("POST", "/api/routes/old", TARGET)
    clock.now += 60
    call("POST", "/api/routes/new", TARGET)
    assert list(json.loads(call("GET", f"/api/routes{query}").body)) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("xx", "xx"),
        ("a%20%22'%3Cb", "a \"'<b"),
        ("2100-01-01T00:00:00+02:00", "2100-01-01T00:00:00 02:00"),
        ("%0Afake", "\nfake"),
        ("%ff", "\ufffd"),
    ],
)
def test_a_datestamp_that_is_none_is_refused(
    call: Call, lines: list[str], value: str, shown: str
) -> None:
    answer = call("GET", f"/api/routes?inactive_since={value}")
    message = f"Invalid datestamp '{shown}' must be ISO8601."
    assert answer == (400, NO_SNIFFING, message.encode())
    logged = message.replace("\n", "\\n")
    assert lines == [f"warn: 400 GET /api/routes {logged}"]


# -- logs, counters, failures


def test_calls_are_logged_as_chp_logs_them(call: Call, lines: list[str]) -> None:
    call("POST", "/api/routes/a%20b/?x=1", TARGET)
    call("GET", "/api/routes?inactive_since=2026")
    call("DELETE", "/api/routes/a%20b")
    call("DELETE", "/api/routes/a%20b")
    call("PUT", "/api/routes")
    assert lines == [
        "info: Adding route /a b -> http://127.0.0.1:9",
        "info: Route added /a b -> http://127.0.0.1:9",
        "info: 201 POST /api/routes/a%20b/ ",
        "info: 200 GET /api/routes ",
        "info: Removing route /a b",
        "info: 204 DELETE /api/routes/a%20b ",
        "warn: 404 DELETE /api/routes/a%20b ",
        "warn: 405 PUT /api/routes Method not supported",
    ]


def test_a_path_cannot_write_lines_into_the_log(call: Call, lines: list[str]) -> None:
    call("POST", "/api/routes/a%0Ainfo:%20fake%E2%80%A8x%1B[31m", TARGET)
    assert len(lines) == 3
    assert not any(c in line for line in lines for c in "\n\u2028\x1b")


def test_calls_are_counted_as_chp_counts_them(call: Call, segment: Segment) -> None:
    for method, target in [
        ("POST", "/api/routes/a"),
        ("GET", "/api/routes"),
        ("GET", "/api/routes?inactive_since=xx"),
        ("GET", "/api/routes/a"),
        ("DELETE", "/api/routes/a"),
        ("DELETE", "/api/routes/a"),
        ("GET", "/nothing"),
    ]:
        call(method, target, TARGET)
    totals = read_totals(segment)
    assert totals.requests_api == {200: 2, 201: 1, 204: 1, 400: 1, 404: 2}
    assert (totals.api_route_get, totals.api_route_add, totals.api_route_delete) == (1, 1, 2)
    assert management_row(segment)[OPEN_CONNECTIONS] == 0


def test_a_full_table_is_said_to_be_full(call: Call, segment: Segment) -> None:
    size = len(segment.activity)
    for number in range(size):
        assert call("POST", f"/api/routes/{number}", TARGET).status == 201
    answer = call("POST", "/api/routes/more", TARGET)
    assert answer.status == 507
    assert answer.body.startswith(b"No room for another route: ")
    assert call("POST", "/api/routes/1", TARGET).status == 201, "replacing needs no room"
    assert call("DELETE", "/api/routes/1").status == 204
    assert call("POST", "/api/routes/more", TARGET).status == 201


def test_a_bug_is_a_500_and_one_line(
    call: Call, lines: list[str], routes: Routes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(path: str) -> None:
        raise KeyError("what\never")

    monkeypatch.setattr(routes, "one_as_json", broken)
    assert call("GET", "/api/routes/a?b") == (500, [], b"Internal Server Error")
    assert lines == [
        "error: Error in handler for GET /api/routes/a: KeyError: 'what\\never'",
        "error: 500 GET /api/routes/a ",
    ]


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "PUT"])
def test_the_api_is_a_wsgi_application(
    routes: Routes, segment: Segment, log: logging.Logger, method: str
) -> None:
    api = conforming(Api(routes, None, segment.words, segment.row(0), log))
    assert call_wsgi(api, method, "/api/routes/a").status >= 200
    assert sum(statuses(segment.row(0)).values()) == 1
