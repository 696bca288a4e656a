"""What there is to know of one option."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from chp_gevent.config.readers import Reader

_T_co = TypeVar("_T_co", covariant=True)


@dataclass(frozen=True)
class Option(Generic[_T_co]):
    """An option of the command line; its usage text, its validation and its docs come from here.

    Attributes:
        flag: ``--name``.
        read: reads its value.
        help: what ``--help`` says of it.
        meaning: what docs/options.md says of it, in Markdown.
        since: the version of CHP that has had it first, or ``ours``.
        metavar: what stands for its value; empty for a switch.
        alias: another flag, of one letter.
        default: the value that is read when none is given; None if there is none.
        shown_default: what the page says instead of it, in Markdown.
        difference: how it is different from CHP's, in Markdown.
        repeatable: whether all its values count, not the last one alone.
    """

    flag: str
    read: Reader[_T_co]
    help: str
    meaning: str
    since: str
    metavar: str = ""
    alias: str = ""
    default: str | None = None
    shown_default: str = ""
    difference: str = ""
    repeatable: bool = False
