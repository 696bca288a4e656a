"""Each test is run once by scripts/test: with branches counted, or without."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.kit.counted import INTEGRATION, TESTS, UNITS, WITHOUT, is_counted

COLLECT = [sys.executable, "-m", "pytest", "--collect-only", "-q"]


@pytest.mark.parametrize("name", sorted(INTEGRATION | WITHOUT))
def test_files_that_are_named_are_there(name: str) -> None:
    assert (TESTS / name).is_file()
    assert is_counted(TESTS / name) == (name in INTEGRATION)


@pytest.mark.parametrize("name", sorted(UNITS))
def test_folders_that_are_named_have_tests(name: str) -> None:
    assert any(is_counted(path) for path in (TESTS / name).rglob("test_*.py"))


@pytest.mark.parametrize(("wanted", "found"), [("only", "shared"), ("not", "scripts")])
def test_each_of_the_two_runs_leaves_the_files_of_the_other_out(wanted: str, found: str) -> None:
    said = subprocess.run(
        [*COLLECT, f"--counted={wanted}", "tests/shared", "tests/scripts"],
        cwd=TESTS.parent,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    ).stdout
    collected = {
        TESTS.parent / line.partition("::")[0] for line in said.splitlines() if "::" in line
    }
    assert collected == {
        path
        for folder in ("shared", "scripts")
        for path in (TESTS / folder).glob("test_*.py")
        if is_counted(path) == (wanted == "only")
    }
    assert (TESTS / found) in {path.parent for path in collected}
