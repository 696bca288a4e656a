"""Where a request is to be asked again over HTTPS."""

from __future__ import annotations

import pytest

from chp_gevent.http.https_location import https_location


@pytest.mark.parametrize(
    ("host", "port", "target", "location"),
    [
        ("h", "", "/a?b=c", "https://h/a?b=c"),
        ("h:80", "", "/", "https://h/"),
        ("[::1]:80", ":8443", "/", "https://[::1]:8443/"),
        ("h", "", "http://elsewhere/q?x", "https://h/q?x"),
        ("h", "", "*", "https://h/"),
        ("h", "", "/\xe9", "https://h/%E9"),
        ("h", "", "//evil.example/", "https://h//evil.example/"),
    ],
)
def test_it_is_the_same_place(host: str, port: str, target: str, location: str) -> None:
    assert https_location(host, port, target) == location
