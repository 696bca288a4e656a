"""The command that starts this process again."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from chp_gevent.master import handover
from chp_gevent.runtime import first_steps
from chp_gevent.runtime import own_command as module
from chp_gevent.runtime.first_steps import code_for
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


# -- the command by way of ``first_steps``


def patient_arguments(command: list[str], program: str = sys.executable) -> list[str] | None:
    """Return what comes before and behind the code, with ``-c CODE`` between; None if unchanged."""
    before = module.Command(program, command, "/")
    after = module.patient(before, 9)
    if after == before:
        return None
    assert after.program == after.arguments[0]
    code = after.arguments.index(code_for(9))
    assert after.arguments[code - 1] == "-c"
    return [*after.arguments[: code - 1], "CODE", *after.arguments[code + 1 :]]


@pytest.mark.parametrize(
    ("options", "rest"),
    [
        ([], ["-m", "chp_gevent", "--port", "1"]),
        (["-I"], ["-c", "import x", "-m"]),
        (["-X", "importtime", "-W", "once::X", "-Wignore::cm", "-Xdev", "-OO"], ["/script", "-c"]),
    ],
)
def test_the_interpreter_keeps_its_options(options: list[str], rest: list[str]) -> None:
    command = [sys.executable, *options, *rest]
    assert patient_arguments(command) == [sys.executable, *options, "CODE", *rest]


@pytest.mark.parametrize(
    "options", [["-"], ["-Im", "chp_gevent"], ["--help"], ["-Ic", "x"], ["-I"]]
)
def test_what_cannot_be_told_apart_is_left_as_it_is(options: list[str]) -> None:
    assert patient_arguments([sys.executable, *options]) is None


@pytest.mark.parametrize(
    ("first_line", "interpreter"),
    [
        ("#!/opt/venv/bin/python3.11", ["/opt/venv/bin/python3.11"]),
        ("#! /opt/venv/bin/python -sE ", ["/opt/venv/bin/python", "-sE"]),
    ],
)
def test_a_script_is_run_by_the_interpreter_that_it_names(
    script: Path, first_line: str, interpreter: list[str]
) -> None:
    script.write_text(f"{first_line}\nimport x\n")
    found = patient_arguments([str(script), "--port", "1"], str(script))
    assert found == [*interpreter, "CODE", str(script), "--port", "1"]


@pytest.mark.parametrize("first_line", ["#!/bin/sh", "#!/usr/bin/env python3", "#!", ""])
def test_a_script_of_another_kind_is_executed(script: Path, first_line: str) -> None:
    script.write_text(f"{first_line}\n")
    assert patient_arguments([str(script), "--port", "1"], str(script)) is None


def test_both_look_for_the_same_variable() -> None:
    assert first_steps.VARIABLE == handover.VARIABLE
