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
from typing import TypeVar

from docopt import DocoptExit, docopt

from chp_gevent.config.options import OptionError
from chp_gevent.routing.target_url import check_host, check_socket_path

HELP = {"-h": "--help", "--help": "--help", "-V": "--version", "--version": "--version"}

_MILLISECONDS_MAX = 2**31 - 1  # longer timers overflow in Node
_INTEGER = re.compile(r"\s*\+?[0-9]{1,18}\s*")
_SECONDS = re.compile(r"\s*[0-9]{1,9}(\.[0-9]{1,9})?\s*")
_CREDENTIALS = re.compile(r"//[^/]*@")  # of a URL: error messages don't show them

_T = TypeVar("_T")


@dataclass(frozen=True)
class CommandLine:
    """The options of one command line, read by flag name.

    An empty value counts as none given, as it does in CHP; ``host`` alone makes a difference.
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
        if value is None:
            return None
        try:
            return parse(value)
        except ValueError as error:
            raise OptionError(f"{flag}: {_CREDENTIALS.sub('//***@', value)!r} {error}") from None

    def integer(self, flag: str, minimum: int, maximum: int) -> int | None:
        """A whole number within bounds."""
        return self.parsed(flag, lambda value: _integer(value, minimum, maximum))

    def port(self, flag: str, minimum: int = 0) -> int | None:
        """A TCP or UDP port; 0, where it is allowed, is any free port."""
        return self.integer(flag, minimum, 65535)

    def milliseconds(self, flag: str) -> float | None:
        """A time in milliseconds, returned in seconds; None for 0, which is never in CHP."""
        value = self.integer(flag, 0, _MILLISECONDS_MAX)
        return value / 1000 if value else None

    def seconds(self, flag: str, minimum: float, maximum: float = 86_400) -> float | None:
        """A time in seconds, decimals allowed."""

        def parse(value: str) -> float:
            if not _SECONDS.fullmatch(value) or not minimum <= float(value) <= maximum:
                raise ValueError(f"is not a number of seconds ({minimum:g} to {maximum:g})")
            return float(value)

        return self.parsed(flag, parse)

    def host(self, flag: str) -> str | None:
        """An address or a host name; empty when that was given."""
        if self.values[flag] == "":
            return ""
        return self.parsed(flag, _host)

    def socket_path(self, flag: str) -> str | None:
        """The path of a UNIX socket."""
        return self.parsed(flag, _socket_path)


def read(usage: str, argv: Sequence[str], version: str) -> CommandLine:
    """Match an argument vector with the usage text.

    ``--help`` and ``--version`` are answered on stdout, and end the program with SystemExit(0).

    Raises OptionError for an unknown option, a missing or an unwanted value, and for anything
    that is not an option.
    """
    defaults = docopt(usage, argv=[])
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


def _integer(value: str, minimum: int, maximum: int) -> int:
    if not _INTEGER.fullmatch(value) or not minimum <= int(value) <= maximum:
        raise ValueError(f"is not a whole number from {minimum} to {maximum}")
    return int(value)


def _host(value: str) -> str:
    check_host(value)
    return value


def _socket_path(value: str) -> str:
    check_socket_path(value)
    return value
