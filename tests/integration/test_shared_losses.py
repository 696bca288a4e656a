"""What servers that share their routes do when Redis is away, or has lost something."""

from __future__ import annotations

import time

import pytest

from tests.kit.engine import Engine
from tests.kit.peers import EchoTarget, wait_until
from tests.kit.processes import stopped
from tests.kit.server import Proxy
from tests.kit.shared_servers import (
    AGAIN,
    CURRENT,
    StartServer,
    added_again,
    engine_fixture,
    equal,
    is_current,
    needs_redis,
    paths,
    post,
    ready,
    servers_fixture,
    start_fixture,
)

pytestmark = [pytest.mark.ours, needs_redis]

__all__ = ["engine_fixture", "servers_fixture", "start_fixture"]

# -- an engine that is away, or has lost something


def test_without_the_engine_requests_are_routed_and_changes_refused(
    servers: list[Proxy], engine: Engine
) -> None:
    with EchoTarget("t") as target:
        servers[0].api.add("/kept", target.url)
        engine.kill()
        killed = time.monotonic()
        assert post(servers[0], "/new").status_code == 503
        assert time.monotonic() - killed < 3
        wait_until(lambda: time.monotonic() > killed + 2.5, 3, "it has been away for a while")
        begin = time.monotonic()
        assert post(servers[0], "/new").status_code == 503
        assert time.monotonic() - begin < 0.5
        line = servers[0].wait_for_log("503 POST /api/routes/new ")
        assert "The shared routes can't be changed: this server is not current: Redis is" in line
        wait_until(lambda: not any(map(is_current, servers)), CURRENT + 1, "none is current")
        for proxy in servers:
            assert proxy.get("/kept").status == 200
            assert [ready(proxy), ready(proxy, api=True)] == [200, 200]
            assert ready(proxy, "?current", api=True) == 503
            answer = proxy.api.get(f"{proxy.api.url}/api/routes", timeout=10)
            assert set(answer.json()) == {"/kept"}
            assert int(answer.headers["X-Chp-Stale"]) >= 0
            assert proxy.log().count("error: Redis at ") == 1
        engine.start()
        assert added_again(servers[0], "/new") < AGAIN
        wait_until(lambda: equal(servers, engine), 5, "all have the same")
        assert paths(servers[1]) == {"/kept", "/new"}
        servers[0].wait_for_log(r"info: Redis is back after [0-9.]+ s; current at change \d+ of ")


def test_what_the_engine_has_lost_it_gets_again(servers: list[Proxy], engine: Engine) -> None:
    for number in range(30):
        servers[number % 3].api.add(f"/r{number}", "http://127.0.0.1:9")
    engine.client.flushall()
    assert added_again(servers[1], "/new") < AGAIN
    wait_until(lambda: equal(servers, engine), 5, "all have the same")
    assert len(paths(servers[2])) == 31
    logs = "\n".join(proxy.log() for proxy in servers)
    assert logs.count("Redis has lost data; this server has provided its 30 routes") == 1


@pytest.mark.parametrize("lost", ["meta", "routes", "log", "activity", "leases", "acks"])
def test_each_part_that_is_lost_comes_again(
    servers: list[Proxy], engine: Engine, lost: str
) -> None:
    for number in range(10):
        servers[number % 3].api.add(f"/r{number}", "http://127.0.0.1:9")
    engine.client.delete(f"{{chp}}:{lost}")
    if lost in ("log", "leases", "acks", "activity"):
        assert post(servers[0], "/new").status_code == 201
    else:
        assert added_again(servers[0], "/new") < AGAIN
    wait_until(lambda: equal(servers, engine), 5, "all have the same")
    assert len(paths(servers[1])) == 11
    servers[1].api.add("/last", "http://127.0.0.1:9")
    assert "/last" in paths(servers[2])


def test_an_engine_that_comes_back_with_older_data_gets_the_newer(
    start: StartServer, engine: Engine
) -> None:
    first, second = start("a"), start("b")
    first.api.add("/old", "http://127.0.0.1:9")
    engine.client.save()
    for number in range(20):
        first.api.add(f"/r{number}", "http://127.0.0.1:9")
    assert first.api.remove("/old") == 204
    engine.kill()
    engine.start()
    assert "/old" in engine.client.hkeys("{chp}:routes")
    assert added_again(second, "/new") < AGAIN
    wait_until(lambda: equal([first, second], engine), 5, "all have the same")
    assert "/old" not in paths(first)
    assert len(paths(second)) == 21


def test_a_change_that_was_given_up_is_not_made_later(start: StartServer, engine: Engine) -> None:
    """It may lie in the socket of an engine that stands still."""
    first, second = start("a"), start("b")
    first.api.add("/route", "http://127.0.0.1:10")
    engine.freeze()
    begin = time.monotonic()
    assert post(first, "/route", "http://127.0.0.1:11").status_code == 503
    wait_until(lambda: time.monotonic() > begin + 4, 6, "four seconds")
    engine.thaw()
    added_again(second, "/other")
    wait_until(lambda: equal([first, second], engine), 5, "all have the same")
    for proxy in (first, second):
        assert proxy.api.routes()["/route"]["target"] == "http://127.0.0.1:10"


def test_connections_that_are_cut_are_made_again(servers: list[Proxy], engine: Engine) -> None:
    wanted = set()
    for number in range(8):
        engine.client.client_kill_filter(_type="normal", skipme=True)
        # Whoever is asked may not have noticed yet; nothing is sent that may have been lost.
        for name, server in zip("abc", servers, strict=True):
            server.api.add(f"/{name}{number}", "http://127.0.0.1:9")
            wanted.add(f"/{name}{number}")
    assert [paths(server) for server in servers] == [wanted] * 3


def test_data_of_a_later_version_are_left_alone(start: StartServer, engine: Engine) -> None:
    first = start("a")
    first.api.add("/kept", "http://127.0.0.1:9")
    engine.client.hset("{chp}:meta", "format", 2)
    wait_until(lambda: not is_current(first), CURRENT + 2, "it is not current")
    assert post(first, "/new").status_code == 503
    assert paths(first) == {"/kept"}
    first.wait_for_log("the data are of a later version than this one")
    engine.client.hset("{chp}:meta", "format", 1)
    wait_until(lambda: is_current(first), 5, "it is current")
    assert post(first, "/new").status_code == 201


def test_a_server_that_missed_more_than_the_log_has_loads_the_table(
    start: StartServer, engine: Engine
) -> None:
    first, second = start("a"), start("b")
    first.api.add("/before", "http://127.0.0.1:9")
    with stopped(second.tree()):
        for number in range(30):
            first.api.add(f"/r{number}", "http://127.0.0.1:9")
        engine.client.xtrim("{chp}:log", maxlen=10, approximate=False)
    wait_until(lambda: is_current(second), 5, "it is current again")
    assert paths(second) == paths(first)
    second.wait_for_log("info: Loaded 31 routes in ")
