"""The command that starts this process again."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from chp_gevent.runtime import own_command as module
from chp_gevent.runtime.own_command import own_command


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(module, "_FOLDER", str(tmp_path))
    path = tmp_path / "chp-gevent"
    path.write_text("#!/usr/bin/python3\n")
    path.chmod(0o755)
    return path


def test_a_script_is_started_by_its_name(script: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [str(script), "--port", "1"])
    monkeypatch.setattr(sys, "orig_argv", ["python3", str(script), "--port", "1"])
    assert own_command() == (str(script), [str(script), "--port", "1"], str(script.parent))


def test_a_relative_name_is_one_in_the_folder_of_the_start(
    script: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["./chp-gevent"])
    monkeypatch.setattr(sys, "orig_argv", ["python3", "./chp-gevent"])
    assert own_command().program == f"{script.parent}/./chp-gevent"


@pytest.mark.parametrize(
    "arguments",
    [
        ["-m", "chp_gevent", "--port", "1"],
        ["-c", "import chp_gevent.cli", "--port", "1"],
        ["-W", "error", "chp-gevent", "--port", "1"],
    ],
)
def test_anything_else_is_the_interpreter_with_the_same_arguments(
    script: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["whatever", "--port", "1"])
    monkeypatch.setattr(sys, "orig_argv", ["python3", *arguments])
    assert own_command()[:2] == (sys.executable, [sys.executable, *arguments])


@pytest.mark.parametrize("spoil", ["no script", "not executable", "gone"])
def test_a_script_that_cannot_be_executed_is_one_of_the_interpreter(
    script: Path, monkeypatch: pytest.MonkeyPatch, spoil: str
) -> None:
    if spoil == "no script":
        script.write_text("print()\n")
    elif spoil == "gone":
        script.unlink()
    else:
        script.chmod(0o644)
        if script.stat().st_mode & 0o111:
            pytest.skip("modes mean nothing here")
    monkeypatch.setattr(sys, "argv", [str(script)])
    monkeypatch.setattr(sys, "orig_argv", ["python3", str(script)])
    assert own_command().program == sys.executable
