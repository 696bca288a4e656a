"""What holds for the requests of a route: its own options before those of the server."""

from __future__ import annotations

import pytest

from chp_gevent.config.options import ProxyOptions
from chp_gevent.proxy.forwarding import Forwarding, forwardings
from chp_gevent.routing.route_options import RouteOptions

DEFAULTS = ProxyOptions()
SERVER = ProxyOptions(
    include_prefix=False,
    change_origin=True,
    proxy_timeout=5.0,
    custom_headers=(("X-One", "1"), ("X-Two", "2")),
)


def of(server: ProxyOptions, route: RouteOptions) -> Forwarding:
    """Return what holds for a route with these options."""
    return forwardings(server)[1](route)


def values(forwarding: Forwarding) -> tuple[object, ...]:
    """Return all of it, to compare."""
    return tuple(getattr(forwarding, name) for name in Forwarding.__slots__)


@pytest.mark.parametrize("server", [DEFAULTS, SERVER])
def test_a_route_without_options_is_as_the_server(server: ProxyOptions) -> None:
    default, with_options = forwardings(server)
    assert values(default) == (
        not server.include_prefix,
        False,
        server.change_origin,
        server.proxy_timeout,
        {name.lower(): (name, value) for name, value in server.custom_headers},
    )
    assert values(with_options(RouteOptions())) == values(default)


@pytest.mark.parametrize("server", [DEFAULTS, SERVER])
@pytest.mark.parametrize("said", [True, False])
def test_a_route_says_otherwise(server: ProxyOptions, said: bool) -> None:
    stripped = of(server, RouteOptions(strip_prefix=said))
    assert (stripped.strip_prefix, stripped.tell_prefix) == (said, said)
    assert of(server, RouteOptions(change_origin=said)).change_origin == said
    assert of(server, RouteOptions(timeout=0.5)).timeout == 0.5
    assert of(server, RouteOptions(timeout=0.0)).timeout is None


def test_no_x_forward_is_for_the_prefix_too() -> None:
    stripped = of(ProxyOptions(x_forward=False), RouteOptions(strip_prefix=True))
    assert (stripped.strip_prefix, stripped.tell_prefix) == (True, False)


def test_headers_of_the_route_come_to_those_of_the_server() -> None:
    custom = of(SERVER, RouteOptions(headers=(("x-two", "of the route"), ("X-Three", "3")))).custom
    assert custom == {
        "x-one": ("X-One", "1"),
        "x-two": ("x-two", "of the route"),
        "x-three": ("X-Three", "3"),
    }


def test_equal_options_of_many_routes_are_one_thing() -> None:
    _, with_options = forwardings(SERVER)
    assert with_options(RouteOptions(timeout=1.0)) is with_options(RouteOptions(timeout=1.0))
    assert with_options(RouteOptions(timeout=1.0)) is not with_options(RouteOptions(timeout=2.0))
