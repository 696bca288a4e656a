"""The client of a request that came through somebody else's WSGI server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from chp_gevent.http.answer import AnswerFields, Headers
from chp_gevent.http.body import ClientGone
from chp_gevent.http.peer import Peer, peer_address
from chp_gevent.http.section import Field, HeaderSection
from chp_gevent.http.wire import RequestHead


class WSGIBody:
    """``wsgi.input`` with the interface of :class:`~chp_gevent.http.body.RequestBody`.

    ``length`` is in bytes; None for a body that lasts until the input ends, of a server that
    sees to its end (``wsgi.input_terminated``).
    """

    _PIECE = 65536

    def __init__(self, source: Any, length: int | None) -> None:
        self._source = source
        self._left = length
        self.trailers: list[Field] = []

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
            size = self._PIECE if self._left is None else min(self._left, self._PIECE)
            piece = self._source.read(size)
            if self._left is not None:
                if not piece:
                    raise ClientGone
                self._left -= len(piece)
            elif not piece:
                self._left = 0
                return
            yield piece


class WSGIClient:
    """What :class:`~chp_gevent.http.connection.ClientConnection` is to the application,
    as far as a plain environ allows.
    """

    wait_deadline = float("inf")

    def __init__(self, head: RequestHead, body: WSGIBody, peer: Peer) -> None:
        self.head = head
        self.body = body
        self.peer = peer
        self.response_trailers: Headers = []
        self.prepared: AnswerFields | None = None

    @property
    def bound(self) -> None:
        """Nothing: who sends the next request of a connection is not known here."""

    @bound.setter
    def bound(self, connection: Any) -> None:
        if connection is not None:
            connection.close()

    def invite(self) -> bool:
        """Do nothing: that is the server's business."""
        return False

    def inform(self, status: int, reason: str, headers: Headers) -> None:
        """Drop an interim response: WSGI has no way for it."""

    def limit_wait(self, seconds: float | None, error: BaseException | None = None) -> None:
        """Do nothing: the server's own limits apply."""


def client_from_environ(environ: dict[str, Any]) -> WSGIClient:
    """Return the client of a request that is known by its environ only."""
    fields = []
    for key, value in environ.items():
        if key.startswith("HTTP_"):
            fields.append(_field(key[5:], value, key))
        elif key in ("CONTENT_TYPE", "CONTENT_LENGTH") and value:
            fields.append(_field(key, value, key))
    noted: dict[str, list[str]] = {}
    for field in fields:
        if field.lower not in ("upgrade", "transfer-encoding", "te"):
            noted[field.lower] = [field.value]
    if "connection" in noted:
        options = noted["connection"][0].split(",")
        noted["connection"] = [o for o in options if o.strip().lower() != "upgrade"]
    length = _body_length(environ)
    query = environ.get("QUERY_STRING", "")
    path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
    target = quote(path.encode("latin-1")) + (f"?{query}" if query else "")
    head = RequestHead(
        environ["REQUEST_METHOD"],
        environ.get("RAW_URI") or target,
        environ.get("SERVER_PROTOCOL") == "HTTP/1.0",
        HeaderSection(fields, noted, length, chunked=length is None),
    )
    secure = environ.get("wsgi.url_scheme") == "https"
    peer = Peer(peer_address(environ.get("REMOTE_ADDR", "")), secure, trusted=True)
    return WSGIClient(head, WSGIBody(environ["wsgi.input"], length), peer)


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
