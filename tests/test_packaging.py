"""What people install: the wheel and the source distribution, in environments of their own."""

from __future__ import annotations

import http.client
import os
import re
import subprocess
import sys
import tarfile
import venv
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

import pytest

from chp_gevent import __version__
from tests.kit.peers import wait_until
from tests.kit.server import REPOSITORY, free_ports

pytestmark = [pytest.mark.timeout(600), pytest.mark.slow]

FLAGS = "--ip 127.0.0.1 --workers 1"


def run(*command: str, folder: Path) -> str:
    """Run a command that has to succeed; return what it says."""
    done = subprocess.run(
        command,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both distributions, built from what git has of this checkout."""
    folder = tmp_path_factory.mktemp("dist")
    source = tmp_path_factory.mktemp("source")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY,
        capture_output=True,
        check=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (REPOSITORY / name).exists():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((REPOSITORY / name).read_bytes())
            (source / name).chmod((REPOSITORY / name).stat().st_mode)
    said = run(sys.executable, "-m", "build", "--outdir", str(folder), str(source), folder=folder)
    assert "Successfully built" in said
    return folder


def only(folder: Path, pattern: str) -> Path:
    (found,) = folder.glob(pattern)
    return found


def test_both_distributions_please_the_index(built: Path) -> None:
    files = [str(path) for path in sorted(built.iterdir())]
    assert len(files) == 2
    said = run(sys.executable, "-m", "twine", "check", "--strict", *files, folder=built)
    assert said.count("PASSED") == 2


def test_the_source_distribution_has_everything_that_git_has(built: Path) -> None:
    with tarfile.open(only(built, "*.tar.gz")) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    listed = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, check=True)
    tracked = {name for name in listed.stdout.decode().splitlines() if (REPOSITORY / name).exists()}
    ours = {name for name in tracked if not name.startswith((".git", ".github"))}
    assert ours - names == set()


def test_the_wheel_has_the_package_and_nothing_else(built: Path) -> None:
    with zipfile.ZipFile(only(built, "*.whl")) as archive:
        names = set(archive.namelist())
    top = {name.split("/")[0] for name in names}
    assert top == {"chp_gevent", f"chp_gevent-{__version__}.dist-info"}
    modules = {
        str(path.relative_to(REPOSITORY)) for path in (REPOSITORY / "chp_gevent").rglob("*.py")
    }
    assert modules | {"chp_gevent/py.typed"} <= names


def test_the_oldest_dependencies_are_those_that_the_package_allows() -> None:
    """They are what DEPENDENCIES=oldest scripts/test installs."""
    requirements = metadata.requires("chp-gevent") or []
    lower = {
        match[1]: match[2]
        for line in requirements
        if ("extra ==" not in line or 'extra == "redis"' in line)
        and (match := re.match(r"([\w-]+).*?>=([\d.]+)", line))
    }
    lines = (REPOSITORY / "scripts" / "lib" / "oldest.txt").read_text("utf-8").splitlines()
    pinned = dict(line.split("==") for line in lines if not line.startswith("#"))
    assert pinned == lower
    assert len(pinned) == 11


@contextmanager
def serving(command: Sequence[str], folder: Path, port: int, **env: str) -> Iterator[None]:
    """Run an installed server until the block ends; it answers when the block begins."""
    log = folder / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=folder, env={**os.environ, **env}, stdout=output, stderr=output
        )
    try:
        wait_until(lambda: process.poll() is not None or answers(port), 20, "the server answers")
        assert process.poll() is None, log.read_text()
        yield
    finally:
        process.terminate()
        assert process.wait(20) == 0, log.read_text()


def answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/_chp_healthz")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


@pytest.mark.parametrize("kind", ["*.whl", "*.tar.gz"], ids=["wheel", "sdist"])
def test_what_is_installed_serves(built: Path, tmp_path: Path, kind: str) -> None:
    environment = tmp_path / "venv"
    venv.create(environment)
    python = str(environment / "bin" / "python")
    pip = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check"]
    run(*pip, "install", "--quiet", str(only(built, kind)), folder=tmp_path)
    run(*pip, "check", folder=tmp_path)
    for name in ("chp-gevent", "configurable-http-proxy"):
        said = run(str(environment / "bin" / name), "--version", folder=tmp_path)
        assert said == f"{__version__}\n"
    port, api_port = free_ports(2)
    flags = f"{FLAGS} --port {port} --api-port {api_port}"
    # Warnings are errors: of ours, and of libraries that are told to us.
    with serving([python, "-W", "error", "-m", "chp_gevent", *flags.split()], tmp_path, port):
        pass
    gunicorn = [python, "-m", "gunicorn", "-c", "python:chp_gevent.gunicorn_conf"]
    with serving(gunicorn, tmp_path, port, CHP_ARGS=flags):
        pass
