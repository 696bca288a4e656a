"""What an access log is told of a request."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from chp_gevent.http.peer import Peer

CLIENT_LEFT = 499
"""What stands for the status where the client left before there was an answer, as with nginx."""


class RequestFacts(NamedTuple):
    """What is told of a request; texts are empty where there is nothing, as of a malformed one."""

    method: str = ""
    target: str = ""
    protocol: str = ""
    referer: str = ""
    user_agent: str = ""


_UNKNOWN = RequestFacts()


class AccessEntry:
    """One request and what became of it; times are monotonic.

    Attributes:
        peer: who sent it.
        request: what it was.
        began: when its head was there.
        ended: when the last of its answer, or of its tunnel, was.
        status: of the answer.
        sent: bytes of the answer's body, or of the tunnel to the client; None for a refusal.
        route: path of the route that it took; empty if it took none.
        answered: when the head of the target's answer was there, or that there would be none; None
            if no target was asked.
    """

    __slots__ = ("answered", "began", "ended", "peer", "request", "route", "sent", "status")

    def __init__(self, peer: Peer, now: float) -> None:
        self.peer = peer
        self.request = _UNKNOWN
        self.began = self.ended = now
        self.status = 0
        self.sent: int | None = 0
        self.route = ""
        self.answered: float | None = None


Access = Callable[[AccessEntry], None]
"""Takes note of a request that is over."""
