"""Two servers that share their routes behind HAProxy, as docs/how-to/several-machines.md has it."""

from __future__ import annotations

import shutil
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import requests

from tests.kit.api_client import ApiClient
from tests.kit.engine import Engine
from tests.kit.hub import CONFIG, PROXY_TOKEN, USER, Hub, running_hub
from tests.kit.jupyter import Server
from tests.kit.pages import DOCS, blocks, section
from tests.kit.peers import EchoTarget, RawClient, get, wait_until
from tests.kit.server import TOKEN, Proxy, free_ports, port_pair, start_proxy
from tests.kit.shared_servers import LEASE, engine_fixture, is_current, needs_redis, paths
from tests.kit.versions import Installation

HAPROXY = shutil.which("haproxy", path="/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin")

pytestmark = [
    pytest.mark.ours,
    needs_redis,
    pytest.mark.skipif(HAPROXY is None, reason="needs haproxy"),
]

__all__ = ["engine_fixture"]


class Balancer:
    """HAProxy in front of two servers, whose ports stay the same when they are started again."""

    def __init__(self, engine: Engine, token: str = TOKEN) -> None:
        self._engine = engine
        self._token = token
        self.public, self.api_port = free_ports(2)
        self.ports = [port_pair() for _ in range(2)]
        self.api = ApiClient(f"http://127.0.0.1:{self.api_port}", token)

    def config(self) -> str:
        """Return what the page shows, with addresses of this machine."""
        page = section(DOCS / "how-to" / "several-machines.md", "HAProxy")
        (text,) = blocks(page, "haproxy")
        first, second = self.ports
        for theirs, here in {
            "bind :80": f"bind 127.0.0.1:{self.public}",
            "bind 10.0.0.8:8001": f"bind 127.0.0.1:{self.api_port}",
            "10.0.0.1:8000": f"127.0.0.1:{first}",
            "10.0.0.1:8001": f"127.0.0.1:{first + 1}",
            "10.0.0.2:8000": f"127.0.0.1:{second}",
            "10.0.0.2:8001": f"127.0.0.1:{second + 1}",
        }.items():
            assert text.count(theirs) == 1, theirs
            text = text.replace(theirs, here)
        return text

    @contextmanager
    def server(self, number: int, command: Sequence[str] | None = None) -> Iterator[Proxy]:
        """Run one of the servers until the block ends."""
        port = self.ports[number]
        with start_proxy(
            *("--ip", "127.0.0.1", "--port", str(port), "--trusted-proxies", "127.0.0.1"),
            *("--api-ip", "127.0.0.1", "--api-port", str(port + 1)),
            *("--storage-backend", self._engine.url, "--storage-lease", str(LEASE)),
            own_addresses=True,
            token=self._token,
            command=command,
            workers=1 if command is None else None,
        ) as proxy:
            wait_until(lambda: is_current(proxy), 10, "it is current")
            yield proxy

    def status(self, path: str) -> int:
        return requests.get(f"http://127.0.0.1:{self.public}{path}", timeout=10).status_code


@contextmanager
def balancing(balancer: Balancer, folder: Path) -> Iterator[Balancer]:
    """Run HAProxy; its servers are not there yet."""
    config = folder / "haproxy.cfg"
    config.write_text(balancer.config())
    assert HAPROXY is not None
    subprocess.run([HAPROXY, "-c", "-f", str(config)], check=True, capture_output=True)
    with subprocess.Popen([HAPROXY, "-f", str(config)], stderr=subprocess.DEVNULL) as process:
        try:
            yield balancer
        finally:
            process.terminate()


@pytest.fixture
def balancer(engine: Engine, tmp_path: Path) -> Iterator[Balancer]:
    """HAProxy in front of servers with the usual token."""
    with balancing(Balancer(engine), tmp_path) as balancer:
        yield balancer


