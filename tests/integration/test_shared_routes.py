"""Several servers, one table of routes in Redis or Valkey."""

from __future__ import annotations

import itertools
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path

import pytest
import requests

from tests.kit.engine import PROGRAMS, Engine, running_engine
from tests.kit.peers import EchoTarget, wait_until
from tests.kit.processes import stopped
from tests.kit.server import Proxy, free_ports, run_to_exit, start_proxy
from tests.kit.shared_servers import (
    AGAIN,
    LEASE,
    StartServer,
    added_again,
    engine_fixture,
    is_current,
    needs_redis,
    paths,
    post,
    servers_fixture,
    start_fixture,
)

pytestmark = [pytest.mark.ours, needs_redis]

__all__ = ["engine_fixture", "servers_fixture", "start_fixture"]

# -- changes


@pytest.mark.parametrize("kind", ["redis", "valkey"])
def test_a_change_holds_on_all_servers_when_it_is_answered(tmp_path: Path, kind: str) -> None:
    if PROGRAMS[kind] is None:
        pytest.skip(f"no {kind}")
    with ExitStack() as stack:
        engine = stack.enter_context(running_engine(tmp_path, kind=kind))
        target = stack.enter_context(EchoTarget("t"))
        flags = ("--storage-backend", engine.url, "--log-level", "error")
        servers = [stack.enter_context(start_proxy(*flags)) for _ in range(3)]
        for number in range(60):
            path = f"/r{number}"
            servers[number % 3].api.add(path, target.url)
            assert [proxy.get(path).status for proxy in servers] == [200] * 3
            assert servers[(number + 1) % 3].api.remove(path) == 204
            assert [proxy.get(path).status for proxy in servers] == [404] * 3
            assert servers[(number + 2) % 3].api.remove(path) == 404
        servers[0].api.add("/kept", target.url, user="x")
        assert [proxy.api.route("/kept")["user"] for proxy in servers] == ["x"] * 3  # type: ignore[index]


def test_a_later_server_has_all_routes(start: StartServer) -> None:
    first = start("a")
    for number in range(50):
        first.api.add(f"/r{number}", "http://127.0.0.1:9", number=number)
    before = first.api.routes()
    second = start("b")
    after = second.api.routes()
    assert after.keys() == before.keys()
    for path, route in after.items():
        # Each server has the time at which it came to the change, the engine that of its sender.
        assert at(route["last_activity"]) == pytest.approx(
            at(before[path]["last_activity"]), abs=0.1
        )
        assert route["number"] == before[path]["number"]


def test_a_path_has_one_form(start: StartServer) -> None:
    first, second = start("a"), start("b")
    first.api.add("/user/é", "http://127.0.0.1:9")
    assert second.api.remove("/user/é/") == 204
    assert first.api.route("/user/é") is None


def test_the_default_route_is_that_of_the_first_server(start: StartServer) -> None:
    first = start("a", "--default-target", "http://127.0.0.1:10")
    second = start("b", "--default-target", "http://127.0.0.1:11")
    wait_until(lambda: paths(second) == {"/"}, 5, "the default route")
    assert second.api.routes()["/"]["target"] == "http://127.0.0.1:10"
    first.api.add("/", "http://127.0.0.1:12")
    third = start("c", "--default-target", "http://127.0.0.1:11")
    assert third.api.routes()["/"]["target"] == "http://127.0.0.1:12"


def test_two_hubs_share_an_engine_and_no_route(start: StartServer, engine: Engine) -> None:
    one = start("a", "--storage-prefix", "one")
    two = start("b", "--storage-prefix", "two")
    one.api.add("/of-one", "http://127.0.0.1:9")
    two.api.add("/of-two", "http://127.0.0.1:9")
    assert (paths(one), paths(two)) == ({"/of-one"}, {"/of-two"})
    assert {key.partition(":")[0] for key in engine.client.scan_iter()} == {"{one}", "{two}"}


