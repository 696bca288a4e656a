"""Room in a server that is full: whose connections are closed to take new ones. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from heapq import nsmallest
from typing import Protocol, TypeVar

# Seconds that a client has for its first request before those who have had an answer are
# preferred to it: three round trips of a bad mobile network, for TCP and TLS, take one.
PATIENCE = 2.0

# Connections chosen at once. To look at 10,000 takes 5 ms: 20 µs for each that is chosen.
MOST = 256

# Who goes first, who goes last.
_SILENT, _IDLE, _NEW, _REGULAR = range(4)

Turn = tuple[int, float]
"""When a silent connection goes: its class, and since when it has been silent (monotonic)."""


class MaybeSilent(Protocol):
    """A connection, as far as this module needs to know it."""

    def turn(self, now: float) -> Turn | None:
        """Return when it goes (:func:`turn`), None while a request is being answered."""


_Connection = TypeVar("_Connection", bound=MaybeSilent)


def turn(since: float, now: float, *, proven: bool, regulars_stay: bool = False) -> Turn:
    """Return when a connection goes that has been silent ``since`` then.

    Those go first from which nothing has come that could be answered, though they have had
    time: who opens connections to lock others out has many. Then those that are ``proven``:
    kept for requests that may come after others. Each time the longest silent first.

    With ``regulars_stay``, who has been answered just now goes after newcomers: a client that
    is busy would meet a closed connection with a request that it can't repeat.
    """
    recent = now - since < PATIENCE
    if proven:
        return (_REGULAR if regulars_stay and recent else _IDLE), since
    return (_NEW if recent else _SILENT), since


def first_to_go(connections: Iterable[_Connection], now: float) -> list[tuple[Turn, _Connection]]:
    """Return at most ``MOST`` silent connections with their turns, the first one to go last.

    Regulars are among them only if there is nobody else: newcomers will have come by the time
    that all others have gone.
    """
    silent = (
        (turn, number, connection)
        for number, connection in enumerate(connections)
        if (turn := connection.turn(now)) is not None
    )
    chosen = nsmallest(MOST, silent)
    if chosen and chosen[0][0][0] < _REGULAR:
        chosen = [each for each in chosen if each[0][0] < _REGULAR]
    return [(turn, connection) for turn, _, connection in reversed(chosen)]
