"""A kernel and a terminal of a user's Jupyter server, as JupyterLab uses them."""

from __future__ import annotations

import json
import os
import signal
import uuid
from collections.abc import Iterator

import pytest

from tests.kit.hub import CONFIG, USER, Hub, running_hub
from tests.kit.jupyter import ANSWER_TIMEOUT, V1, Kernel, Server, running
from tests.kit.peers import wait_until

pytest.importorskip("ipykernel")
pytest.importorskip("jupyter_server_terminals")
pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """A hub whose proxy has two workers, however many CPUs there are."""
    with running_hub(Hub(tmp_path_factory.mktemp("hub"), CONFIG, "--workers", "2")) as hub:
        yield hub


@pytest.fixture(scope="module")
def server(hub: Hub) -> Iterator[Server]:
    """A user's server, which is stopped in the end."""
    yield Server(hub)
    assert hub.api("DELETE", f"/users/{USER}/server").status_code in (202, 204)
    wait_until(lambda: f"/user/{USER}" not in hub.routes(), 30, "the route is gone")


def test_code_runs_in_a_kernel(server: Server, hub: Hub) -> None:
    with running(server, "kernels", "id", name="python3") as kernel_id:
        channels = f"/api/kernels/{kernel_id}/channels?session_id={uuid.uuid4().hex}"
        with server.open(channels, V1) as socket:
            assert socket.subprotocol == V1
            kernel = Kernel(socket)
            assert kernel.execute("1+1")["text/plain"] == "2"
            assert kernel.execute("big = 'x' * 3_000_000; len(big)")["text/plain"] == "3000000"
            assert len(kernel.execute("big")["text/plain"]) == 3_000_002

            before = hub.routes()[f"/user/{USER}"]["last_activity"]
            # Nothing but what goes through the tunnel counts here.
            wait_until(
                lambda: (
                    kernel.execute("1+1")
                    and hub.routes()[f"/user/{USER}"]["last_activity"] > before
                ),
                10,
                "messages of the kernel are activity",
            )
        with server.open(channels) as socket:
            assert socket.subprotocol is None
            assert Kernel(socket).execute("1+1")["text/plain"] == "2"


@pytest.mark.ours
def test_a_kernel_outlives_upgrades_of_the_proxy_that_the_hub_has_started(
    server: Server, hub: Hub
) -> None:
    proxy = int((hub.folder / "proxy.pid").read_text())
    with running(server, "kernels", "id", name="python3") as kernel_id:
        channels = f"/api/kernels/{kernel_id}/channels?session_id={uuid.uuid4().hex}"
        with server.open(channels, V1) as socket:
            kernel = Kernel(socket)
            kernel.execute("kept = 42")
            for number in (1, 2):
                os.kill(proxy, signal.SIGHUP)
                wait_until(
                    lambda n=number: hub.log().count("reloaded: 2 new workers serve") == n,  # type: ignore[misc]
                    60,
                    lambda: f"the proxy is another version:\n{hub.log()}",
                )
                assert kernel.execute("kept")["text/plain"] == "42"
        with server.open(channels, V1) as socket:
            assert Kernel(socket).execute("kept + 1")["text/plain"] == "43"
    assert hub.process.poll() is None
    assert "Proxy stopped" not in hub.log()


def test_a_command_runs_in_a_terminal(server: Server) -> None:
    with (
        running(server, "terminals", "name") as name,
        server.open(f"/terminals/websocket/{name}") as socket,
    ):
        socket.send(json.dumps(["set_size", 24, 80]))
        # What is typed is shown as well; only the shell makes 42 of it.
        socket.send(json.dumps(["stdin", "echo result-$((40 + 2))\r"]))
        shown = ""
        while "result-42" not in shown:
            kind, *content = json.loads(socket.recv(ANSWER_TIMEOUT))
            if kind == "stdout":
                shown += content[0]
