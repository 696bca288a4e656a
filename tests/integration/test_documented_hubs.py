"""The hubs that the documentation sets up, with the configuration that it shows."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

pytest.importorskip("jupyterhub")

from tests.kit.hub import CONFIG, PROXY_TOKEN, USER, Hub, log_in, running_hub
from tests.kit.pages import DOCS, blocks, section
from tests.kit.server import start_proxy

pytestmark = [pytest.mark.ours, pytest.mark.timeout(180)]


def shown(page: str, heading: str, instead: dict[str, str]) -> str:
    """Return the Python block under a heading, with other things in the place of some."""
    (text,) = blocks(section(DOCS / page, heading), "python")
    for theirs, here in instead.items():
        assert theirs in text
        text = text.replace(theirs, here)
    return text


def test_the_hub_of_the_first_steps_serves_its_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    places = {"127.0.0.1:8000": "127.0.0.1:{port}", "only for a trial": "{password}"}
    config = CONFIG + shown("tutorial.md", "A hub", places)
    with running_hub(Hub(tmp_path, config)) as hub:
        assert f"[ConfigProxy] info: Proxying http://127.0.0.1:{hub.port}" in hub.log()
        browser = log_in(hub)
        hub.spawn()
        (hub.folder / "home" / USER / "note.txt").write_text("a first step")
        page = browser.get(f"{hub.url}/user/{USER}/files/note.txt", timeout=30)
        assert page.text == "a first step", hub.log()


def test_the_proxy_as_a_service_serves_on_without_the_hub(tmp_path: Path) -> None:
    with start_proxy(token=PROXY_TOKEN) as proxy:
        places = {"127.0.0.1:8001": f"127.0.0.1:{proxy.api_port}"}
        config = CONFIG + shown("how-to/systemd.md", "Give the hub the token", places)
        config += f'c.JupyterHub.bind_url = "{proxy.url}"\n'
        hub = Hub(tmp_path, config)
        hub.url, hub.api_port = proxy.url, proxy.api_port
        with running_hub(hub):
            log_in(hub)
        assert list(hub.routes()) == ["/"], "the hub is gone, its route is not"
