"""Room in a server that is full: whose connections are closed to take new ones. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from heapq import nsmallest
from typing import NamedTuple, Protocol

# Seconds that a client has for its first request before those who have had an answer are
# preferred to it: three round trips of a bad mobile network, for TCP and TLS, take one.
_PATIENCE = 2.0

# Connections chosen at once. One look at 10,000 takes 2 ms; so it is one for each 64 new ones.
MOST = 64


class Silence(NamedTuple):
    """A connection on which no answer is being made.

    Attributes:
        since: when its client was last heard of, monotonic.
        proven: whether it has had an answer before and may ask again.
    """

    since: float
    proven: bool


class MaybeSilent(Protocol):
    """A connection, as far as this module needs to know it."""

    def silence(self) -> Silence | None:
        """Return None while a request is being answered."""

    def make_room(self) -> bool:
        """Close the connection, unless something has just arrived on it."""


class Candidate(NamedTuple):
    """A connection that may be closed as long as its silence is still the same."""

    connection: MaybeSilent
    silence: Silence


def first_to_go(connections: Iterable[MaybeSilent], now: float) -> list[Candidate]:
    """Return at most ``MOST`` silent connections, the first to be closed last.

    Those go first from which nothing has come that could be answered, though they have had
    time: who opens connections to lock others out has many. Then those that are kept for
    requests which may come, the longest idle before the others.
    """
    silent = (
        Candidate(connection, silence)
        for connection in connections
        if (silence := connection.silence()) is not None
    )

    def order(candidate: Candidate) -> tuple[int, float]:
        since, proven = candidate.silence
        if proven:
            return 1, since
        return 0 if now - since >= _PATIENCE else 2, since

    return nsmallest(MOST, silent, key=order)[::-1]
