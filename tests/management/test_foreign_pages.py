"""Which pages may not call an API without a token, and under what names it is called."""

from __future__ import annotations

import socket
from contextlib import closing

import pytest

from chp_gevent.config.options import TcpAddress, UnixAddress
from chp_gevent.management.foreign_pages import ForeignPages, own_names

LOOPBACK = frozenset(("localhost", "hub-api"))
NOWHERE_IN_PARTICULAR: frozenset[str] | None = None


def refusal(names: frozenset[str] | None, **fields: str) -> str:
    """Return why a call with these header fields is refused."""
    environ = {f"HTTP_{name.upper()}": value for name, value in fields.items()}
    return ForeignPages(names).refusal(environ)


@pytest.mark.parametrize("names", [LOOPBACK, NOWHERE_IN_PARTICULAR])
@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "https://evil.example:8001",
        "http://localhost",
        "http://localhost:8000",
        "http://localhost:8001.evil.example",
        "http://evil.example/localhost:8001",
        "http://localhost:8001@evil.example",
        "http://localhost:8001, http://evil.example",
        "http://[localhost:8001",
        "localhost:8001",
        "file://",
        "null",
        "",
    ],
)
def test_a_page_of_another_origin_is_refused_and_told_so_in_one_line(
    names: frozenset[str] | None, origin: str
) -> None:
    reason = refusal(names, host="localhost:8001", origin=origin)
    assert reason.startswith(f"Pages of {origin} may not call")
    assert reason.endswith("set CONFIGPROXY_AUTH_TOKEN")


@pytest.mark.parametrize("names", [LOOPBACK, NOWHERE_IN_PARTICULAR])
@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("localhost:8001", "http://localhost:8001"),
        ("LOCALHOST:8001", "https://localhost:8001"),
        ("[::1]:8001", "http://[::1]:8001"),
    ],
)
def test_a_page_of_the_api_itself_is_not_refused(
    names: frozenset[str] | None, host: str, origin: str
) -> None:
    assert refusal(names, host=host, origin=origin) == ""


@pytest.mark.parametrize(
    "host",
    [
        *"localhost localhost:8001 LocalHost:9 localhost.:9 hub-api:8001 Hub-API".split(),
        *"127.0.0.1 127.0.0.1:8001 127.9.9.9:1 [::1] [::1]:8001 [::ffff:127.0.0.1]:1".split(),
        "",
    ],
)
def test_an_api_on_loopback_may_be_called_by_names_and_addresses_of_loopback(host: str) -> None:
    assert refusal(LOOPBACK, host=host) == ""


@pytest.mark.parametrize(
    "host",
    [
        *"evil.example evil.example:8001 localhost.evil.example 127.0.0.1.evil.example".split(),
        *"192.0.2.1 0.0.0.0:8001 [::2]:8001 [::ffff:192.0.2.1] 2130706433 127.1".split(),
    ],
)
def test_an_api_on_loopback_may_not_be_called_by_a_name_that_anyone_can_make_lead_there(
    host: str,
) -> None:
    reason = refusal(LOOPBACK, host=host, origin=f"http://{host}")
    assert reason.startswith(f"An API on loopback without a token may not be called {host}: ")
    assert refusal(NOWHERE_IN_PARTICULAR, host=host, origin=f"http://{host}") == ""


def test_of_what_was_sent_the_beginning_is_shown() -> None:
    assert len(refusal(LOOPBACK, host="a", origin="x" * 9999)) < 250
    assert len(refusal(LOOPBACK, host="x" * 9999)) < 250


@pytest.mark.parametrize(
    ("bound", "told", "names"),
    [
        ("127.0.0.1", TcpAddress("Hub-API.", 0), {"localhost", "hub-api"}),
        ("127.0.0.2", TcpAddress("127.0.0.2", 0), {"localhost", "127.0.0.2"}),
        ("0.0.0.0", TcpAddress("", 0), None),
        ("0.0.0.0", TcpAddress("localhost", 0), None),
        ("127.0.0.1", UnixAddress("/run/api"), None),
    ],
)
def test_only_an_api_that_listens_on_loopback_has_names_of_its_own(
    bound: str, told: TcpAddress | UnixAddress, names: set[str] | None
) -> None:
    with closing(socket.create_server((bound, 0))) as listener:
        assert own_names([listener], told) == names
