"""Cases that need flags: each runs on a server started with those of its group."""

from __future__ import annotations

from dataclasses import replace

from scripts.lib.compare.case import Case, request
from scripts.lib.compare.response_cases import UPGRADE, switches
from tests.kit.peers.raw_target import Exchange, response


def redirect(location: str, status: str = "302 Found") -> bytes:
    """Return a redirect; the address of the target is put in at ``TARGET``."""
    return response(b"", status, [("Location", location)])


LOCATIONS = [
    "http://TARGET/x?y=1",
    "http://TARGET",
    "http://other.test/x",
    "/relative/x",
    "//TARGET/x",
    "https://TARGET/x",
    "http://TARGET/caf%C3%A9 and space",
]


def never(exchange: Exchange) -> None:
    """Do not answer."""
    exchange.read_body()
    exchange.receive(1)


def _in_group(group: str, *cases: Case) -> list[Case]:
    return [replace(case, name=f"{group}: {case.name}", group=group) for case in cases]


def _rewrites(group: str) -> list[Case]:
    cases = [Case(f"Location {to}", request(), redirect(to)) for to in LOCATIONS]
    cases += [
        Case(f"status {status}", request(), redirect("http://TARGET/x", status))
        for status in ("200 OK", "201 Created", "301 Moved", "303 See Other", "304 Not Modified",
                       "307 Temporary Redirect", "308 Permanent Redirect")
    ]  # fmt: skip
    cases.append(Case("port in Host", request(host="proxy.test:81"), redirect("http://TARGET/x")))
    return _in_group(group, *cases)


CASES = [
    *_in_group(
        "no x-forward",
        Case("plain", request()),
        Case("sent by the client", request("/t", "X-Forwarded-For: 1.2.3.4")),
        Case("upgrade", request("/t", *UPGRADE), switches),
    ),
    *_in_group(
        "no prefix",
        *(Case(path, request(path)) for path in (
            "/t", "/t/", "/t/x?y=1", "/t?y=1", "/base/x", "/user/a@b/x", "/user/a%40b/x",
            "/has%20space/x", "/t%2Fx", "/t//x", "/t/../t/x",
        )),
        Case("upgrade", request("/t/ws", *UPGRADE), switches),
    ),
    *_in_group(
        "no prepend",
        *(Case(path, request(path)) for path in ("/t", "/base", "/base/x?y", "/slash", "/query/x")),
    ),
    *_in_group(
        "change origin",
        Case("plain", request()),
        Case("with a port", request(host="proxy.test:8000")),
        Case("HTTP/1.0 without host", request(version="1.0", host=None)),
        Case("upgrade", request("/t", *UPGRADE), switches),
    ),
    *_in_group(
        "custom header",
        Case("plain", request()),
        Case("sent by the client too", request("/t", "x-own: theirs", "Accept: c/d")),
        Case("upgrade", request("/t", *UPGRADE), switches),
    ),
    *_rewrites("auto rewrite"),
    *_rewrites("protocol rewrite"),
    *_rewrites("both rewrites"),
    *_in_group(
        "host routing",
        *(Case(f"{host}{path}", request(path, host=host)) for host, path in (
            ("proxy.test", "/x"), ("proxy.test:8000", "/"), ("PROXY.test", "/x"),
            ("other.test", "/sub/x"), ("other.test", "/x"), ("unknown.test", "/x"),
            ("t", "/x"), ("", "/x"), ("proxy.test.", "/x"),
        )),
        Case("HTTP/1.0 without host", request("/t", version="1.0", host=None)),
        Case("OPTIONS of a host", request("http://proxy.test", method="OPTIONS")),
    ),
    *_in_group(
        "error path",
        Case("own page", request("/nowhere")),
        Case("general page", request("/dead")),
        Case("malformed path", request("/%")),
    ),
    *_in_group(
        "error target",
        *(Case(path, request(path), response(b"page", "200 OK", [
            ("Content-Type", "text/x"), ("Content-Encoding", "x"), ("Set-Cookie", "a=1"),
        ])) for path in ("/nowhere", "/nowhere/a%20b?c=d&e=%26", "/dead/x", "/%")),
    ),
    *_in_group("proxy timeout", Case("no answer", request(), never)),
]  # fmt: skip
