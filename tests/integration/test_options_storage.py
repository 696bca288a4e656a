"""--storage-backend: SQLite, a class of one's own, and what can't be used."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.kit.option_servers import start_server
from tests.kit.peers import RawTarget, response
from tests.kit.server import REPOSITORY, run_to_exit

pytestmark = pytest.mark.ours


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """An environment in which Python finds the classes."""
    (tmp_path / "broken_store.py").write_text("raise OSError('no disk')", encoding="utf-8")
    return {
        "PYTHONPATH": f"{tmp_path}:{REPOSITORY}",
        "CHP_ROUTES": str(tmp_path / "routes.json"),
    }


@pytest.mark.parametrize("backend", ["sqlite:{}/routes.sqlite", "tests.kit.file_store.FileStore"])
def test_routes_outlive_the_server(env: dict[str, str], tmp_path: Path, backend: str) -> None:
    flags = ["--storage-backend", backend.format(tmp_path)]
    with RawTarget(response(b"kept")) as target:
        with start_server(*flags, env=env, stop=signal.SIGTERM) as proxy:
            proxy.api.add("/user/a", target.url + "/base", user="a")
            proxy.api.add("/user/b", target.url)
            assert proxy.api.remove("/user/b") == 204
            assert proxy.get("/user/a").body == b"kept"
            before = proxy.api.routes()
        with start_server(*flags, "--default-target", target.url, env=env) as proxy:
            after = proxy.api.routes()
            assert set(after) == {"/", "/user/a"}
            assert after["/user/a"] == before["/user/a"], "activity, too"
            assert proxy.get("/user/a/x").body == b"kept"
            assert target.requests[-1].target == "/base/user/a/x"
        with start_server(env=env) as proxy:
            assert proxy.api.routes() == {}, "in memory, by default"


def test_what_was_confirmed_outlives_everybody(tmp_path: Path) -> None:
    """Killed at once, as when the machine is switched off."""
    flags = ["--storage-backend", f"sqlite:{tmp_path / 'routes.sqlite'}"]
    with start_server(*flags) as proxy:
        for number in range(20):
            proxy.api.add(f"/user/{number}", "http://127.0.0.1:9")
        assert proxy.api.remove("/user/7") == 204
        for pid in proxy.tree():
            os.kill(pid, signal.SIGKILL)
        proxy.wait()
    with start_server(*flags) as proxy:
        assert set(proxy.api.routes()) == {f"/user/{n}" for n in range(20) if n != 7}


def test_routes_are_there_after_an_upgrade_and_after_a_crash_of_the_management_process(
    tmp_path: Path,
) -> None:
    flags = ["--storage-backend", f"sqlite:{tmp_path / 'routes.sqlite'}"]
    with start_server(*flags) as proxy:
        proxy.api.add("/user/a", "http://127.0.0.1:9")
        before = proxy.api.routes()
        proxy.signal(signal.SIGHUP)
        proxy.wait_for_log("The management process is back, with 1 routes", 30)
        assert proxy.api.routes() == before
        os.kill(proxy.management_pid(), signal.SIGKILL)
        assert proxy.api.routes() == before
        proxy.api.add("/user/b", "http://127.0.0.1:9")
        assert set(proxy.api.routes()) == {"/user/a", "/user/b"}


@pytest.mark.parametrize("loss", ["removed", "damaged"])
def test_a_file_that_is_lost_takes_no_route_from_a_server_that_runs(
    tmp_path: Path, loss: str
) -> None:
    path = tmp_path / "routes.sqlite"
    flags = ["--storage-backend", f"sqlite:{path}"]
    again = "The storage backend had no routes: it has the server's 1 again"
    with start_server(*flags) as proxy:
        proxy.api.add("/user/a", "http://127.0.0.1:9", user="a")
        before = proxy.api.routes()
        if loss == "removed":
            for each in tmp_path.glob("routes.sqlite*"):
                each.unlink()
            route = {"target": "http://127.0.0.1:9"}
            refused = proxy.api.post(proxy.api.route_url("/user/b"), json=route, timeout=20)
            assert refused.status_code == 503
            proxy.wait_for_log("routes.sqlite' was removed; reload the server")
            proxy.signal(signal.SIGHUP)
        else:
            path.write_bytes(b"nonsense" * 1000)
            (tmp_path / "routes.sqlite-wal").unlink()
            os.kill(proxy.management_pid(), signal.SIGKILL)
        proxy.wait_for_log(again, 30)
        assert proxy.api.routes() == before
        for pid in proxy.tree():
            os.kill(pid, signal.SIGKILL)
        proxy.wait()
    with start_server(*flags) as proxy:
        assert set(proxy.api.routes()) == {"/user/a"}, "the new file has it"


def test_a_second_server_is_refused_in_one_line(tmp_path: Path) -> None:
    flags = ["--storage-backend", f"sqlite:{tmp_path / 'routes.sqlite'}"]
    with start_server(*flags) as proxy:
        done = run_to_exit(*flags, "--port", "0", "--workers", "1")
        output = done.stdout + done.stderr
        assert done.returncode == 1, output
        assert output.count(f"{flags[1]}': is in use by another server") == 1, output
        assert "Traceback" not in output
        proxy.api.add("/user/a", "http://127.0.0.1:9")


def test_a_damaged_file_is_moved_aside_and_said(tmp_path: Path) -> None:
    path = tmp_path / "routes.sqlite"
    path.write_bytes(b"not a database, whatever its name says" * 100)
    with start_server("--storage-backend", f"sqlite:{path}") as proxy:
        line = proxy.wait_for_log(
            "routes.sqlite is damaged (.*): moved to .*, beginning with an empty"
        )
        assert " error: " in line
        proxy.api.add("/user/a", "http://127.0.0.1:9")
    (aside,) = tmp_path.glob("routes.sqlite.damaged-*")
    assert aside.read_bytes().startswith(b"not a database")


def test_a_folder_that_is_not_there_ends_the_start() -> None:
    done = run_to_exit("--storage-backend", "sqlite:/no/such/folder/r", "--port", "0")
    assert done.returncode == 1
    assert "'sqlite:/no/such/folder/r': there is no folder '/no/such/folder'" in (
        done.stdout + done.stderr
    )


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("broken_store.Store", "can't be imported: OSError: no disk"),
        ("no_such_package.Store", "can't be imported: ModuleNotFoundError"),
        ("tests.kit.file_store.NoSuchClass", "can't be imported: AttributeError"),
        ("pathlib.Path", "is not a subclass of chp_gevent.stores.Store"),
    ],
)
def test_a_class_that_can_not_be_used_ends_the_start(
    env: dict[str, str], name: str, reason: str
) -> None:
    done = run_to_exit("--storage-backend", name, "--port", "0", "--workers", "1", env=env)
    output = done.stdout + done.stderr
    assert done.returncode == 1, output
    assert f"--storage-backend: '{name}' {reason}" in output
    assert "Traceback" not in output


def test_a_name_that_is_no_class_is_refused_at_once() -> None:
    done = run_to_exit("--storage-backend", "configurable-http-proxy-redis")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: --storage-backend: 'configurable-http-proxy-redis' is ")
