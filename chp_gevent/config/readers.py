"""How values of options are read: from text on a command line to what it means.

A reader takes the command line and a flag. It returns None for an option that is not given, or
given empty, and has no default. It raises `OptionError` for a value that the option can't have.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeVar

from chp_gevent.config.argv import CommandLine
from chp_gevent.routing.target_url import check_host, check_socket_path

_MILLISECONDS_MAX = 2**31 - 1  # longer timers overflow in Node
_INTEGER = re.compile(r"\s*\+?[0-9]{1,18}\s*")
_SECONDS = re.compile(r"\s*[0-9]{1,9}(\.[0-9]{1,9})?\s*")

_T = TypeVar("_T")

Reader = Callable[[CommandLine, str], _T]


def required(reader: Reader[_T | None]) -> Reader[_T]:
    """Read the value of an option that has a default."""

    def read(arguments: CommandLine, flag: str) -> _T:
        value = reader(arguments, flag)
        assert value is not None, f"{flag} has no default"
        return value

    return read


def switch(arguments: CommandLine, flag: str) -> bool:
    """Whether the option without a value was given."""
    return arguments.switch(flag)


def text(arguments: CommandLine, flag: str) -> str | None:
    """Return the value as it stands."""
    return arguments.text(flag)


def texts(arguments: CommandLine, flag: str) -> list[str]:
    """Return all values of an option that may be repeated."""
    return arguments.texts(flag)


def parsed(parse: Callable[[str], _T]) -> Reader[_T | None]:
    """Read what ``parse`` makes of a value; a ValueError's text follows the value in the error."""
    return lambda arguments, flag: arguments.parsed(flag, parse)


def parsed_all(parse: Callable[[str], _T]) -> Reader[list[_T]]:
    """Read what ``parse`` makes of each value of an option that may be repeated."""
    return lambda arguments, flag: arguments.parsed_all(flag, parse)


def whole(minimum: int, maximum: int) -> Reader[int | None]:
    """Read a whole number within bounds."""

    def parse(value: str) -> int:
        if not _INTEGER.fullmatch(value) or not minimum <= int(value) <= maximum:
            raise ValueError(f"is not a whole number from {minimum} to {maximum}")
        return int(value)

    return parsed(parse)


def port(minimum: int = 0) -> Reader[int | None]:
    """Read a TCP or UDP port; 0, where it is allowed, is any free port."""
    return whole(minimum, 65535)


def milliseconds(arguments: CommandLine, flag: str) -> float | None:
    """Read a time in milliseconds, returned in seconds; None for 0, which is never in CHP."""
    value = whole(0, _MILLISECONDS_MAX)(arguments, flag)
    return value / 1000 if value else None


def seconds(minimum: float, maximum: float = 86_400) -> Reader[float | None]:
    """Read a time in seconds, decimals allowed."""

    def parse(value: str) -> float:
        if not _SECONDS.fullmatch(value) or not minimum <= float(value) <= maximum:
            raise ValueError(f"is not a number of seconds ({minimum:g} to {maximum:g})")
        return float(value)

    return parsed(parse)


def host(arguments: CommandLine, flag: str) -> str | None:
    """Read an address or a host name; empty when that was given."""
    if arguments.values[flag] == "":
        return ""
    return arguments.parsed(flag, _checked(check_host))


def socket_path(arguments: CommandLine, flag: str) -> str | None:
    """Read the path of a UNIX socket."""
    return arguments.parsed(flag, _checked(check_socket_path))


def _checked(check: Callable[[str], object]) -> Callable[[str], str]:
    def parse(value: str) -> str:
        check(value)
        return value

    return parse
