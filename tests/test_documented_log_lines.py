"""What docs/operations.md quotes of the log is what the code writes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.log_lines import GAP, is_logged

PAGE = Path(__file__).parents[1] / "docs" / "operations.md"

# The columns of the two tables that quote lines: what users see and what the server does; the line.
COLUMNS = {"What fails, and how": (1, 2), "The log": (0,)}
# Quoted there too, though no line has it.
OTHERS = {"docker run -t"}


def table(heading: str) -> list[list[str]]:
    """The cells of the rows of the table under a heading."""
    text = PAGE.read_text("utf-8").split(f"\n## {heading}\n")[1].split("\n## ")[0]
    rows = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows[2:]]


def quoted() -> Iterator[str]:
    """The quoted lines: what has several words, or a gap, and is no option."""
    for heading, columns in COLUMNS.items():
        for row in table(heading):
            for column in columns:
                for quote in re.findall(r"`([^`]+)`", row[column]):
                    if re.search(f"[ {GAP}]", quote) and not quote.startswith("--"):
                        yield quote


QUOTES = sorted(set(quoted()) - OTHERS)


def test_lines_are_quoted_at_all() -> None:
    assert len(QUOTES) > 30


@pytest.mark.parametrize("line", QUOTES)
def test_a_quoted_line_is_one_that_the_code_writes(line: str) -> None:
    assert is_logged(line)


@pytest.mark.parametrize(
    "line",
    [
        "503 GET /x 127.0.0.1:9: connection refused",
        "WORKER TIMEOUT (pid:7)",
        "cannot start a worker: …; trying again in … s",
        "… log lines were dropped: …",
        "REST API is not authenticated.",
        "Error in handler for GET /x: …",
    ],
)
def test_lines_that_are_logged_are_known(line: str) -> None:
    assert is_logged(line)


@pytest.mark.parametrize(
    "line",
    [
        "error while answering GET /x",
        "error while answering …",
        "503 GET /x connection is refused",
        "the worker has died of old age",
        "worker died",
        "management process (pid …) died; starting it again",
        "… log lines were lost: …",
        "reloaded: … new workers run",
    ],
)
def test_lines_that_are_not_logged_are_known_as_such(line: str) -> None:
    assert not is_logged(line)
