"""Installations for tests of the scripts: made in a second, and without a package index."""

from __future__ import annotations

import shutil
import site
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
ENVIRONMENT = REPOSITORY / "scripts" / "lib" / "environment.sh"


def shell(script: str, *arguments: str, env: dict[str, str] | None = None) -> str:
    """Run a script in bash after ``scripts/lib/environment.sh``; return what it writes.

    Raises ``AssertionError`` with that when the script fails.
    """
    done = run_shell(script, *arguments, env=env)
    assert done.returncode == 0, done.stdout
    return done.stdout


def run_shell(
    script: str, *arguments: str, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a script in bash after ``scripts/lib/environment.sh``, with both outputs in one."""
    lines = f"set -euo pipefail; . {ENVIRONMENT}; {script}"
    return subprocess.run(
        ["bash", "-c", lines, "bash", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "PYTHON": sys.executable, **(env or {})},
        text=True,
        timeout=100,
        check=False,
    )


def make_installation(folder: Path) -> None:
    """Make what ``install_project FOLDER copy`` makes, with the packages of this environment."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    packages = next(folder.glob("lib/python*/site-packages"))
    paths = [str(REPOSITORY), *site.getsitepackages()]
    (packages / "of-the-tests.pth").write_text("\n".join(paths) + "\n", encoding="utf-8")
    command = folder / "bin" / "chp-gevent"
    command.write_text(f'#!/bin/sh\nexec {folder}/bin/python -m chp_gevent "$@"\n', "utf-8")
    command.chmod(0o755)
    state = shell('wanted_state "$1" copy ""', str(folder))
    (folder / ".installed").write_text(state, encoding="utf-8")


def namespace() -> list[str] | None:
    """Return a command that runs another as root with mounts of its own; None if there is none."""
    command = ["unshare", "--user", "--map-root-user", "--mount"]
    if shutil.which("unshare") is None:
        return None
    tried = subprocess.run([*command, "mount", "-t", "tmpfs", "x", "/mnt"], capture_output=True)
    return command if tried.returncode == 0 else None
