"""scripts/lib/environment.sh: an environment that works, and pip's failures in few lines."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kit.installation import ENVIRONMENT, REPOSITORY, make_installation, run_shell, shell

# Nobody listens there: an index that can't be reached.
OFFLINE = {"PIP_CONFIG_FILE": "/dev/null", "PIP_INDEX_URL": "http://127.0.0.1:9/simple"}


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """An environment with everything in it."""
    folder = tmp_path / "venv"
    make_installation(folder)
    return folder


def test_what_is_installed_is_not_installed_again(installed: Path) -> None:
    said = shell('install_project "$1" copy', str(installed), env=OFFLINE)
    assert said == "", "no index was asked"


def test_a_changed_source_is_installed_and_a_compiled_file_is_no_change(tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    shutil.copytree(REPOSITORY / "chp_gevent", checkout / "chp_gevent")
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, checkout)
    (checkout / "scripts" / "lib").mkdir(parents=True)
    shutil.copy(ENVIRONMENT, checkout / "scripts" / "lib")
    folder = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)

    def state() -> str:
        script = f'. {checkout}/scripts/lib/environment.sh; wanted_state "$1" copy ""'
        command = ["bash", "-c", script, "bash", str(folder)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    before = state()
    (checkout / "chp_gevent" / "__pycache__").mkdir(exist_ok=True)
    (checkout / "chp_gevent" / "__pycache__" / "x.pyc").write_bytes(b"x")
    assert state() == before
    (checkout / "chp_gevent" / "new.py").write_bytes(b"")
    assert state() != before


def test_an_environment_of_another_python_is_made_anew(tmp_path: Path) -> None:
    folder = tmp_path / "venv"
    assert "virtual environment" in shell('make_environment "$1"', str(folder))
    assert shell('make_environment "$1"', str(folder)) == ""
    # As after an upgrade of the system: the interpreter is the new one, the packages are those
    # of the old one.
    packages = next((folder / "lib").iterdir())
    packages.rename(folder / "lib" / "python3.0")
    assert "virtual environment" in shell('make_environment "$1"', str(folder))
    subprocess.run([folder / "bin" / "python", "-m", "pip", "--version"], check=True)
    assert [path.name for path in (folder / "lib").iterdir()] == [packages.name]


def test_without_an_index_there_are_two_lines_and_a_file_with_the_rest(installed: Path) -> None:
    done = run_shell('run_pip "$1" surely-not-there', str(installed), env=OFFLINE)
    assert done.returncode == 1
    lines = [line for line in done.stdout.splitlines() if line and not line.startswith("== ")]
    assert lines == [
        "ERROR: No matching distribution found for surely-not-there",
        "error: pip reaches no package index that has it: is this machine online? All it said: "
        f"{installed}/pip.log",
    ]
    assert "surely-not-there" in (installed / "pip.log").read_text()


def test_a_sign_of_life_is_given_while_pip_works(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.touch()
    script = """
        slept=0
        sleep() {
          slept=$((slept + 1))
          # At the first look there is nothing to tell yet.
          [ $slept != 30 ] || echo "Collecting gevent>=25.4 (from chp-gevent)" >>"$log"
          [ $slept != 60 ] || echo "Installing collected packages: gevent" >>"$log"
          [ $slept != 100 ] || exit 0
        }
        log="$1"
        show_progress "$log"
    """
    assert shell(script, str(log)).splitlines() == [
        "   Collecting gevent>=25.4 (from chp-gevent)",
        "   Installing collected packages: gevent",
    ]


def test_a_failed_installation_is_tried_again(tmp_path: Path) -> None:
    folder = tmp_path / "venv"
    make_installation(folder)
    (folder / ".installed").write_text("copy  of something else")
    for _ in range(2):
        done = run_shell('install_project "$1" copy', str(folder), env=OFFLINE)
        assert done.returncode == 1
        assert "is this machine online?" in done.stdout
        assert not (folder / ".installed").exists()
