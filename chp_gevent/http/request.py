"""A request as an application has it: what HTTP knows of it and WSGI has no words for.

The server puts it into the environ as ``chp.request``. Applications are written against
:class:`ClientRequest`, whatever version of HTTP, or other server, carries the request.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final, Protocol

from chp_gevent.http.access_entry import AccessEntry
from chp_gevent.http.h1.fields import ResponseFields
from chp_gevent.http.h1.heads import RequestHead
from chp_gevent.http.peer import Peer
from chp_gevent.http.response import Headers
from chp_gevent.http.stream import Stream

NEVER: Final = float("inf")
"""The time of what does not happen."""

StartResponse = Callable[..., Callable[[bytes], None]]


class Body(Protocol):
    """The body of a request."""

    @property
    def complete(self) -> bool:
        """Whether it has arrived to its last byte."""

    def take_if_complete(self) -> bytes | None:
        """Return the unread body if all of it is here already, else None."""

    def put_back(self, body: bytes) -> None:
        """Take back what :meth:`take_if_complete` has given."""

    def pieces(self) -> Iterator[bytes]:
        """Yield the body piece by piece as it arrives; a piece is not empty.

        Raises ``WireError`` when it is malformed, :class:`ClientGone` when the client leaves.
        """

    def read(self, size: int = -1) -> bytes:
        """Return ``size`` bytes, less only at the end; all if negative.

        Raises as :meth:`pieces` does.
        """


class Bound(Protocol):
    """What an application keeps for one client connection alone."""

    def close(self) -> None:
        """Give it up: the client has left. Called once, or again."""


class Upgrade(Protocol):
    """Another protocol, which a connection speaks after its request was answered with 101."""

    def start(self, stream: Stream, early: bytes, entry: AccessEntry | None) -> None:
        """Begin: ``stream`` belongs to the protocol from now on.

        Args:
            stream: the connection to the client; the 101 has been sent.
            early: what the client has sent behind its request.
            entry: to be told when the protocol ends, if there is an access log.

        What it raises, ``ClientGone`` or anything else, closes the stream, after a call of
        :meth:`abandon`.
        """

    def abandon(self) -> None:
        """Close what the protocol owns beside the stream: it will not begin."""


class ClientRequest(Protocol):
    """One request, and the way back to who sent it.

    Attributes:
        head: its head.
        body: its body.
        peer: who sent it.
        prepared: the fields of the answer in the form they are sent, if the application has
            them so; used if they are those that it starts its answer with.
        response_trailers: trailer fields to end a chunked answer with.
        bound: what the application keeps for this client's connection alone; closed with it.
        wait_deadline: monotonic time until which the application is willing to wait; ``NEVER``
            while it has set no limit.
    """

    head: RequestHead
    peer: Peer
    prepared: ResponseFields | None
    response_trailers: Sequence[tuple[str, str]]
    wait_deadline: float

    @property
    def body(self) -> Body: ...

    @property
    def bound(self) -> Bound | None: ...

    @bound.setter
    def bound(self, bound: Bound | None) -> None: ...

    def send_interim(self, status: int, reason: str, headers: Headers) -> None:
        """Send an interim response (1xx), unless the client is too old for it.

        Raises :class:`ClientGone`.
        """

    def invite_body(self) -> bool:
        """Tell a client that waits for it to send its body; return whether that was possible.

        Called from the event loop, while nothing is being written. (RFC 9110, 10.1.1)
        """

    def limit_wait(self, seconds: float, error: BaseException) -> None:
        """Have ``error`` raised where the application waits, unless called again in time."""

    def end_wait(self) -> None:
        """Limit the application's waits no more."""

    def note_activity(self) -> None:
        """Take note that the client is not silent, whatever it takes or sends."""

    def upgrade(self, upgrade: Upgrade) -> None:
        """Have the connection speak another protocol, behind the 101 that was started.

        The application returns no body then. ``upgrade`` is started or abandoned, in any case.
        """