def test_activity_is_the_greatest_of_all_servers(start: StartServer) -> None:
    first, second = start("a"), start("b")
    with EchoTarget("t") as target:
        first.api.add("/used", target.url)
        before = second.api.routes()["/used"]["last_activity"]
        wait_until(lambda: time.time() > at(before) + 0.05, 2, "the clock has gone on")
        assert first.get("/used").status == 200
        used = first.api.routes()["/used"]["last_activity"]
        assert used > before
        begin = time.monotonic()
        wait_until(lambda: second.api.routes()["/used"]["last_activity"] == used, 5, "it is seen")
        assert time.monotonic() - begin < 3
        route = second.api.route("/used")
        assert route is not None
        assert route["last_activity"] == used
        third = start("c")
        assert third.api.routes()["/used"]["last_activity"] == used, "loading is no activity"


def at(moment: str) -> float:
    return datetime.fromisoformat(moment.replace("Z", "+00:00")).timestamp()


def test_what_can_be_no_route_is_left_out(start: StartServer, engine: Engine) -> None:
    first = start("a")
    first.api.add("/good", "http://127.0.0.1:9")
    with engine.client.pipeline(transaction=True) as at_once:
        at_once.hset("{chp}:routes", b"/\xff", '{"target": "http://127.0.0.1:9"}')
        at_once.hset("{chp}:routes", "/bad", "nonsense")
        at_once.hincrby("{chp}:meta", "count", 2)
        at_once.execute()
    second = start("b")
    assert paths(second) == {"/good"}
    second.wait_for_log("error: Shared route /bad is left out: ")
    second.wait_for_log(r"error: Shared route /\\udcff is left out: its path can't be one")
    first.api.add("/bad", "http://127.0.0.1:9")
    assert paths(second) == {"/good", "/bad"}


def test_servers_come_and_go_while_routes_change(start: StartServer) -> None:
    """As an autoscaler does it: from one server to five, and back."""
    first = start("first")
    ended = threading.Event()

    def change() -> float:
        slowest = 0.0
        for number in itertools.count():
            begin = time.monotonic()
            first.api.add(f"/r{number % 50}", f"http://127.0.0.1:{number % 60000 + 1}")
            slowest = max(slowest, time.monotonic() - begin)
            if ended.wait(0.01):
                break
        return slowest

    with ThreadPoolExecutor() as pool:
        changes = pool.submit(change)
        try:
            others = []
            for number in range(4):
                before = paths(first)
                others.append(start(f"another{number}"))
                assert before <= paths(others[-1])
            for each in others:
                each.stop()
        finally:
            ended.set()
        # Whoever leaves says so, and is not waited for.
        assert changes.result(timeout=30) < LEASE
    assert "did not answer within its lease" not in first.log()


# -- a server that is silent, or ends


def test_a_server_that_stands_still_is_waited_for_once(servers: list[Proxy]) -> None:
    frozen = servers[2]
    frozen_pids = frozen.tree()
    servers[0].api.add("/before", "http://127.0.0.1:9")
    with stopped(frozen_pids):
        begin = time.monotonic()
        servers[0].api.add("/meanwhile", "http://127.0.0.1:9")
        assert time.monotonic() - begin < LEASE + 1
        begin = time.monotonic()
        servers[1].api.add("/later", "http://127.0.0.1:9")
        assert time.monotonic() - begin < 0.5
    assert servers[0].wait_for_log(r"Server c-\w+ did not answer within its lease of 2 s")
    # Its workers never say that they are current with an older table.
    wait_until(lambda: is_current(frozen), 3, "it is current again")
    assert {"/before", "/meanwhile", "/later"} <= paths(frozen)


def test_a_server_that_stops_is_not_waited_for(start: StartServer) -> None:
    first = start("a")
    with start_proxy(
        *("--storage-backend", f"redis://127.0.0.1:{port_of(first)}"),
        *("--storage-lease", "30", "--replica-name", "b"),
    ) as second:
        wait_until(lambda: is_current(second), 10, "b is current")
        first.api.add("/both", "http://127.0.0.1:9")
    begin = time.monotonic()
    first.api.add("/one", "http://127.0.0.1:9")
    assert time.monotonic() - begin < 1


def port_of(proxy: Proxy) -> str:
    command = Path(f"/proc/{proxy.pid}/cmdline").read_bytes().decode().split("\0")
    return command[command.index("--storage-backend") + 1].rpartition(":")[2]


