"""Two servers that share their routes behind HAProxy, as docs/how-to/several-machines.md has it."""

from __future__ import annotations

import shutil
import signal
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import requests

from tests.kit.api_client import ApiClient
from tests.kit.engine import Engine
from tests.kit.hub import CONFIG, PROXY_TOKEN, USER, Hub, log_in, running_hub
from tests.kit.pages import DOCS, blocks, section
from tests.kit.peers import EchoTarget, RawClient, get, wait_until
from tests.kit.server import TOKEN, Proxy, free_ports, port_pair, start_proxy
from tests.kit.shared_servers import LEASE, engine_fixture, is_current, needs_redis, paths

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
    def server(self, number: int) -> Iterator[Proxy]:
        """Run one of the servers until the block ends."""
        port = self.ports[number]
        with start_proxy(
            *("--ip", "127.0.0.1", "--port", str(port), "--trusted-proxies", "127.0.0.1"),
            *("--api-ip", "127.0.0.1", "--api-port", str(port + 1)),
            *("--storage-backend", self._engine.url, "--storage-lease", str(LEASE)),
            own_addresses=True,
            token=self._token,
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


def test_servers_are_restarted_upgraded_and_lost_one_after_the_other(balancer: Balancer) -> None:
    with ExitStack() as stack:
        target = stack.enter_context(EchoTarget("t"))
        with ExitStack() as first:
            one = first.enter_context(balancer.server(0))
            two = stack.enter_context(balancer.server(1))
            wait_until(lambda: balancer.status("/_chp_ready") == 200, 10, "HAProxy has seen them")
            wait_until(lambda: api_answers(balancer), 10, "and their APIs")
            balancer.api.add("/kept", target.url)
            with asking(balancer, "/kept") as answers:
                # In turn, the API calls come to both.
                for number in range(20):
                    balancer.api.add(f"/r{number}", target.url)
                assert paths(one) == paths(two)
                assert len(paths(one)) == 21
                two.signal(signal.SIGHUP)
                two.wait_for_log("reloaded: ", 30)
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

    def __init__(self, folder: Path, balancer: Balancer) -> None:
        text = CONFIG.replace("{port}", str(balancer.public))
        text = text.replace("{api_port}", str(balancer.api_port))
        super().__init__(folder, text + "c.ConfigurableHTTPProxy.should_start = False\n")
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
        browser = log_in(hub)
        hub.spawn()
        path = f"/user/{USER}"
        page = f"{hub.url}{path}/api/contents"

        def works() -> bool:
            return browser.get(page, timeout=30).status_code == 200

        # Sends the browser round by the hub's OAuth; it comes back with a cookie.
        (hub.folder / "home" / USER / "note.txt").write_text("from the user's server")
        note = browser.get(f"{hub.url}{path}/files/note.txt", timeout=30)
        assert note.text == "from the user's server"
        assert works()
        assert path in paths(first)
        assert path in paths(second)
        # Activity through either of them is what the hub, and its culler, see.
        for proxy in (first, second):
            before = hub.routes()[path]["last_activity"]
            assert browser.get(page.replace(hub.url, proxy.url), timeout=30).status_code == 200
            wait_until(
                lambda b=before: hub.routes()[path]["last_activity"] > b,  # type: ignore[misc]
                5,
                "activity is seen",
            )
        first.kill()
        wait_until(works, 10, "the other server answers")
        engine.kill()
        assert works()
        engine.start()
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
