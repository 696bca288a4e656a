"""The header fields of an answer, as a server has to know them."""

from __future__ import annotations

from chp_gevent.http.wire import serialise_fields

Headers = list[tuple[str, str]]


class AnswerFields:
    """The header fields of an answer, and what a server has to know of them.

    Raises ``ValueError`` for line breaks in a field: they would end it, or the head.

    Attributes:
        fields: the fields; not to be changed.
        block: the same as they are sent.
        content_length: what ``Content-Length`` says in bytes, None if there is none.
        dated: whether there is a ``Date``.
    """

    __slots__ = ("block", "content_length", "dated", "fields")

    def __init__(self, fields: Headers) -> None:
        self.fields = fields
        self.block = serialise_fields(fields)
        if not self.block.count(b"\n") == self.block.count(b"\r") == len(fields):
            raise ValueError("line break in a header field of an answer")
        self.content_length: int | None = None
        self.dated = False
        for name, value in fields:
            lower = name.lower()
            if lower == "content-length":
                self.content_length = int(value)
            elif lower == "date":
                self.dated = True