def test_another_management_process_goes_on_where_the_last_one_was(
    start: StartServer,
) -> None:
    first, second = start("a"), start("b")
    first.api.add("/before", "http://127.0.0.1:9")
    position = second.log_position()
    os.kill(second.management_pid(), signal.SIGKILL)
    first.api.add("/meanwhile", "http://127.0.0.1:9")
    assert {"/before", "/meanwhile"} <= paths(second)
    second.api.add("/after", "http://127.0.0.1:9")
    assert paths(first) == {"/before", "/meanwhile", "/after"}
    log = second.log().splitlines()[position:]
    assert not [line for line in log if "Loaded" in line], "it knows where it was"


def test_a_reload_interrupts_no_change(start: StartServer) -> None:
    first, second = start("a"), start("b")
    with EchoTarget("t") as target:
        second.signal(signal.SIGHUP)
        for number in range(40):
            first.api.add(f"/r{number}", target.url)
            assert first.get(f"/r{number}").status == 200
            if is_current(second):
                assert second.get(f"/r{number}").status == 200
        second.wait_for_log("reloaded: 1 new workers serve", 20)
        second.api.add("/after", target.url)
        assert first.get("/after").status == 200


# -- the engine's side


def test_the_documented_rights_are_enough(
    tmp_path: Path, engine: Engine, start: StartServer
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "storage.md").read_text("utf-8")
    (rule,) = [line for line in page.splitlines() if line.startswith("user chp on ")]
    words = rule.replace(">PASSWORD", ">secret").split()[2:]
    engine.client.execute_command("ACL", "SETUSER", "chp", *words)
    secrets = {"CONFIGPROXY_STORAGE_USERNAME": "chp", "CONFIGPROXY_STORAGE_PASSWORD": "secret"}
    first, second = start("a", env=secrets), start("b", env=secrets)
    first.api.add("/new", "http://127.0.0.1:9")
    assert second.api.remove("/new") == 204
    engine.client.flushall()
    assert added_again(first, "/again") < AGAIN
    assert "permission" not in first.log() + second.log()
    refused = run_to_exit(
        *("--storage-backend", engine.url, "--storage-prefix", "other"),
        *("--storage-start-timeout", "1", "--port", "0"),
        env=secrets,
    )
    assert refused.returncode == 1
    assert "permission" in refused.stdout + refused.stderr


def test_a_unix_socket(tmp_path: Path, start: StartServer) -> None:
    path = tmp_path / "engine.sock"
    with running_engine(tmp_path, "--unixsocket", str(path)):
        first, second = (start(name, url=f"unix://{path}") for name in "ab")
        first.api.add("/new", "http://127.0.0.1:9")
        assert second.api.remove("/new") == 204


def test_too_few_replicas_of_the_engine_are_a_failure(start: StartServer) -> None:
    first = start("a", "--storage-wait", "1")
    assert post(first, "/new").status_code == 503
    first.wait_for_log(r"0 replicas of the engine have it, of 1 \(--storage-wait\)")


def test_a_start_without_the_engine_is_one_line_and_an_end(engine: Engine) -> None:
    engine.kill()
    done = run_to_exit(
        *("--storage-backend", engine.url, "--storage-start-timeout", "1", "--port", "0")
    )
    engine.start()
    assert done.returncode == 1
    said = done.stdout + done.stderr
    assert f"no routes from 127.0.0.1:{engine.port} in 1 s: Redis is away: " in said
    assert "Traceback" not in said


def test_metrics_tell_of_it(start: StartServer) -> None:
    first, second = start("a"), start("b")
    (port,) = free_ports(1)
    third = start("c", "--metrics-ip", "127.0.0.1", "--metrics-port", str(port))
    third.api.add("/new", "http://127.0.0.1:9")
    assert third.api.remove("/nothing") == 404

    def metrics() -> dict[str, float]:
        text = requests.get(f"http://127.0.0.1:{port}/metrics", timeout=10).text
        lines = [line.rpartition(" ") for line in text.splitlines() if line.startswith("chp_store")]
        return {name: float(value) for name, _, value in lines}

    wait_until(lambda: metrics()["chp_store_replicas"] == 3, 5, "the servers are counted")
    told = metrics()
    assert told["chp_store_current"] == told["chp_store_connected"] == 1
    assert told['chp_store_changes_total{outcome="confirmed"}'] == 1
    assert told['chp_store_changes_total{outcome="absent"}'] == 1
    assert told['chp_store_loads_total{reason="start"}'] == 1
    assert told["chp_store_behind"] == 0
    assert paths(first) == paths(second) == {"/new"}
