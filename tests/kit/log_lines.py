"""Which lines the server can log: found in the calls of its code, so that nobody has to copy them.

A line is made of templates: the format of a call, whose gaps are filled with data (a number, a
path, an address) or with what other texts of the code say (the reason of an error). Both, and the
lines that are asked about, may have gaps: ``…`` in those that a document quotes.
"""

from __future__ import annotations

import ast
import errno
import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import gunicorn.arbiter

import chp_gevent

GAP = "…"
"""What stands for anything, in lines as in templates."""

_CALLS = frozenset(("debug", "info", "warning", "error", "critical", "exception", "log", "Notice"))
_PLACEHOLDER = re.compile(r"%(?:[-+ #0]*\d*(?:\.\d+)?[sdrgf]|%)|\{\}")
# Texts in texts: an address and a reason, in which there is the name of an error.
_DEPTH = 2
# One word of a line that no text of the code needs to have, unlike a word of English.
_DATA = re.compile(r"[^\s…]*[\d/@][^\s…]*|[A-Z]+|…")


def _sources() -> list[Path]:
    ours = sorted(Path(chp_gevent.__path__[0]).rglob("*.py"))
    return [*ours, Path(gunicorn.arbiter.__file__)]


@cache
def _texts() -> tuple[frozenset[str], frozenset[str]]:
    """The templates of calls that log, and all other texts of the code; no docstrings."""
    logged: set[str] = set()
    others: set[str] = set()
    for path in _sources():
        tree = ast.parse(path.read_text("utf-8"))
        docstrings = {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                logged |= set(_logged(node))
            elif isinstance(node, ast.JoinedStr):
                others.add(_joined(node))
            elif node not in docstrings and isinstance(getattr(node, "value", None), str):
                others.add(_template(node.value))  # type: ignore[attr-defined]
    for number in errno.errorcode:
        others |= {os.strerror(number), os.strerror(number).lower()}
    # Texts that are data alone, or as long as a page, are no parts of lines.
    parts = {text for text in others if len(text) < 200 and re.search("[a-z]{3}", text)}
    return frozenset(logged), frozenset(parts)


def _logged(call: ast.Call) -> Iterator[str]:
    function = call.func
    name = getattr(function, "attr", None) or getattr(function, "id", None)
    if name in _CALLS:
        for argument in call.args[: 2 if name in ("log", "Notice") else 1]:
            if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                yield _template(argument.value)
            elif isinstance(argument, ast.JoinedStr):
                yield _joined(argument)
    elif name == "makeLogRecord":
        yield GAP


def _joined(node: ast.JoinedStr) -> str:
    parts = (str(part.value) if isinstance(part, ast.Constant) else GAP for part in node.values)
    return _template("".join(parts))


def _template(text: str) -> str:
    return _PLACEHOLDER.sub(lambda found: "%" if found[0] == "%%" else GAP, text)


def is_logged(line: str) -> bool:
    """Whether the server can log a line, or a part of one, without date and level."""
    return any(_fits(f"{GAP}{line}{GAP}", template, _DEPTH) for template in _texts()[0])


@cache
def _may_fill(content: str, depth: int) -> bool:
    """Whether this may stand where a template has a gap."""
    if _DATA.fullmatch(content):
        return True
    if not depth or not content.strip(f"{GAP} :;"):
        return False
    # Quick looks at both ends leave few texts for the thorough one.
    return any(
        _fits(content, template, depth - 1)
        for template in _texts()[1]
        if (content[0] == template[0] or GAP in (content[0], template[0]))
        and (content[-1] == template[-1] or GAP in (content[-1], template[-1]))
    )


@cache
def _fits(line: str, template: str, depth: int) -> bool:
    """Whether a line and a template can be the same text."""
    if not template or not line:
        return template.strip(GAP) == line.strip(GAP) == ""
    if line[0] == GAP and (_fits(line[1:], template, depth) or _fits(line, template[1:], depth)):
        return True
    if template[0] != GAP:
        return line[0] == template[0] and _fits(line[1:], template[1:], depth)
    rest = template[1:]
    return any(
        _fits(line[end:], rest, depth) and _may_fill(line[:end], depth)
        for end in range(1, len(line) + 1)
        if not rest
        or line[end : end + 1] in (rest[0], GAP)
        or line[end - 1] == GAP
        or rest[0] == GAP
    )
