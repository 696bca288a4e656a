"""scripts/demo: from any checkout, and its commands can be copied."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.kit import processes
from tests.kit.installation import REPOSITORY, make_installation, namespace
from tests.kit.peers import wait_until

DEMO = REPOSITORY / "scripts" / "demo"
LAST_LINE = "Ctrl-C ends the demo."
# What comes behind the output of a command.
BEHIND = re.compile(r"^(?:\$ |--- |\(WebSocket\)|All of the above)", re.MULTILINE)


def environment(**more: str) -> dict[str, str]:
    """Return the environment for the script."""
    return {"PATH": os.environ["PATH"], "HOME": "/nonexistent", **more}


@contextmanager
def demo(venv: Path, output: Path) -> Iterator[str]:
    """Run the demo until the block ends, which is given all that it printed."""
    with output.open("wb") as file:
        process = subprocess.Popen(
            [DEMO], stdout=file, stderr=file, env=environment(DEMO_VENV=str(venv), LC_ALL="C.UTF-8")
        )
    try:
        wait_until(
            lambda: LAST_LINE in output.read_text() or process.poll() is not None, 60, "it is up"
        )
        yield output.read_text()
        process.send_signal(signal.SIGINT)
        wait_until(
            lambda: process.poll() is not None,
            20,
            lambda: (
                f"it ends, of which is left {processes.tree(process.pid)}; {output.read_text()}"
            ),
        )
        assert process.returncode == 0
        wait_until(lambda: not processes.tree(process.pid), 5, "all its processes are gone")
    finally:
        for left in processes.tree(process.pid):
            os.kill(left.pid, signal.SIGKILL)
        process.wait()


def printed_commands(text: str) -> list[tuple[str, str]]:
    """Return the commands for curl, each with the output that is shown for it."""
    found = []
    for start in re.finditer(r"^\$ (curl .*)\n", text, re.MULTILINE):
        end = BEHIND.search(text, start.end())
        assert end is not None
        found.append((start[1], text[start.end() : end.start()]))
    return found


def without_times(output: str) -> str:
    """Return an output without what is different each time; events of a stream once."""
    return re.sub(r"(data: [0:]+\s*)+", "data", re.sub(r"\d+", "0", output)).strip()


def test_the_commands_that_are_printed_do_what_is_shown(tmp_path: Path) -> None:
    make_installation(tmp_path / "venv")
    with demo(tmp_path / "venv", tmp_path / "output") as text:
        token = re.search(r"^\$ (export CONFIGPROXY_AUTH_TOKEN=\w+)$", text, re.MULTILINE)
        assert token is not None
        commands = printed_commands(text)
        assert len(commands) == 10
        for command, shown in commands:
            done = subprocess.run(
                ["bash", "-c", f"{token[1]}\n{command}"],
                capture_output=True,
                text=True,
                timeout=90,
                check=False,
            )
            assert done.stderr == "", command
            assert without_times(done.stdout) == without_times(shown), command


def test_it_runs_from_a_checkout_that_is_read_only(tmp_path: Path) -> None:
    unshared = namespace()
    if unshared is None:
        pytest.skip("no namespaces for this user")
    make_installation(tmp_path / ".cache" / "chp-gevent" / "venv-demo")
    script = (
        'mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && exec "$1/scripts/demo" "$2"'
    )
    done = subprocess.run(
        [*unshared, "bash", "-c", script, "bash", str(REPOSITORY), "--once"],
        cwd="/",
        env=environment(HOME=str(tmp_path)),
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("\nDemo: every answer was right.\n")


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    folder = tmp_path / "file" / "venv"
    done = subprocess.run(
        [DEMO, "--once"],
        env=environment(DEMO_VENV=str(folder)),
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == (
        f"error: cannot write to {folder}: set DEMO_VENV to a folder for the installation\n"
    )
