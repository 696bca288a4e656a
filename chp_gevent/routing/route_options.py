"""Options of one route: fields of what is posted that say how its requests are forwarded. Pure.

They are ours; to CHP they are fields like any others, which it keeps and shows. A route without
them, or with null for one, is forwarded as the server's options say.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from chp_gevent.routing.custom_headers import fault_of_name, is_value

NAMES: Final = frozenset(("strip_prefix", "change_origin", "timeout", "headers"))

# Seconds. That of --proxy-timeout, a millisecond, and a day: who writes more means milliseconds.
_SHORTEST_TIMEOUT: Final = 0.001
_LONGEST_TIMEOUT: Final = 86_400
# Characters of all names and values. A target that is Node.js takes 16 KB of a whole head.
_MAX_HEADERS: Final = 16_384
# Characters of a name that a message quotes.
_SHOWN: Final = 80


class RouteOptions(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The options of a route; None is as the server's.

    Part of a record of the journal, so what is added comes at the end.

    Attributes:
        strip_prefix: whether the route's prefix is cut off the path of a request.
        change_origin: whether ``Host`` is that of the target.
        timeout: seconds after which a silent target is a 503; 0 is never.
        headers: names and values of fields that are added to a request, or replace those it has.
    """

    strip_prefix: bool | None = None
    change_origin: bool | None = None
    timeout: float | None = None
    headers: tuple[tuple[str, str], ...] = ()


_NONE: Final = RouteOptions()


def route_options(data: Mapping[str, Any]) -> RouteOptions | None:
    """Return the options in the data of a route, or None if there are none.

    Raises:
        ValueError: one of them can't be used; the message is one line that names it.
    """
    # One look in C is all that a route without options costs.
    if NAMES.isdisjoint(data):
        return None
    options = RouteOptions(
        _flag(data, "strip_prefix"),
        _flag(data, "change_origin"),
        _timeout(data.get("timeout")),
        _headers(data.get("headers")),
    )
    return None if options == _NONE else options


def _flag(data: Mapping[str, Any], name: str) -> bool | None:
    value = data.get(name)
    if value is None or isinstance(value, bool):
        return value
    raise ValueError(f"Invalid '{name}': it is neither true nor false")


def _timeout(value: Any) -> float | None:
    if value is None:
        return None
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if is_number and (value == 0 or _SHORTEST_TIMEOUT <= value <= _LONGEST_TIMEOUT):
        return float(value)
    raise ValueError(
        f"Invalid 'timeout': it is not a number of seconds from {_SHORTEST_TIMEOUT} to "
        f"{_LONGEST_TIMEOUT}, or 0 for never"
    )


def _headers(value: Any) -> tuple[tuple[str, str], ...]:
    """Return names and trimmed values; of names that differ in case only, the last one counts."""
    if value is None:
        return ()
    if not isinstance(value, dict):
        raise ValueError("Invalid 'headers': it is not an object of names and values")
    headers: dict[str, tuple[str, str]] = {}
    for name, text in value.items():
        if fault := fault_of_name(name):
            raise ValueError(f"Invalid 'headers': {name[:_SHOWN]!r} {fault}")
        # The value may be a secret: not for the log.
        if not isinstance(text, str) or not is_value(text):
            raise ValueError(f"Invalid 'headers': that of {name!r} is not a value for a header")
        headers[name.lower()] = (name, text.strip(" \t"))
    if sum(len(name) + len(text) for name, text in headers.values()) > _MAX_HEADERS:
        raise ValueError(f"Invalid 'headers': they have more than {_MAX_HEADERS} characters")
    return tuple(headers.values())
