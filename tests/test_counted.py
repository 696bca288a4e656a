"""Each test is run once by scripts/test: with branches counted, or without."""

from __future__ import annotations

import pytest

from tests.kit.counted import INTEGRATION, TESTS, UNITS, WITHOUT, is_counted


@pytest.mark.parametrize("name", sorted(INTEGRATION | WITHOUT))
def test_files_that_are_named_are_there(name: str) -> None:
    assert (TESTS / name).is_file()
    assert is_counted(TESTS / name) == (name in INTEGRATION)


@pytest.mark.parametrize("name", sorted(UNITS))
def test_folders_that_are_named_have_tests(name: str) -> None:
    assert any(is_counted(path) for path in (TESTS / name).rglob("test_*.py"))


def test_the_two_runs_have_each_file_once(pytester: pytest.Pytester) -> None:
    pytester.makeconftest("from tests.conftest import pytest_addoption, pytest_ignore_collect")
    counted, other = TESTS / "runtime" / "test_backoff.py", TESTS / "test_imports.py"
    for wanted, file in (("only", counted), ("not", other)):
        found = pytester.runpytest_subprocess(
            "--collect-only", "-q", f"--counted={wanted}", str(counted), str(other)
        )
        lines = {line.partition("::")[0] for line in found.outlines if "::" in line}
        assert {line.rpartition("/")[2] for line in lines} == {file.name}
