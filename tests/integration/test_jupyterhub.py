"""A real JupyterHub runs on our command: log in, spawn, use, stop."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.hub import USER, Hub, log_in, running_hub
from tests.kit.peers import wait_until

pytest.importorskip("jupyterhub")
pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    """A JupyterHub whose proxy is our command."""
    with running_hub(Hub(tmp_path)) as hub:
        yield hub


def test_a_user_logs_in_spawns_uses_and_stops_a_server(hub: Hub) -> None:
    assert hub.routes()["/"]["hub"] is True
    browser = log_in(hub)

    assert hub.api("POST", f"/users/{USER}/server").status_code in (201, 202)
    path = f"/user/{USER}"
    wait_until(lambda: path in hub.routes(), 60, lambda: f"a route to the server:\n{hub.log()}")
    route = hub.routes()[path]
    assert route["user"] == USER
    assert route["jupyterhub"] is True
    wait_until(
        lambda: hub.api("GET", f"/users/{USER}").json()["servers"][""]["ready"],
        60,
        "the server is ready",
    )

    # Sends the browser round by the hub's OAuth; it comes back with a cookie.
    (hub.folder / "home" / USER / "note.txt").write_text("from the user's server")
    page = browser.get(f"{hub.url}{path}/files/note.txt", timeout=30)
    assert page.text == "from the user's server"
    before = hub.routes()[path]["last_activity"]
    stamp = time.time() + 0.01
    wait_until(lambda: time.time() > stamp, 1, "the clock has gone on")
    contents = browser.get(f"{hub.url}{path}/api/contents", timeout=30)
    assert contents.json()["type"] == "directory", json.dumps(contents.json())
    assert hub.routes()[path]["last_activity"] > before

    assert hub.api("DELETE", f"/users/{USER}/server").status_code in (202, 204)
    wait_until(lambda: path not in hub.routes(), 30, "the route is gone")
    gone = browser.get(f"{hub.url}{path}/api/status", timeout=30)
    assert gone.status_code == 424, "the hub answers now: this server is not running"
