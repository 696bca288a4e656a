"""Each test is run once by scripts/test: with branches counted, or without."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import LONGEST, pytest_ignore_collect
from tests.kit.counted import INTEGRATION, TESTS, UNITS, WITHOUT, is_counted


@pytest.mark.parametrize("name", sorted(INTEGRATION | WITHOUT))
def test_files_that_are_named_are_there(name: str) -> None:
    assert (TESTS / name).is_file()
    assert is_counted(TESTS / name) == (name in INTEGRATION)


@pytest.mark.parametrize("name", sorted(UNITS))
def test_folders_that_are_named_have_tests(name: str) -> None:
    assert any(is_counted(path) for path in (TESTS / name).rglob("test_*.py"))


@pytest.mark.parametrize("path", sorted(TESTS.rglob("test_*.py")), ids=lambda path: path.stem)
def test_each_file_is_left_out_by_one_of_the_two_runs(
    path: Path, pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    def is_left_out(wanted: str | None) -> bool:
        monkeypatch.setattr(pytestconfig.option, "counted", wanted)
        return bool(pytest_ignore_collect(path, pytestconfig))

    assert is_left_out("not") == is_counted(path)
    assert is_left_out("only") == (not is_counted(path))
    assert not is_left_out(None)


def test_files_that_are_begun_first_are_there() -> None:
    assert [name for name in LONGEST if not list(TESTS.rglob(f"test_{name}.py"))] == []
