"""A request that came through somebody else's WSGI server."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import quote

from chp_gevent.http.errors import ClientGone
from chp_gevent.http.h1.fields import Field, HeaderSection, ResponseFields
from chp_gevent.http.h1.heads import RequestHead
from chp_gevent.http.peer import Peer, peer_address
from chp_gevent.http.request import NEVER, Bound, ClientRequest, Upgrade
from chp_gevent.http.response import Headers


class WSGIBody:
    """``wsgi.input`` as a :class:`~chp_gevent.http.request.Body`.

    ``length`` is in bytes; None for a body that lasts until the input ends, of a server that
    sees to its end (``wsgi.input_terminated``).
    """

    _PIECE = 65536

    def __init__(self, source: Any, length: int | None) -> None:
        self._source = source
        self._left = length

    @property
    def complete(self) -> bool:
        """Whether the body has been read to its end."""
        return self._left == 0

    def take_if_complete(self) -> bytes | None:
        """Return an empty body, or None when there is something to read."""
        return b"" if self.complete else None

    def put_back(self, body: bytes) -> None:
        """Take back the empty body that :meth:`take_if_complete` has given."""

    def pieces(self) -> Iterator[bytes]:
        """Yield the body piece by piece. Raises ``ClientGone`` when it ends too early."""
        while self._left != 0:
            piece = self.read(self._PIECE)
            if piece:
                yield piece

    def read(self, size: int = -1) -> bytes:
        """Return at most ``size`` bytes, as many as the input gives at once; b"" at the end.

        Raises ``ClientGone`` when that comes too early.
        """
        left = self._left
        if left == 0:
            return b""
        most = size if left is None else left if size < 0 else min(size, left)
        piece: bytes = self._source.read(most)
        if left is not None:
            if not piece:
                raise ClientGone
            self._left = left - len(piece)
        elif not piece:
            self._left = 0
        return piece


class WSGIRequest:
    """A :class:`~chp_gevent.http.request.ClientRequest`, as far as a plain environ allows.

    There are no interim responses, no upgrades and no trailers.
    """

    wait_deadline = NEVER

    def __init__(self, head: RequestHead, body: WSGIBody, peer: Peer) -> None:
        self.head = head
        self.body = body
        self.peer = peer
        self.response_trailers: Sequence[tuple[str, str]] = ()
        self.prepared: ResponseFields | None = None

    @property
    def bound(self) -> Bound | None:
        """Nothing: who sends the next request of a connection is not known here."""
        return None

    @bound.setter
    def bound(self, bound: Bound | None) -> None:
        if bound is not None:
            bound.close()

    def invite_body(self) -> bool:
        """Do nothing: that is the server's business."""
        return False

    def send_interim(self, status: int, reason: str, headers: Headers) -> None:
        """Drop an interim response: WSGI has no way for it."""

    def limit_wait(self, seconds: float, error: BaseException) -> None:
        """Do nothing: the server's own limits apply."""

    def end_wait(self) -> None:
        """Do nothing, likewise."""

    def note_activity(self) -> None:
        """Do nothing, likewise."""

    def upgrade(self, upgrade: Upgrade) -> None:
        """Refuse: no request asks for an upgrade, since its head does not say so."""
        upgrade.abandon()
        raise NotImplementedError("WSGI has no upgrades")


def request_of(environ: dict[str, Any]) -> ClientRequest:
    """Return the request of an environ: the server's own, or what a plain environ tells of it."""
    request: ClientRequest | None = environ.get("chp.request")
    return request if request is not None else _request_from(environ)


def _request_from(environ: dict[str, Any]) -> WSGIRequest:
    fields = []
    for key, value in environ.items():
        if key.startswith("HTTP_"):
            fields.append(_field(key[5:], value, key))
        elif key in ("CONTENT_TYPE", "CONTENT_LENGTH") and value:
            fields.append(_field(key, value, key))
    known_values: dict[str, list[str]] = {}
    for field in fields:
        if field.lower not in ("upgrade", "transfer-encoding", "te"):
            known_values[field.lower] = [field.value]
    if "connection" in known_values:
        options = known_values["connection"][0].split(",")
        known_values["connection"] = [o for o in options if o.strip().lower() != "upgrade"]
    length = _body_length(environ)
    query = environ.get("QUERY_STRING", "")
    path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
    target = quote(path.encode("latin-1")) + (f"?{query}" if query else "")
    head = RequestHead(
        environ["REQUEST_METHOD"],
        environ.get("RAW_URI") or target,
        environ.get("SERVER_PROTOCOL") == "HTTP/1.0",
        HeaderSection(fields, known_values, length, chunked=length is None),
    )
    secure = environ.get("wsgi.url_scheme") == "https"
    peer = Peer(peer_address(environ.get("REMOTE_ADDR", "")), secure, trusted=True)
    return WSGIRequest(head, WSGIBody(environ["wsgi.input"], length), peer)


def _body_length(environ: dict[str, Any]) -> int | None:
    """Return the length of the body in bytes, None if only its end will tell."""
    if environ.get("CONTENT_LENGTH"):
        return int(environ["CONTENT_LENGTH"])
    unframed = "HTTP_TRANSFER_ENCODING" in environ
    if environ.get("SERVER_PROTOCOL", "").startswith("HTTP/2"):
        unframed = environ["REQUEST_METHOD"] not in ("GET", "HEAD")
    return None if unframed and environ.get("wsgi.input_terminated") else 0


def _field(cgi_name: str, value: str, key: str) -> Field:
    name = cgi_name.replace("_", "-").title()
    return Field(name, value, name.lower(), key)
