"""How workers that accept from the same sockets share connections evenly. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from chp_gevent.shared.segment import ACCEPTING, OPEN_CONNECTIONS, OPEN_TUNNELS

# Connections that a worker may have more than the one with the fewest, besides a quarter. With
# none, workers would wait for each other all the time while connections come and go.
_SLACK = 1

# Seconds to leave a new connection to others, for each that is too many, up to so many. On busy
# cores another worker needs some milliseconds to come round its loop; a client hardly notices.
_PAUSE = 0.002
_MOST = 8

# Connections taken at most between two pauses when the other worker takes none, since it hangs:
# at least 4,000 a second.
_LARGEST_TURN = 64


class FairShare:
    """Decides when a worker leaves a new connection to another one.

    The kernel wakes the same one again and again: of 64 connections to 4 workers they got 44,
    15, 5 and 0. ``row`` is the worker's row in the segment, ``others`` are those of the others.
    """

    def __init__(self, row: memoryview[int], others: Sequence[memoryview[int]]) -> None:
        self._row = row
        self._others = others
        self._serving: Sequence[memoryview[int]] = others
        # The worker that was last left a connection, and how many it had.
        self._left_to: tuple[int, int] | None = None
        # Connections to take before the next pause, of how many.
        self._left, self._turn = 0, 1

    def look_around(self) -> None:
        """Take note of which of the others serve; called once a second.

        Reloads leave rows of workers that drain or have ended between those that serve.
        """
        self._serving = [row for row in self._others if row[ACCEPTING]]

    def pause(self, full: bool = False) -> float:
        """Return for how many seconds to leave the next connection to others; mostly 0.

        If the worker is ``full``, whoever has fewer connections has room: all may have as many.

        After a pause the worker takes one connection without asking; more, and each time twice
        as many, while the other worker takes none of those that it is left.
        """
        if self._left:
            self._left -= 1
            return 0.0
        fewest = min(
            (
                (_connections(row), number)
                for number, row in enumerate(self._serving)
                if row[ACCEPTING]
            ),
            default=None,
        )
        if fewest is None:
            return 0.0
        lead = 0 if full else fewest[0] // 4 + _SLACK
        too_many = _connections(self._row) - fewest[0] - lead
        if too_many <= 0:
            return 0.0
        hangs = fewest == self._left_to
        self._left = self._turn = min(self._turn * 2, _LARGEST_TURN) if hangs else 1
        self._left_to = fewest
        return min(too_many, _MOST) * _PAUSE


def _connections(row: memoryview[int]) -> int:
    return row[OPEN_CONNECTIONS] + row[OPEN_TUNNELS]
