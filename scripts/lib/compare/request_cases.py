"""Cases about requests: header fields, targets, methods, bodies and malformed ones."""

from __future__ import annotations

from scripts.lib.compare.case import Case, request
from tests.kit.peers.raw_client import chunked
from tests.kit.peers.raw_target import Exchange, response

HEADER_LINES = [
    "Accept: text/html,*/*;q=0.8",
    "Accept: a\r\nAccept: b",
    "Accept-Encoding: gzip, deflate, br",
    "Authorization: Basic dTpw",
    "Authorization: token a\r\nAuthorization: token b",
    "Cache-Control: no-cache",
    "Connection: close",
    "Connection: keep-alive",
    "Connection: Keep-Alive, X-Named\r\nX-Named: 1",
    "Connection: close\r\nConnection: x-named\r\nX-Named: 1",
    "Connection: upgrade\r\nUpgrade: h2c",
    "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQ",
    "Content-Type: text/plain",
    "Content-Type: a/b\r\nContent-Type: c/d",
    "Cookie: a=1; b=2",
    "Cookie: a=1\r\nCookie: b=2",
    "Date: Sun, 06 Nov 1994 08:49:37 GMT",
    "Forwarded: for=1.2.3.4",
    "From: someone@example.com",
    'If-None-Match: "x", "y"',
    "If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT",
    "Keep-Alive: timeout=5, max=100",
    "Max-Forwards: 3",
    "Origin: http://proxy.test",
    "Proxy-Authorization: Basic dTpw",
    "Proxy-Connection: keep-alive",
    "Range: bytes=0-99",
    "Referer: http://proxy.test/a?b",
    "TE: trailers",
    "TE: gzip, trailers",
    "Connection: TE\r\nTE: trailers",
    "Trailer: X-After",
    "Upgrade: h2c",
    "Upgrade-Insecure-Requests: 1",
    "User-Agent: a/1 (b)",
    "User-Agent: a\r\nUser-Agent: b",
    "Via: 1.1 front",
    "X-Empty:",
    "X-Spaces:    a   b\t ",
    "X-Latin: caf\xe9 \xff",
    "X-Twice: 1\r\nX-Twice: 2",
    "x-CASE-Of-Name: 1",
    "X_Underscore: 1",
    "X_Forwarded_For: 1.2.3.4",
    "X.Forwarded.For: 1.2.3.4",
    "X-Long: " + "x" * 7000,
    "\r\n".join(f"X-Many-{n}: {n}" for n in range(60)),
    "X-Forwarded-For: 1.2.3.4",
    "X-Forwarded-For: 1.2.3.4\r\nX-Forwarded-For: 5.6.7.8",
    "x-forwarded-for: 1.2.3.4, 5.6.7.8",
    "X-Forwarded-Port: 443",
    "X-Forwarded-Proto: https",
    "X-Forwarded-Host: front.test",
    "X-Forwarded-Host:",
    "X-Forwarded-For: 9.9.9.9\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Port: 1",
    "X-Real-IP: 1.2.3.4",
]

HOSTS = [
    "proxy.test:8000",
    "PROXY.Test",
    "[::1]:8000",
    "[::1]",
    "1.2.3.4",
    "proxy.test:",
    "",
]

TARGETS = [
    "/t/",
    "/t?",
    "/t?a=1&b=2",
    "/t?a=%20+%2B&b=é".encode().decode("latin-1"),
    "/t?a?b",
    '/t?"<>`{}|^\\',
    "/t/a/../b",
    "/t/a/./b",
    "/t/..",
    "/t/../t/x",
    "/../t",
    "/t/%2e%2e/t",
    "/t/%2E/x",
    "/t//double",
    "/t///",
    "//t",
    "//host/t",
    "/t/%41%62c",
    "/t/%C3%A9",
    "/t/%ff",
    "/t/%",
    "/t/%zz",
    "/t/caf%E9.txt",
    "//",
    "//a:b/t",
    "//[/t",
    "/t%2Fx",
    "/t/a%2Fb",
    "/t/a%00b",
    "/t/'()*!~;:@&=+$,",
    '/t/"<>`{}|^',
    "/t\\x",
    "/t/\xe9",
    "/t#fragment",
    "/T",
    "/tt",
    "/t;p=1",
    "/t/deep/er",
    "/t/deep/er/x",
    "/t/deep/other",
    "/user/a@b/x",
    "/user/a%40b/x",
    "/user/%E7%A7%80%E6%A8%B9/x",
    "/has%20space/x",
    "/has+space",
    "/base",
    "/base/x?y",
    "/base/",
    "/slash/x",
    "/slash",
    "/query/x?y=1",
    "/query",
    "/",
    "/nowhere",
    "/nowhere?secret=1",
    "/dead/x",
    "/toString",
    "/_chp_healthz",
    "/_chp_healthz?x",
    "/_chp_healthz/",
    "/t/" + "x" * 5000,
    "http://proxy.test/t/absolute",
    "http://other.test:81/t?absolute",
    "*",
    "t/relative",
]

