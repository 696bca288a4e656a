"""What the documentation shows: the blocks of its pages, and the commands in them."""

from __future__ import annotations

import re
from pathlib import Path

from tests.kit.server import REPOSITORY

DOCS = REPOSITORY / "docs"

_BLOCK = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)


def section(page: Path, heading: str) -> str:
    """Return what is under a heading of a page, subordinate headings included.

    Raises ``AssertionError`` when there is no such heading.
    """
    text = page.read_text("utf-8")
    found = re.search(rf"^(#+) {re.escape(heading)}$", text, re.MULTILINE)
    assert found is not None, f"{page.name} has no heading {heading!r}"
    rest = text[found.end() :]
    end = re.search(rf"^#{{1,{len(found[1])}}} ", _BLOCK.sub(_blank, rest), re.MULTILINE)
    return rest[: end.start()] if end else rest


def blocks(text: str, language: str) -> list[str]:
    """Return the contents of the fenced blocks of a text that are in this language."""
    return [
        re.sub(rf"^{found[1]}", "", found[3], flags=re.MULTILINE)
        for found in _BLOCK.finditer(text)
        if found[2] == language
    ]


def commands(block: str) -> list[str]:
    """Return the commands of a console block, with the lines that continue them."""
    return re.findall(r"^\$ ((?:.*\\\n)*.*\n)", block, re.MULTILINE)


def printed(block: str) -> list[str]:
    """Return the lines of a console block that are shown as what a command prints."""
    return re.sub(r"^\$ (?:.*\\\n)*.*\n", "", block, flags=re.MULTILINE).splitlines()


def _blank(found: re.Match[str]) -> str:
    return re.sub(r"[^\n]", " ", found[0])
