"""The client of a request that came through somebody else's WSGI server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from chp_gevent.http.answer import AnswerFields, Headers
from chp_gevent.http.peer import Peer
from chp_gevent.http.wire import Field, HeaderSection, RequestHead


class WSGIBody:
    """``wsgi.input`` with the interface of :class:`~chp_gevent.http.body.RequestBody`."""

    _PIECE = 65536

    def __init__(self, source: Any, length: int) -> None:
        self._source = source
        self._left = length
        self.trailers: list[Field] = []

    @property
    def complete(self) -> bool:
        """Whether the body has been read to its end."""
        return not self._left

    def take_if_complete(self) -> bytes | None:
        """Return an empty body, or None when there is something to read."""
        return None if self._left else b""

    def pieces(self) -> Iterator[bytes]:
        """Yield the body piece by piece."""
        while self._left:
            piece = self._source.read(min(self._left, self._PIECE))
            if not piece:
                break
            self._left -= len(piece)
            yield piece
        self._left = 0


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
        if field.lower not in ("connection", "upgrade", "transfer-encoding", "te"):
            noted[field.lower] = [field.value]
    length = int(environ.get("CONTENT_LENGTH") or 0)
    query = environ.get("QUERY_STRING", "")
    path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
    target = quote(path.encode("latin-1")) + (f"?{query}" if query else "")
    head = RequestHead(
        environ["REQUEST_METHOD"],
        environ.get("RAW_URI") or target,
        environ.get("SERVER_PROTOCOL") == "HTTP/1.0",
        HeaderSection(fields, noted, length, chunked=False),
    )
    secure = environ.get("wsgi.url_scheme") == "https"
    peer = Peer(environ.get("REMOTE_ADDR", ""), secure, trusted=True)
    return WSGIClient(head, WSGIBody(environ["wsgi.input"], length), peer)


def _field(cgi_name: str, value: str, key: str) -> Field:
    name = cgi_name.replace("_", "-").title()
    return Field(name, value, name.lower(), key)
