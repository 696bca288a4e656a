"""--storage-backend: the example of docs/storage.md, and classes that can't be used."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest

from tests.kit.option_servers import start_server
from tests.kit.peers import RawTarget, response
from tests.kit.server import REPOSITORY, run_to_exit

pytestmark = pytest.mark.ours


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """An environment in which Python finds the example as ``sqlite_store``."""
    page = (REPOSITORY / "docs" / "storage.md").read_text(encoding="utf-8")
    code = re.search(r"```python\n(.*?)```", page, re.DOTALL)
    assert code is not None
    (tmp_path / "sqlite_store.py").write_text(code[1], encoding="utf-8")
    (tmp_path / "broken_store.py").write_text("raise OSError('no disk')", encoding="utf-8")
    return {"PYTHONPATH": str(tmp_path), "CHP_ROUTES": str(tmp_path / "routes.sqlite")}


def test_routes_outlive_the_server(env: dict[str, str]) -> None:
    flags = ["--storage-backend", "sqlite_store.SqliteStore"]
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


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("broken_store.Store", "can't be imported: OSError: no disk"),
        ("no_such_package.Store", "can't be imported: ModuleNotFoundError"),
        ("sqlite_store.NoSuchClass", "can't be imported: AttributeError"),
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
