"""How the requests of a route are forwarded: by the options of the server, and by its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from chp_gevent.config.options import ProxyOptions
from chp_gevent.routing.route_options import RouteOptions

# How many different options of routes what follows from them is kept for.
_REMEMBERED = 1024

CustomHeaders = Mapping[str, tuple[str, str]]


@dataclass(frozen=True, slots=True, eq=False)
class Forwarding:
    """What holds for the requests of a route.

    Attributes:
        strip_prefix: whether the route's prefix is cut off the path.
        tell_prefix: whether the target is told so, in ``X-Forwarded-Prefix``.
        change_origin: whether ``Host`` is that of the target.
        timeout: seconds after which a silent target is a 503; None is never.
        custom: fields that are added or replaced, (name, value) by name in lower case.
    """

    strip_prefix: bool
    tell_prefix: bool
    change_origin: bool
    timeout: float | None
    custom: CustomHeaders


def forwardings(options: ProxyOptions) -> tuple[Forwarding, Callable[[RouteOptions], Forwarding]]:
    """Return what holds for routes without options, and what tells it of those with options."""
    default = Forwarding(
        strip_prefix=not options.include_prefix,
        # CHP says nothing of it.
        tell_prefix=False,
        change_origin=options.change_origin,
        timeout=options.proxy_timeout,
        custom=_by_name(options.custom_headers),
    )

    @lru_cache(_REMEMBERED)
    def with_options(of_route: RouteOptions) -> Forwarding:
        strip_prefix, change_origin = of_route.strip_prefix, of_route.change_origin
        return Forwarding(
            strip_prefix=default.strip_prefix if strip_prefix is None else strip_prefix,
            tell_prefix=strip_prefix is True and options.x_forward,
            change_origin=default.change_origin if change_origin is None else change_origin,
            timeout=default.timeout if of_route.timeout is None else of_route.timeout or None,
            custom={**default.custom, **_by_name(of_route.headers)},
        )

    return default, with_options


def _by_name(headers: Iterable[tuple[str, str]]) -> CustomHeaders:
    return {name.lower(): (name, value) for name, value in headers}