METHODS = (
    "HEAD POST PUT PATCH DELETE OPTIONS PROPFIND MKCOL LINK PURGE SEARCH REPORT QUERY TRACE "
    "CONNECT BREW get X"
).split()

MALFORMED = {
    "nonsense": b"nonsense\r\n\r\n",
    "no version": b"GET /t\r\n\r\n",
    "HTTP/0.9": b"GET /t HTTP/0.9\r\nHost: a\r\n\r\n",
    "HTTP/1.2": b"GET /t HTTP/1.2\r\nHost: a\r\n\r\n",
    "HTTP/2.0": b"GET /t HTTP/2.0\r\nHost: a\r\n\r\n",
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "lower case http": b"GET /t http/1.1\r\nHost: a\r\n\r\n",
    "no host": b"GET /t HTTP/1.1\r\n\r\n",
    "two hosts": b"GET /t HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "two spaces in the request line": b"GET  /t  HTTP/1.1\r\nHost: a\r\n\r\n",
    "empty line first": b"\r\nGET /t HTTP/1.1\r\nHost: a\r\n\r\n",
    "line feeds only": b"GET /t HTTP/1.1\nHost: a\n\n",
    "space before the colon": b"GET /t HTTP/1.1\r\nHost: a\r\nX-A : 1\r\n\r\n",
    "no colon": b"GET /t HTTP/1.1\r\nHost: a\r\nX-A\r\n\r\n",
    "empty name": b"GET /t HTTP/1.1\r\nHost: a\r\n: 1\r\n\r\n",
    "folded": b"GET /t HTTP/1.1\r\nHost: a\r\nX-A: 1\r\n 2\r\n\r\n",
    "folded first": b"GET /t HTTP/1.1\r\n X-A: 1\r\nHost: a\r\n\r\n",
    "NUL in a value": b"GET /t HTTP/1.1\r\nHost: a\r\nX-A: a\0b\r\n\r\n",
    "bare CR in a value": b"GET /t HTTP/1.1\r\nHost: a\r\nX-A: a\rb\r\n\r\n",
    "control character in a name": b"GET /t HTTP/1.1\r\nHost: a\r\nX\x01A: 1\r\n\r\n",
    "signed length": b"POST /t HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\nx",
    "negative length": b"POST /t HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\nx",
    "length in words": b"POST /t HTTP/1.1\r\nHost: a\r\nContent-Length: one\r\n\r\nx",
    "two lengths": b"POST /t HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n"
    b"Content-Length: 2\r\n\r\nxx",
    "the same length twice": b"POST /t HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n"
    b"Content-Length: 1\r\n\r\nx",
    "listed length": b"POST /t HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\nx",
    "length and chunked": b"POST /t HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "unknown coding": b"POST /t HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n",
    "chunked twice": b"POST /t HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n"
    b"0\r\n\r\n",
    "chunked not last": b"POST /t HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n\r\n"
    b"0\r\n\r\n",
    "gzip, chunked": b"POST /t HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"
    b"3\r\nabc\r\n0\r\n\r\n",
    "chunked on HTTP/1.0": b"POST /t HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"0\r\n\r\n",
    "bad chunk size": b"POST /t HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
    "chunk longer than its size": b"POST /t HTTP/1.1\r\nHost: a\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n0\r\n\r\n",
    "headers of 20 KB": b"GET /t HTTP/1.1\r\nHost: a\r\nX-A: " + b"x" * 20000 + b"\r\n\r\n",
}


def expects(exchange: Exchange) -> None:
    """Send 100 Continue and echo the body."""
    exchange.send(b"HTTP/1.1 100 Continue\r\n\r\n")
    exchange.send(response(exchange.read_body()))


