"""Cases about the REST API; the table is compared after each."""

from __future__ import annotations

from scripts.lib.compare.case import NO_TOKEN, Case, request
from tests.kit.server import TOKEN

AUTHORIZATION = f"Authorization: token {TOKEN}"
TARGET = b'{"target": "http://127.0.0.1:9"}'


def call(name: str, method: str, path: str, body: bytes = b"", *lines: str) -> Case:
    """Return a case of one API call; the token is sent unless another one is."""
    fields = lines if any("uthorization" in line for line in lines) else (AUTHORIZATION, *lines)
    if method == "POST" and not body and not any("Transfer" in line for line in fields):
        fields = (*fields, "Content-Length: 0")
    sent = request(path, *(line for line in fields if line != "no authorization"), method=method,
                   body=body)  # fmt: skip
    return Case(f"api: {name}", sent, to="api")


BODIES = {
    "target only": TARGET,
    "extra fields": b'{"target": "http://127.0.0.1:9", "user": "x", "n": 1.5, "l": [null, true]}',
    "unicode": '{"target": "http://127.0.0.1:9", "user": "秀樹 é"}'.encode(),
    "escaped unicode": b'{"target": "http://127.0.0.1:9", "user": "\\u79c0 \\ud83d\\ude00"}',
    "last_activity": b'{"target": "http://127.0.0.1:9", "last_activity": "2001-01-01"}',
    "key twice": b'{"target": "http://127.0.0.1:8", "target": "http://127.0.0.1:9"}',
    "large number": b'{"target": "http://127.0.0.1:9", "n": 12345678901234567890}',
    "white space": b' \n{ "target" : "http://127.0.0.1:9" }\n',
    "empty": b"",
    "no JSON": b"nonsense",
    "cut JSON": b'{"target": ',
    "single quotes": b"{'target': 'x'}",
    "trailing comma": b'{"target": "http://127.0.0.1:9",}',
    "trailing text": TARGET + b"x",
    "NaN": b'{"target": "http://127.0.0.1:9", "n": NaN}',
    "null": b"null",
    "false": b"false",
    "list": b"[]",
    "string": b'"http://127.0.0.1:9"',
    "number": b"1",
    "no target": b'{"user": "x"}',
    "target null": b'{"target": null}',
    "target number": b'{"target": 1}',
    "target list": b'{"target": ["http://127.0.0.1:9"]}',
    "target with a path": b'{"target": "http://127.0.0.1:9/a/b?c"}',
    "target https": b'{"target": "https://127.0.0.1:9"}',
    "target unix": b'{"target": "http+unix://%2Ftmp%2Fx.sock"}',
    "target IPv6": b'{"target": "http://[::1]:9"}',
    "target empty": b'{"target": ""}',
    "target no URL": b'{"target": "nonsense"}',
    "target with a bad scheme": b'{"target": "ftp://127.0.0.1"}',
    "options of a route": b'{"target": "http://127.0.0.1:9", "strip_prefix": true, "timeout": 5}',
    "option that is null": b'{"target": "http://127.0.0.1:9", "headers": null}',
    "option that is no option": b'{"target": "http://127.0.0.1:9", "timeout": "soon"}',
}

PATHS = [
    "/api/routes",
    "/api/routes/",
    "/api/routes/new",
    "/api/routes/new/",
    "/api/routes/new/deep/er",
    "/api/routes/new%20space",
    "/api/routes/new%2Fslash",
    "/api/routes/new/%E7%A7%80",
    "/api/routes/new/a@b",
    "/api/routes/new/%40",
    "/api/routes/new/%25",
    "/api/routes/new/%3Fq",
    "/api/routes/new/../other",
    "/api/routes/new/./x",
    "/api/routes//double//slash",
    "/api/routes/new?query=1",
    "/api/routes/%",
    "/api/routes/%zz",
    "/api/routes/%ff",
    "/api/routesx",
    "/api/route",
    "/api",
    "/",
    "//api/routes/x",
    "/API/ROUTES/x",
]

