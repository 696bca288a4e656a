"""The redirect from HTTP to HTTPS."""

from __future__ import annotations

import pytest

from chp_gevent.proxy.redirect import Redirect
from tests.kit.api_calls import call_wsgi, conforming


@pytest.mark.parametrize(
    ("host", "target", "location"),
    [
        ("h", "/", "https://h:8443/"),
        ("h:80", "/a/b?c=d&e", "https://h:8443/a/b?c=d&e"),
        ("Host.Example:8000", "/%ff//x", "https://Host.Example:8443/%ff//x"),
        ("127.0.0.1:1", "/", "https://127.0.0.1:8443/"),
        ("[::1]:80", "/", "https://[::1]:8443/"),
        ("[::1]", "/", "https://[::1]:8443/"),
        ("h", "http://elsewhere/q?x", "https://h:8443/q?x"),
        ("h", "http://elsewhere", "https://h:8443/"),
        ("h", "*", "https://h:8443/"),
        ("h", "/\xe9", "https://h:8443/%E9"),
        ("h", "//evil.example/", "https://h:8443//evil.example/"),
    ],
)
def test_every_request_is_sent_to_the_same_place_over_https(
    host: str, target: str, location: str
) -> None:
    answer = call_wsgi(Redirect(8443, 8443), "GET", target, HTTP_HOST=host)
    assert answer == (301, [("Location", location)], b"")


@pytest.mark.parametrize(
    ("to_port", "listen_port", "location"),
    [
        (443, 443, "https://h/x"),
        (443, 8443, "https://h:443/x"),  # as CHP with --redirect-to 443
        (443, None, "https://h:443/x"),
        (8443, 443, "https://h:8443/x"),
    ],
)
def test_the_port_is_left_out_only_where_chp_leaves_it_out(
    to_port: int, listen_port: int | None, location: str
) -> None:
    answer = call_wsgi(Redirect(to_port, listen_port), "GET", "/x", HTTP_HOST="h")
    assert dict(answer.headers)["Location"] == location


def test_without_a_host_there_is_nowhere_to_go() -> None:
    def no_host(environ: dict[str, object], start_response: object) -> object:
        del environ["HTTP_HOST"]
        return Redirect(8443, 8443)(environ, start_response)  # type: ignore[arg-type]

    assert call_wsgi(no_host, "GET", "/") == (
        400,
        [],
        b"This server is HTTPS-only on port 8443, but an HTTP request was made and the host could "
        b"not be determined from the request.",
    )


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_it_is_a_wsgi_application(method: str) -> None:
    assert call_wsgi(conforming(Redirect(8443, 8443)), method, "/", HTTP_HOST="h").status == 301