def _body_cases() -> list[Case]:
    coded = chunked(b"abc", b"defg")
    trailed = chunked(b"abc", trailers="X-After: 1\r\n")
    te = "Transfer-Encoding: chunked"
    cases = [
        Case(f"body with a length, {method}", request(method=method, body=b"abc"))
        for method in "GET HEAD POST PUT PATCH DELETE OPTIONS PROPFIND".split()
    ]
    cases += [
        Case(f"chunked body, {method}", request("/t", te, method=method, body=coded))
        for method in "GET POST PUT PATCH DELETE OPTIONS PROPFIND".split()
    ]
    cases += [
        Case(f"no body, {method}", request(method=method)) for method in "POST PUT PATCH".split()
    ]
    smuggled = request("/t/smuggled")
    return [
        *cases,
        Case("length 0", request("/t", "Content-Length: 0", method="POST")),
        Case("body of 200 KB", request(method="POST", body=bytes(200_000))),
        Case("chunked body of 128 KB",
             request("/t", te, method="POST", body=chunked(bytes(2**17)))),
        Case("trailers", request("/t", te, "Trailer: X-After", method="POST", body=trailed)),
        Case("unannounced trailers", request("/t", te, method="POST", body=trailed)),
        Case("chunk extension", request("/t", te, method="POST", body=b"1;a=b\r\nx\r\n0\r\n\r\n")),
        Case("chunk size in capitals", request("/t", te, method="POST", body=b"A\r\n0123456789\r\n"
             b"0\r\n\r\n")),
        Case("Chunked in capitals", request("/t", "Transfer-Encoding: CHUNKED", method="POST",
             body=coded)),
        Case("gzip body", request("/t", "Content-Encoding: gzip", method="POST", body=b"\x1f\x8b")),
        Case("expectation", request("/t", "Expect: 100-continue", method="POST", body=b"abc"),
             expects),
        Case("expectation without a body", request("/t", "Expect: 100-continue")),
        Case("unknown expectation", request("/t", "Expect: miracles", method="POST", body=b"abc")),
        Case("smuggled in a chunked DELETE",
             request("/t", te, method="DELETE", body=chunked(smuggled))),
        Case("smuggled in a chunked OPTIONS",
             request("/t", te, method="OPTIONS", body=chunked(smuggled))),
        Case("three pipelined", request("/t/1") + request("/t/2", method="POST", body=b"two")
             + request("/t/3"), answers=3),
        Case("pipelined behind an error", request("/nowhere") + request("/t"), answers=2),
        Case("pipelined behind close", request("/t", "Connection: close") + request("/t/2")),
        Case("body to nowhere", request("/nowhere", method="POST", body=b"abc")),
        Case("body to the dead", request("/dead", method="POST", body=b"abc")),
    ]  # fmt: skip


def _version_cases() -> list[Case]:
    reply = response(b"ok")
    streamed = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(b"ab", b"c")
    return [
        Case("HTTP/1.0", request(version="1.0"), reply),
        Case("HTTP/1.0 without host", request(version="1.0", host=None), reply),
        Case("HTTP/1.0 keep-alive", request("/t", "Connection: keep-alive", version="1.0"), reply),
        Case("HTTP/1.0 close", request("/t", "Connection: close", version="1.0"), reply),
        Case("HTTP/1.0, chunked answer", request(version="1.0"), streamed),
        Case("HTTP/1.0 keep-alive, chunked answer",
             request("/t", "Connection: keep-alive", version="1.0"), streamed),
        Case("HTTP/1.0 with a body", request(version="1.0", method="POST", body=b"abc"), reply),
        Case("HTTP/1.0 to nowhere", request("/nowhere", version="1.0")),
    ]  # fmt: skip


def _named(line: str) -> str:
    return line.replace("\r\n", " | ").encode("unicode_escape").decode()[:60]


CASES = [
    Case("plain request", request()),
    *(Case(f"header: {_named(line)}", request("/t", line)) for line in HEADER_LINES),
    *(Case(f"host: {host!r}", request(host=host)) for host in HOSTS),
    *(Case(f"target: {_named(target)}", request(target)) for target in TARGETS),
    *(Case(f"method: {method}", request(method=method)) for method in METHODS),
    Case("OPTIONS *", request("*", method="OPTIONS")),
    *(Case(f"malformed: {name}", sent) for name, sent in MALFORMED.items()),
    *_body_cases(),
    *_version_cases(),
]
