"""The routing table: longest prefix by path segment, as CHP's trie."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import msgspec

from chp_gevent.routing.route_options import RouteOptions


class Route(msgspec.Struct, frozen=True, gc=False):
    """Where requests under one prefix go.

    Not tracked by the garbage collector (``gc=False``; it refers to nothing that could
    refer back): a full collection of a worker with 100,000 routes stays short.

    Attributes:
        prefix: the canonical path of the route, as ``paths.route_path`` returns it.
        target: URL of the target.
        slot: index of the route's activity slot in the shared segment.
        options: how its requests are forwarded, where that is not as the server's options say.
    """

    prefix: str
    target: str
    slot: int
    options: RouteOptions | None = None


class RouteTable:
    """Routes by prefix.

    A lookup costs by the depth of the deepest route, whatever the number of routes and
    the length of the path.
    """

    def __init__(self) -> None:
        self._routes: dict[str, Route] = {}
        # How many routes have so many segments; ``_deepest`` is the greatest of the keys.
        self._depths: Counter[int] = Counter()
        self._deepest = 0
        # How many routes lead to each target: 5 MB for 100,000 targets.
        self._uses: dict[str, int] = {}

    def add(self, route: Route) -> Route | None:
        """Add a route and return the one that it replaces, if any."""
        replaced = self._routes.get(route.prefix)
        self._routes[route.prefix] = route
        self._uses[route.target] = self._uses.get(route.target, 0) + 1
        if replaced is not None:
            self._forget_use(replaced.target)
        else:
            depth = _depth(route.prefix)
            self._depths[depth] += 1
            if depth > self._deepest:
                self._deepest = depth
        return replaced

    def remove(self, prefix: str) -> Route | None:
        """Remove the route with exactly this prefix and return it, if there is one."""
        route = self._routes.pop(prefix, None)
        if route is not None:
            self._forget_use(route.target)
            depth = _depth(prefix)
            self._depths[depth] -= 1
            if not self._depths[depth]:
                del self._depths[depth]
                self._deepest = max(self._depths, default=0)
        return route

    def find(self, path: str) -> Route | None:
        """Return the route with the longest prefix of ``path``, by whole segments.

        Slashes at both ends of ``path`` don't count, those inside do (``/a//b`` has an
        empty segment), as in CHP. ``/`` is a prefix of every path.

        Args:
            path: a decoded and normalised path, as ``paths.request_path`` returns it.
        """
        routes = self._routes
        deepest = self._deepest
        key = "/" + path.strip("/")
        segments = key.split("/", deepest + 1)
        if len(segments) > deepest + 1:
            # Deeper than any route: cut off what no route can match, so that the loop is
            # as short as the table is deep, even for 8 KB of "/a/a/a".
            key = key[: -1 - len(segments[-1])]
        while key:
            route = routes.get(key)
            if route is not None:
                return route
            key = key[: key.rfind("/")]
        return routes.get("/")

    def get(self, prefix: str) -> Route | None:
        """Return the route with exactly this prefix, if there is one."""
        return self._routes.get(prefix)

    def leads_to(self, target: str) -> bool:
        """Whether any route has this target."""
        return target in self._uses

    def _forget_use(self, target: str) -> None:
        left = self._uses[target] - 1
        if left:
            self._uses[target] = left
        else:
            del self._uses[target]

    def __len__(self) -> int:
        return len(self._routes)

    def __iter__(self) -> Iterator[Route]:
        return iter(self._routes.values())


def _depth(prefix: str) -> int:
    return 0 if prefix == "/" else prefix.count("/")