QUERIES = [
    "inactive_since=2001-01-01T00:00:00Z",
    "inactive_since=2999-01-01T00:00:00.000Z",
    "inactiveSince=2999-01-01T00:00:00.000Z",
    "inactive_since=2999-01-01",
    "inactive_since=2999",
    "inactive_since=2999-01-01T00:00:00%2B02:00",
    "inactive_since=2999-01-01T00:00",
    "inactive_since=xx",
    "inactiveSince=%3Cb%3E",
    "inactive_since=",
    "inactive_since",
    "inactive_since=12",
    "inactive_since=2999-13-01T00:00:00Z",
    "other=1",
]

AUTHORIZATIONS = [
    "no authorization",
    "Authorization: token wrong",
    "Authorization: token",
    f"Authorization: Bearer {TOKEN}",
    f"Authorization: {TOKEN}",
    f"Authorization: Token {TOKEN}",
    f"Authorization: token  {TOKEN}",
    f"Authorization: token {TOKEN} more",
    f"Authorization: x token {TOKEN}",
    f"authorization: token {TOKEN}",
]

CASES = [
    *(call(f"POST {name}", "POST", "/api/routes/new", body) for name, body in BODIES.items()),
    *(call(f"POST {path}", "POST", path, TARGET) for path in PATHS),
    *(call(f"GET {path}", "GET", path) for path in [*PATHS, "/api/routes/t", "/api/routes/t/deep",
      "/api/routes/user/a%40b", "/api/routes/user/a@b", "/api/routes/has%20space"]),
    *(call(f"DELETE {path}", "DELETE", path) for path in [*PATHS, "/api/routes/t",
      "/api/routes/t/", "/api/routes/user/a%40b", "/api/routes/t/deep"]),
    *(call(f"GET ?{query}", "GET", f"/api/routes?{query}") for query in QUERIES),
    *(call(f"{line}", "GET", "/api/routes/t", b"", line) for line in AUTHORIZATIONS),
    *(call(f"{m} /api/routes", m, "/api/routes") for m in ("PUT", "PATCH", "HEAD", "OPTIONS")),
    call("PUT without the token", "PUT", "/api/routes", b"", "no authorization"),
    call("POST without the token", "POST", "/api/routes/new", TARGET, "no authorization"),
    call("DELETE without the token", "DELETE", "/api/routes/t", b"", "no authorization"),
    call("nowhere without the token", "GET", "/nowhere", b"", "no authorization"),
    call("nonsense without the token", "POST", "/api/routes/new", b"x", "no authorization"),
    call("chunked POST", "POST", "/api/routes/new", b"20\r\n" + TARGET + b"\r\n0\r\n\r\n",
         "Transfer-Encoding: chunked"),
    call("POST with a content type", "POST", "/api/routes/new", TARGET, "Content-Type: text/x"),
    call("DELETE with a body", "DELETE", "/api/routes/t", b"abc"),
    call("GET and close", "GET", "/api/routes/t", b"", "Connection: close"),
    *(
        Case(f"no token: {name}", request(path, *lines, method=method, body=body, host=host),
             group=NO_TOKEN, to="api")
        for name, method, path, body, host, *lines in (
            ("GET", "GET", "/api/routes/t", b"", "localhost:8001"),
            ("POST", "POST", "/api/routes/new", TARGET, "127.0.0.1"),
            ("foreign page", "POST", "/api/routes/new", TARGET, "localhost",
             "Origin: http://evil.test"),
            ("rebound name", "GET", "/api/routes/t", b"", "evil.test:8001"),
        )
    ),
    Case("api: HTTP/1.0", request("/api/routes/t", AUTHORIZATION, version="1.0"), to="api"),
    Case("api: two pipelined", request("/api/routes/t", AUTHORIZATION) * 2, answers=2, to="api"),
    Case("api: malformed", b"nonsense\r\n\r\n", to="api"),
]  # fmt: skip
