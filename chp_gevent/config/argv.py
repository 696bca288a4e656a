"""From an argument vector to typed values, by the usage text and nothing else.

docopt matches the usage text, but is told no more than it needs: the rules of CHP's own parser
(commander) are applied first, because docopt knows other ones. It takes abbreviated options,
refuses repeated ones (JupyterHub repeats, e.g. ``--log-level``; the last one counts) and answers
every mistake with the whole usage text instead of one line.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from docopt import DocoptExit, docopt

from chp_gevent.config.options import OptionError

HELP = {"-h": "--help", "--help": "--help", "-V": "--version", "--version": "--version"}

_CREDENTIALS = re.compile(r"//[^/]*@")  # of a URL: error messages don't show them

_T = TypeVar("_T")
_T_co = TypeVar("_T_co", covariant=True)


@dataclass(frozen=True)
class CommandLine:
    """The options of one command line, read by flag name.

    An empty value counts as none given, as it does in CHP; ``readers.host`` alone takes it.
    What is not given is the default of the usage text, or None where it has none.
    Every method raises `OptionError` when the value is not what the option takes.
    """

    values: Mapping[str, object]
    defaults: Mapping[str, object]
    given: frozenset[str]

    def switch(self, flag: str) -> bool:
        """Whether the option without a value was given."""
        return bool(self.values[flag])

    def text(self, flag: str) -> str | None:
        """The value as it stands."""
        value = self.values[flag] or self.defaults[flag]
        return str(value) if value else None

    def texts(self, flag: str) -> list[str]:
        """All values of an option that may be repeated."""
        values = self.values[flag]
        assert isinstance(values, list)
        return values

    def parsed(self, flag: str, parse: Callable[[str], _T]) -> _T | None:
        """The value as ``parse`` reads it; a ValueError's text follows the value in the error."""
        value = self.text(flag)
        return None if value is None else _parsed(flag, value, parse)

    def parsed_all(self, flag: str, parse: Callable[[str], _T]) -> list[_T]:
        """All values of an option that may be repeated, as ``parse`` reads each; see ``parsed``."""
        return [_parsed(flag, value, parse) for value in self.texts(flag) if value]

    def get(self, option: Readable[_T_co]) -> _T_co:
        """The value of an option of the table, as that reads it."""
        return option.read(self, option.flag)


def _parsed(flag: str, value: str, parse: Callable[[str], _T]) -> _T:
    try:
        return parse(value)
    except ValueError as error:
        raise OptionError(f"{flag}: {_CREDENTIALS.sub('//***@', value)!r} {error}") from None


class Readable(Protocol[_T_co]):
    """An option, as far as a command line needs to know it."""

    @property
    def flag(self) -> str: ...

    @property
    def read(self) -> Callable[[CommandLine, str], _T_co]: ...


def read(
    usage: str, defaults: Mapping[str, object], argv: Sequence[str], version: str
) -> CommandLine:
    """Match an argument vector with the usage text.

    ``defaults`` has what docopt returns for each flag that is not given: it tells how the flag is
    used, and is not asked of docopt, which takes longer for that than Python to start.
    ``--help`` and ``--version`` are answered on stdout, and end the program with SystemExit(0).

    Raises OptionError for an unknown option, a missing or an unwanted value, and for anything
    that is not an option.
    """
    tokens = _canonical(argv, defaults)
    try:
        values = docopt(usage, argv=tokens, version=version)
    except DocoptExit as error:
        raise OptionError(f"{str(error).splitlines()[0]}; see --help") from None
    return CommandLine(values, defaults, frozenset(token.partition("=")[0] for token in tokens))


def _canonical(argv: Sequence[str], defaults: Mapping[str, object]) -> list[str]:
    """Each option once (the repeatable ones as often as given), complete, as --flag=value."""
    once: dict[str, str] = {}
    repeated: list[str] = []
    remaining = list(argv)
    while remaining:
        token = remaining.pop(0)
        if token in HELP:
            return [HELP[token]]
        if not token.startswith("-") or token in ("-", "--"):
            operands = remaining if token == "--" else [token]
            if not operands:
                break
            raise OptionError(f"too many arguments: {operands[0]!r}; see --help")
        flag, equals, value = token.partition("=")
        default = _known(flag, token, defaults)
        if isinstance(default, bool):
            if equals:
                raise OptionError(f"option '{flag}' takes no value: {token!r}; see --help")
            once[flag] = flag
            continue
        if not equals:
            if not remaining:
                raise OptionError(f"option '{flag}' argument missing; see --help")
            # whatever it looks like, as with commander: --custom-header "--x: y"
            value = remaining.pop(0)
        if isinstance(default, list):
            repeated.append(f"{flag}={value}")
        else:
            once[flag] = f"{flag}={value}"
    return [*once.values(), *repeated]


def _known(flag: str, token: str, defaults: Mapping[str, object]) -> object:
    """The default of a flag of the usage text: its type tells how the flag is used."""
    if flag in defaults:
        return defaults[flag]
    similar = difflib.get_close_matches(flag, defaults, n=1, cutoff=0.7)
    hint = f" (did you mean {similar[0]}?)" if similar else ""
    raise OptionError(f"unknown option {token!r}{hint}; see --help")