@contextmanager
def asking(balancer: Balancer, path: str) -> Iterator[Counter[str]]:
    """Ask for a page all the time, on connections that are kept; yields what the answers were."""
    answers: Counter[str] = Counter()
    ended = threading.Event()

    def ask() -> None:
        with requests.Session() as session:
            while not ended.wait(0.01):
                try:
                    answer = session.get(f"http://127.0.0.1:{balancer.public}{path}", timeout=10)
                    answers[str(answer.status_code)] += 1
                except requests.RequestException as error:
                    answers[repr(error)] += 1

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        yield answers
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def test_servers_are_restarted_upgraded_and_lost_one_after_the_other(
    balancer: Balancer, tmp_path: Path
) -> None:
    installed = Installation(tmp_path)
    with ExitStack() as stack:
        target = stack.enter_context(EchoTarget("t"))
        with ExitStack() as first:
            one = first.enter_context(balancer.server(0))
            two = stack.enter_context(balancer.server(1, installed.command))
            wait_until(lambda: balancer.status("/_chp_ready") == 200, 10, "HAProxy has seen them")
            wait_until(lambda: api_answers(balancer), 10, "and their APIs")
            balancer.api.add("/kept", target.url)
            with asking(balancer, "/kept") as answers:
                # In turn, the API calls come to both.
                for number in range(20):
                    balancer.api.add(f"/r{number}", target.url)
                assert paths(one) == paths(two)
                assert len(paths(one)) == 21
                installed.install("99.0")
                two.signal(signal.SIGUSR2)
                two.wait_for_log("took over from version", 30)
                two.wait_for_log("reloaded: ", 30)
                balancer.api.add("/upgraded", target.url)
                assert "/upgraded" in paths(one) & paths(two)
                first.close()  # a clean stop of the first one
                balancer.api.add("/meanwhile", target.url)
                one = stack.enter_context(balancer.server(0))
                assert "/meanwhile" in paths(one)
                wait_until(lambda: answers["200"] > 300, 20, "requests are answered")
            assert set(answers) == {"200"}
        # One dies. What is in flight on it breaks off; all that comes later is answered.
        two.kill()
        wait_until(lambda: balancer.status("/kept") == 200, 5, "the other one answers")
        balancer.api.add("/after", target.url)
        assert [balancer.status(path) for path in ("/kept", "/after", "/r7")] == [200] * 3


def api_answers(balancer: Balancer) -> bool:
    try:
        return balancer.api.get(f"{balancer.api.url}/api/routes", timeout=5).status_code == 200
    except requests.RequestException:
        return False


def test_without_the_engine_no_server_is_taken_out(balancer: Balancer, engine: Engine) -> None:
    with EchoTarget("t") as target, balancer.server(0), balancer.server(1):
        wait_until(lambda: balancer.status("/_chp_ready") == 200, 10, "HAProxy has seen them")
        wait_until(lambda: api_answers(balancer), 10, "and their APIs")
        balancer.api.add("/kept", target.url)
        engine.kill()
        wait_until(lambda: not api_answers(balancer), 15, "no server is current")
        with RawClient(("127.0.0.1", balancer.public)) as client:
            for _ in range(20):
                assert client.request(get("/kept")).status == 200
        engine.start()
        wait_until(lambda: api_answers(balancer), 15, "they are current again")
        balancer.api.add("/after", target.url)


# -- a hub


class HubBehindHaproxy(Hub):
    """A hub that starts no proxy: it talks to any of the servers, through HAProxy."""

    def __init__(self, folder: Path, balancer: Balancer, more: str = "") -> None:
        text = CONFIG.replace("{port}", str(balancer.public))
        text = text.replace("{api_port}", str(balancer.api_port))
        super().__init__(folder, f"{text}\nc.ConfigurableHTTPProxy.should_start = False\n{more}")
        self.port, self.api_port = balancer.public, balancer.api_port
        self.url = f"http://127.0.0.1:{self.port}"


