"""JupyterHub with internal_ssl, and with subdomain_host, on our command."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import requests

pytest.importorskip("jupyterhub")

from tests.kit.hub import CONFIG, PROXY_TOKEN, USER, Hub, log_in, running_hub
from tests.kit.peers import wait_until

pytestmark = pytest.mark.timeout(180)

DOMAIN = "hub.test"
CERTIFICATES = "internal-ssl"

INTERNAL_SSL = f"""
c.JupyterHub.internal_ssl = True
c.JupyterHub.internal_certs_location = "{{folder}}/{CERTIFICATES}"
"""
SUBDOMAINS = f"""
c.JupyterHub.subdomain_host = "http://{DOMAIN}:{{port}}"
"""


class InternalSslHub(Hub):
    """A hub, a proxy's API and users' servers that all want certificates of each other."""

    def routes(self) -> dict[str, Any]:
        """Return the proxy's table, as the hub itself reads it."""
        folder = self.folder / CERTIFICATES
        name = folder / "hub-internal" / "hub-internal"
        answer = requests.get(
            f"https://127.0.0.1:{self.api_port}/api/routes",
            headers={"Authorization": f"token {PROXY_TOKEN}"},
            cert=(f"{name}.crt", f"{name}.key"),
            verify=str(folder / "hub-ca_trust.crt"),
            timeout=10,
        )
        answer.raise_for_status()
        return dict(answer.json())


class SubdomainHub(Hub):
    """A hub whose users have host names of their own."""

    def __init__(self, folder: Path, config_text: str = CONFIG) -> None:
        super().__init__(folder, config_text)
        self.url = f"http://{DOMAIN}:{self.port}"


StartHub = Callable[[type[Hub], str], Hub]


@pytest.fixture
def start_hub(tmp_path: Path) -> Iterator[StartHub]:
    """A function that starts a hub of a class with a configuration of its own."""
    with ExitStack() as hubs:
        yield lambda kind, config: hubs.enter_context(running_hub(kind(tmp_path, config)))


def spawned_route(hub: Hub, route: str) -> dict[str, Any]:
    """Have the hub start the user's server; return its route when it is ready."""
    hub.spawn()
    wait_until(lambda: route in hub.routes(), 60, lambda: f"a route {route}:\n{hub.log()}")
    return dict(hub.routes()[route])


def test_internal_ssl_encrypts_and_verifies_every_connection(start_hub: StartHub) -> None:
    config = CONFIG + INTERNAL_SSL
    for port in ("hub_port", "api_port"):
        config = re.sub(rf"http(://127\.0\.0\.1:\{{{port}\}})", r"https\1", config)
    hub = start_hub(InternalSslHub, config)
    assert hub.routes()["/"]["target"].startswith("https://127.0.0.1")

    trust = str(hub.folder / CERTIFICATES / "hub-ca_trust.crt")
    with pytest.raises(requests.exceptions.ConnectionError):  # no certificate of ours
        requests.get(f"https://127.0.0.1:{hub.api_port}/api/routes", verify=trust, timeout=10)

    browser = log_in(hub)
    route = spawned_route(hub, f"/user/{USER}")
    assert route["target"].startswith("https://127.0.0.1")
    (hub.folder / "home" / USER / "note.txt").write_text("over TLS")
    page = browser.get(f"{hub.url}/user/{USER}/files/note.txt", timeout=30)
    assert page.text == "over TLS", hub.log()

    # An error page, too, comes from the hub over mutual TLS.
    start = len(hub.log())
    missing = browser.get(f"{hub.url}/services/none/x", timeout=30)
    assert missing.status_code == 404
    assert "Failed to get custom error page" not in hub.log()[start:]

    assert hub.api("DELETE", f"/users/{USER}/server").status_code in (202, 204)
    wait_until(lambda: f"/user/{USER}" not in hub.routes(), 30, "the route is gone")


def test_subdomain_host_gives_each_user_a_host(
    start_hub: StartHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    look_up = socket.getaddrinfo

    def with_domain(host: Any, *args: Any, **options: Any) -> Any:
        ours = isinstance(host, str) and host.endswith(DOMAIN)
        return look_up("127.0.0.1" if ours else host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", with_domain)
    hub = start_hub(SubdomainHub, CONFIG + SUBDOMAINS)
    assert hub.routes()["/"]["hub"] is True

    browser = log_in(hub)
    route = f"/{USER}.{DOMAIN}/user/{USER}"
    assert spawned_route(hub, route)["host"] == f"{USER}.{DOMAIN}"
    (hub.folder / "home" / USER / "note.txt").write_text("on its own host")
    own = f"http://{USER}.{DOMAIN}:{hub.port}"
    page = browser.get(f"{own}/user/{USER}/files/note.txt", timeout=30)
    assert page.text == "on its own host", hub.log()
    assert page.url.startswith(own)
    # The user's path leads nowhere but to the hub on another host.
    other = browser.get(f"{hub.url}/user/{USER}/api/status", timeout=30, allow_redirects=False)
    assert other.status_code in (302, 424)

    assert hub.api("DELETE", f"/users/{USER}/server").status_code in (202, 204)
    wait_until(lambda: route not in hub.routes(), 30, "the route is gone")
