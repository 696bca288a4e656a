"""The texts that are made of the table of options: that of ``--help``, and that of the docs."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from typing import Any

from chp_gevent.config.option import Option
from chp_gevent.config.table import SECTIONS

CHECK = "check"
"""The word before the options that has them checked only."""

_ABOUT = "A configurable HTTP proxy: routes are added and removed at run time over a REST API."
_ABOUT_CHECK = f"With {CHECK}, it says whether it could start with these options, and does not."
# docopt wants a default on one line, and takes a line that begins with a dash for an option.
_UNBROKEN = "\N{NO-BREAK SPACE}"
# What a terminal has at the least, and where the explanations begin.
_WIDTH = 98
_COLUMN = 35
_HEAD = """\
| option | default | meaning | since CHP | differences from CHP 5.3.0 |
| --- | --- | --- | --- | --- |"""


def _options() -> Iterable[Option[Any]]:
    return (option for section in SECTIONS for option in section.options)


def usage() -> str:
    """Return the text of ``--help``, in the form that docopt reads."""
    repeatable = [f" [{_name(each)}]..." for each in _options() if each.repeatable]
    options = f"[options]{''.join(repeatable)}"
    # One line: docopt compares each option with each other one, of all lines.
    lines = [_ABOUT, "", "Usage:", f"  chp-gevent [{CHECK}] {options}", "", _ABOUT_CHECK]
    for title, options_of_section in SECTIONS:
        lines += ["", f"{title}:"]
        for option in options_of_section:
            lines += _explained(option)
    return "\n".join(lines).replace(_UNBROKEN, " ") + "\n"


def defaults() -> dict[str, object]:
    """Return what docopt returns for each flag of :func:`usage` that is not given."""
    return {option.flag: _default(option) for option in _options()}


def _default(option: Option[Any]) -> object:
    if option.repeatable:
        return []
    return option.default if option.metavar else False


def _name(option: Option[Any]) -> str:
    return " ".join(filter(None, (option.flag, option.metavar)))


def _explained(option: Option[Any]) -> list[str]:
    names = f"{option.alias}, {_name(option)}" if option.alias else _name(option)
    text = option.help.replace(" -", f"{_UNBROKEN}-")
    if option.default is not None:
        text += f" [default:{_UNBROKEN}{option.default}]"
    # docopt takes two spaces for the end of the names.
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=f"  {names}  ".ljust(_COLUMN),
        subsequent_indent=" " * _COLUMN,
        break_on_hyphens=False,
    )


def page_table() -> str:
    """Return the table of docs/options.md."""
    return "\n".join([_HEAD, *map(_row, _options())])


def _row(option: Option[Any]) -> str:
    names = f"`{_name(option)}`"
    if option.alias:
        names = f"`{option.alias}`, {names}"
    default = option.shown_default or (f"`{option.default}`" if option.default is not None else "")
    cells = [names, default, option.meaning, option.since, option.difference]
    return "|" + "|".join(f" {cell} " if cell else " " for cell in cells) + "|"
