"""What is done: how a number of requests, tunnels and changes becomes slices of mixed work."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

# Shares of the requests; what is left is the bulk, 1 KB over kept connections.
SHARES = {
    "new connection": 0.12,  # 1 KB, `Connection: close`
    "varied answer": 0.10,  # no two header sections of answers are the same
    "post": 0.08,  # bodies from 10 bytes to 64 KB
    "no route": 0.04,  # answered 404
    "dead target": 0.03,  # answered 503
    "chunked upload": 0.015,
    "chunked answer": 0.015,
    "client leaves": 0.02,  # in a head, in a body, while it waits, in an answer
    "download": 0.01,  # 1 MB
    "pipelined": 0.01,  # three at a time
    "refused upgrade": 0.005,  # a WebSocket without a route or a living target
}
BULK = "keep-alive"
WRK_KINDS = (BULK, "new connection", "varied answer", "post", "no route", "dead target")

# Every so many-th time that a route was added and another one deleted, both are requested.
CHECK_EVERY = 5
CHECKED = "after a change"

# Routes that come and go; as many are there after each slice.
CHANGING_ROUTES = 1000


@dataclass(frozen=True)
class Slice:
    """The work of one slice.

    Attributes:
        number: from 0.
        requests: how many of each kind.
        tunnels: how many are opened, used and closed.
        changes: route changes.
        first_route: number of the oldest of the changing routes when the slice begins.
    """

    number: int
    requests: Counter[str]
    tunnels: int
    changes: int
    first_route: int


def turns(changes: int) -> int:
    """How often a route is added and the oldest deleted; every tenth change replaces one."""
    return (changes - changes // 10) // 2


def slices(requests: int, tunnels: int, changes: int, count: int) -> list[Slice]:
    """Cut the totals into ``count`` equal slices; what does not divide is in the first ones."""
    planned = []
    first_route = 0
    for number in range(count):
        amounts = (total // count + (number < total % count) for total in (requests, changes))
        of_requests, of_changes = amounts
        planned.append(
            Slice(
                number,
                _mixed(of_requests, turns(of_changes) // CHECK_EVERY * 2),
                tunnels // count + (number < tunnels % count),
                of_changes,
                first_route,
            )
        )
        first_route += turns(of_changes)
    return planned


def _mixed(requests: int, checks: int) -> Counter[str]:
    kinds = Counter({kind: round(share * requests) for kind, share in SHARES.items()})
    kinds[CHECKED] = checks
    kinds[BULK] = max(0, requests - kinds.total())
    return kinds
