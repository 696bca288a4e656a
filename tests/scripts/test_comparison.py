"""The comparison with configurable-http-proxy and its documentation are about the same things."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from scripts.lib.compare import api_cases, option_cases, request_cases, response_cases
from scripts.lib.compare.case import GROUPS
from scripts.lib.compare.known import KNOWN

DOCUMENT = Path(__file__).parents[2] / "docs" / "compatibility.md"
CASES = [*request_cases.CASES, *response_cases.CASES, *option_cases.CASES, *api_cases.CASES]


def test_each_known_difference_has_its_reason_in_the_documentation() -> None:
    headings = re.findall(r"^### (.*)$", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(headings) == sorted({known.name for known in KNOWN})


def test_there_are_many_cases_with_names_of_their_own() -> None:
    assert len(CASES) >= 150
    assert [name for name, count in Counter(c.name for c in CASES).items() if count > 1] == []
    assert {case.group for case in CASES} == set(GROUPS)
