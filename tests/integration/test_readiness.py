"""``/_chp_ready`` of a server that shares its routes with no other."""

from __future__ import annotations

import pytest
import requests

from tests.kit.server import start_proxy

pytestmark = pytest.mark.ours


def test_a_server_that_answers_has_its_routes() -> None:
    with start_proxy("--default-target", "http://127.0.0.1:9") as proxy:
        for url in (proxy.url, proxy.api.url):
            for query in ("", "?current"):
                answer = requests.get(f"{url}/_chp_ready{query}", timeout=10)
                assert answer.status_code == 200
                assert answer.headers["Content-Type"] == "application/json"
                assert answer.json() == {"loaded": True, "current": True}
        # Anything else is for the targets.
        for path in ("/_chp_ready/", "/_chp_ready?x", "/_chp_readyx"):
            assert requests.get(f"{proxy.url}{path}", timeout=10).status_code == 503
        assert "200 GET /_chp_ready" not in proxy.log()


def test_it_is_not_redirected() -> None:
    flags = ("--redirect-http", "--trusted-proxies", "127.0.0.1")
    with start_proxy(*flags) as proxy:
        answer = proxy.get("/_chp_ready", "X-Forwarded-Proto: http")
        assert answer.status == 200