@pytest.mark.timeout(240)
def test_a_user_keeps_working_whatever_is_lost(engine: Engine, tmp_path: Path) -> None:
    pytest.importorskip("jupyterhub")
    with ExitStack() as stack:
        balancer = stack.enter_context(balancing(Balancer(engine, PROXY_TOKEN), tmp_path))
        second = stack.enter_context(balancer.server(1))
        first = stack.enter_context(balancer.server(0))
        wait_until(lambda: api_answers(balancer), 10, "HAProxy has seen them")
        hub = stack.enter_context(running_hub(HubBehindHaproxy(tmp_path, balancer)))
        server = Server(hub)
        path = f"/user/{USER}"

        def works() -> bool:
            return server.get("/api/contents").status_code == 200

        assert works()
        assert path in paths(first)
        assert path in paths(second)
        kernel = server.call("POST", "/api/kernels", name="python3")["id"]
        assert executed(server, kernel, "kept = 42; kept") == "42"
        first.kill()
        wait_until(works, 10, "the other server answers")
        # As a page does it, which connects again.
        assert executed(server, kernel, "kept") == "42"
        with server.kernel(kernel) as connected:
            engine.kill()
            assert connected.execute("kept + 1")["text/plain"] == "43"
            assert executed(server, kernel, "kept") == "42"
            assert works()
            engine.start()
            assert connected.execute("kept + 1")["text/plain"] == "43"
        wait_until(
            lambda: {"/", path} <= set(engine.client.hkeys("{chp}:routes")), 15, "it has all again"
        )
        wait_until(lambda: is_current(second), 5, "the server is current again")
        wait_until(lambda: api_answers(balancer), 5, "HAProxy has seen it")
        # The hub looks for what is missing, and finds nothing.
        begin = len(hub.log())
        assert hub.api("POST", "/proxy").status_code == 200
        assert "Adding" not in hub.log()[begin:]
        assert works()
        assert hub.api("DELETE", f"/users/{USER}/server").status_code in (202, 204)
        wait_until(lambda: path not in paths(second), 30, "the route is gone")


def executed(server: Server, kernel: str, code: str) -> str:
    """Run code on a connection of its own; return what it results in."""
    with server.kernel(kernel) as connected:
        return str(connected.execute(code)["text/plain"])


IDLE = 6.0

CULLED = """
c.JupyterHub.last_activity_interval = 1
c.JupyterHub.services.append({{
    "name": "culler",
    "command": [{python!r}, "-m", "jupyterhub_idle_culler", "--timeout=6", "--cull-every=1"],
}})
c.JupyterHub.load_roles.append({{
    "name": "culler", "services": ["culler"],
    "scopes": ["list:users", "read:users:activity", "read:servers", "delete:servers"],
}})
"""


@pytest.mark.timeout(240)
def test_the_culler_sees_activity_through_either_server(engine: Engine, tmp_path: Path) -> None:
    pytest.importorskip("jupyterhub_idle_culler")
    with ExitStack() as stack:
        balancer = stack.enter_context(balancing(Balancer(engine, PROXY_TOKEN), tmp_path))
        servers = [stack.enter_context(balancer.server(number)) for number in range(2)]
        wait_until(lambda: api_answers(balancer), 10, "HAProxy has seen them")
        hub = stack.enter_context(running_hub(HubBehindHaproxy(tmp_path, balancer, CULLED)))
        user = Server(hub)
        path = f"/user/{USER}"
        # Each is asked for longer than an idle server is left; the hub asks whichever comes.
        for proxy in servers:
            end = time.monotonic() + 2 * IDLE
            while time.monotonic() < end:
                assert user.get("/api/contents", base=proxy.url).status_code == 200
                threading.Event().wait(0.5)
            assert "Culling server" not in hub.log()
        wait_until(
            lambda: all(path not in paths(proxy) for proxy in servers),
            6 * IDLE,
            lambda: f"an idle server is culled:\n{hub.log()}",
        )
