"""A real JupyterHub whose proxy is our command, and a user who logs in."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import requests

from tests.kit import processes
from tests.kit.peers import wait_until
from tests.kit.server import CONSOLE_SCRIPT, OTHER_COMMAND, free_ports

USER = "alice"
PASSWORD = "password-of-the-tests"
ADMIN_TOKEN = "admin-token-of-the-tests"
PROXY_TOKEN = "proxy-token-of-the-tests"

CONFIG = """
import os
c.JupyterHub.bind_url = "http://127.0.0.1:{port}"
c.JupyterHub.hub_bind_url = "http://127.0.0.1:{hub_port}"
c.JupyterHub.db_url = "sqlite:///{folder}/jupyterhub.sqlite"
c.JupyterHub.cookie_secret_file = "{folder}/cookie_secret"
c.JupyterHub.authenticator_class = "dummy"
c.DummyAuthenticator.password = "{password}"
c.Authenticator.allow_all = True
c.JupyterHub.spawner_class = "simple"
c.SimpleLocalProcessSpawner.home_dir_template = "{folder}/home/{{username}}"
c.Spawner.cmd = [{python!r}, "-m", "jupyterhub.singleuser"]
c.Spawner.environment = {{"JUPYTERHUB_SINGLEUSER_APP": "jupyter_server.serverapp.ServerApp"}}
c.Spawner.args = ["--allow-root"] if os.geteuid() == 0 else []
c.Spawner.default_url = "/api/status"
c.Spawner.http_timeout = c.Spawner.start_timeout = 60
c.ConfigurableHTTPProxy.command = {command!r}
c.ConfigurableHTTPProxy.api_url = "http://127.0.0.1:{api_port}"
c.ConfigurableHTTPProxy.auth_token = "{proxy_token}"
c.ConfigurableHTTPProxy.pid_file = "{folder}/proxy.pid"
c.JupyterHub.services = [{{"name": "admin", "api_token": "{admin_token}"}}]
c.JupyterHub.load_roles = [{{
    "name": "admin-service", "scopes": ["admin:servers", "admin:users", "proxy"],
    "services": ["admin"],
}}]
"""


HubOfKind = TypeVar("HubOfKind", bound="Hub")


class Hub:
    """A running JupyterHub and the ports that it and our proxy listen on.

    ``config_text`` is its configuration, with places as ``CONFIG`` has them; ``flags`` are added to
    our command.
    """

    def __init__(self, folder: Path, config_text: str = CONFIG, *flags: str) -> None:
        self.folder = folder
        self.port, self.hub_port, self.api_port = free_ports(3)
        self.url = f"http://127.0.0.1:{self.port}"
        (folder / "home").mkdir()
        config = folder / "jupyterhub_config.py"
        config.write_text(
            config_text.format(
                port=self.port,
                hub_port=self.hub_port,
                api_port=self.api_port,
                folder=folder,
                python=sys.executable,
                command=[*(OTHER_COMMAND or CONSOLE_SCRIPT), *flags],
                password=PASSWORD,
                proxy_token=PROXY_TOKEN,
                admin_token=ADMIN_TOKEN,
            ),
            encoding="utf-8",
        )
        self.log_file = folder / "hub.log"
        with self.log_file.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "jupyterhub", "-f", str(config)],
                cwd=folder,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    def log(self) -> str:
        """Return what the hub, the proxy and the users' servers have logged."""
        return self.log_file.read_text(encoding="utf-8", errors="replace")

    def is_ready(self) -> bool:
        """Whether the hub answers through the proxy."""
        assert self.process.poll() is None, self.log()
        try:
            return requests.get(f"{self.url}/hub/api/", timeout=5).status_code == 200
        except requests.ConnectionError:
            return False

    def routes(self) -> dict[str, Any]:
        """Return the proxy's table."""
        answer = requests.get(
            f"http://127.0.0.1:{self.api_port}/api/routes",
            headers={"Authorization": f"token {PROXY_TOKEN}"},
            timeout=10,
        )
        answer.raise_for_status()
        return dict(answer.json())

    def spawn(self) -> None:
        """Have USER's server started, and wait until it is ready."""
        assert self.api("POST", f"/users/{USER}/server").status_code in (201, 202)
        wait_until(
            lambda: self.api("GET", f"/users/{USER}").json()["servers"].get("", {}).get("ready"),
            60,
            lambda: f"the server is ready:\n{self.log()}",
        )

    def api(self, method: str, path: str) -> requests.Response:
        """Call the hub's REST API as an administrator, through the proxy."""
        headers = {"Authorization": f"token {ADMIN_TOKEN}"}
        return requests.request(method, f"{self.url}/hub/api{path}", headers=headers, timeout=30)

    def stop(self) -> None:
        """Stop the hub, which stops its proxy; fail if something of it is left."""
        # The proxy and the users' servers may be in sessions of their own.
        started = [process.pid for process in processes.tree(self.process.pid)]
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
            wait_until(
                lambda: not any(map(processes.status, started)),
                10,
                lambda: f"all processes of the hub are gone:\n{self.log()}",
            )
        finally:
            for pid in started:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


@contextmanager
def running_hub(hub: HubOfKind) -> Iterator[HubOfKind]:
    """Wait until a hub that was started is ready, and stop it at the end of the block."""
    try:
        wait_until(hub.is_ready, 90, lambda: f"the hub is up:\n{hub.log()}")
        yield hub
    finally:
        hub.stop()
        shutil.rmtree(hub.folder / "home", ignore_errors=True)


def log_in(hub: Hub) -> requests.Session:
    """Log USER in with the form, as a browser does."""
    browser = requests.Session()
    page = browser.get(f"{hub.url}/hub/login", timeout=30)
    field = re.search(r'name="_xsrf"\s+value="([^"]+)"', page.text)
    assert field is not None, page.text
    answer = browser.post(
        f"{hub.url}/hub/login",
        data={"username": USER, "password": PASSWORD, "_xsrf": field[1]},
        allow_redirects=False,
        timeout=60,
    )
    assert answer.status_code == 302, answer.text
    return browser
