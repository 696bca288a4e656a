"""Options of one route: what is posted, and what is understood or refused."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chp_gevent.routing.route_options import NAMES, RouteOptions, route_options


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"user": "ada", "Timeout": 5, "header": {}, "strip-prefix": True},
        dict.fromkeys(NAMES),
        {"headers": {}},
        # What JupyterHub 6 posts, for a user's server, the hub and a service.
        {"user": "ada", "server_name": "", "target": "http://h:1", "jupyterhub": True},
        {"hub": True, "target": "http://h:1", "jupyterhub": True},
        {"service": "docs", "target": "http://h:1", "jupyterhub": True},
    ],
)
def test_a_route_that_says_nothing_has_no_options(data: dict[str, Any]) -> None:
    assert route_options(data) is None


@pytest.mark.parametrize(
    ("data", "options"),
    [
        ({"strip_prefix": True}, RouteOptions(strip_prefix=True)),
        ({"strip_prefix": False, "change_origin": None}, RouteOptions(strip_prefix=False)),
        ({"change_origin": True}, RouteOptions(change_origin=True)),
        ({"change_origin": False}, RouteOptions(change_origin=False)),
        ({"timeout": 30}, RouteOptions(timeout=30.0)),
        ({"timeout": 0.5}, RouteOptions(timeout=0.5)),
        ({"timeout": 0.001}, RouteOptions(timeout=0.001)),
        ({"timeout": 86_400}, RouteOptions(timeout=86_400.0)),
        ({"timeout": 0}, RouteOptions(timeout=0.0)),
        ({"headers": {"X-A": " a:b\t"}}, RouteOptions(headers=(("X-A", "a:b"),))),
        ({"headers": {"X-A": ""}}, RouteOptions(headers=(("X-A", ""),))),
        ({"headers": {"X-A": "caf\xe9"}}, RouteOptions(headers=(("X-A", "caf\xe9"),))),
        (
            {"headers": {"X-A": "1", "B": "2", "x-a": "3"}},
            RouteOptions(headers=(("x-a", "3"), ("B", "2"))),
        ),
    ],
)
def test_what_is_posted_is_understood(data: dict[str, Any], options: RouteOptions) -> None:
    assert route_options({"target": "http://h:1", **data}) == options


NO_BOOLEANS: list[Any] = [0, 1, "true", "", [], {}]
NO_SECONDS: list[Any] = [True, False, "5", -1, 0.0001, 86_400.5, 10**30, [], {}]
BOOLEAN = "it is neither true nor false"
SECONDS = "it is not a number of seconds from 0.001 to 86400, or 0 for never"
OBJECT = "it is not an object of names and values"


@pytest.mark.parametrize(
    ("name", "value", "fault"),
    [
        *[
            (name, value, BOOLEAN)
            for name in ("strip_prefix", "change_origin")
            for value in NO_BOOLEANS
        ],
        *[("timeout", value, SECONDS) for value in NO_SECONDS],
        *[("headers", value, OBJECT) for value in (True, "X-A: 1", 5, [], [["X-A", "1"]])],
        ("headers", {"": "1"}, "'' is not a name for a header"),
        ("headers", {"X A": "1"}, "'X A' is not a name for a header"),
        ("headers", {"X-A\r\nX-B": "1"}, r"'X-A\r\nX-B' is not a name for a header"),
        ("headers", {"X-\xe9": "1"}, "'X-\xe9' is not a name for a header"),
        ("headers", {" " * 999: "1"}, f"'{' ' * 80}' is not a name for a header"),
        ("headers", {"Content-Length": "1"}, "'Content-Length' is set by the proxy itself"),
        ("headers", {"connection": "x"}, "'connection' is set by the proxy itself"),
        *[
            ("headers", {"X-A": value}, "that of 'X-A' is not a value for a header")
            for value in (1, None, True, ["1"], "secret\r\nX-B: 1", "secret\n", "\x00", "秀")
        ],
        ("headers", {"X-A": "x" * 16_384}, "they have more than 16384 characters"),
    ],
)
def test_what_can_not_be_used_is_refused_in_one_line_that_names_it(
    name: str, value: Any, fault: str
) -> None:
    whole_message = re.escape(f"Invalid '{name}': {fault}") + r"\Z"
    with pytest.raises(ValueError, match=whole_message):
        route_options({"target": "http://h:1", name: value})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(NAMES, JSON)))
def test_nothing_but_a_value_error_is_raised_and_what_is_accepted_can_be_sent(
    data: dict[str, Any],
) -> None:
    try:
        options = route_options(data)
    except ValueError:
        return
    for name, value in options.headers if options else ():
        line = f"{name}: {value}".encode("latin-1")
        assert not set(line) & set(b"\r\n\x00")
