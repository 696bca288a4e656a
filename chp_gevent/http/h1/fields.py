"""Header sections: their lines, and what those say of framing and the connection. Pure.

The grammar is that of ``wire``; a section is the same in requests, responses and trailers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from chp_gevent.http.errors import WireError

# RFC 9110, 5.6.2; shared with the grammar of bodies.
TOKEN_PATTERN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
TOKEN = re.compile(TOKEN_PATTERN)
# RFC 9110, 7.2, without commas: a list of hosts is what some make of two Host lines.
HOST = re.compile(r"(?:[A-Za-z0-9\-._~!$&'()*+;=%]*|\[[0-9A-Za-z:.%\-_~]+\])(?::[0-9]*)?")
_CONTROLS = bytes(c for c in range(0x20) if c != 0x09) + b"\x7f"

# Fields that decide about framing, routing or the life of the connection.
_KNOWN = frozenset(
    (
        "authorization connection content-length date expect host location te"
        " transfer-encoding upgrade"
    ).split()
)


class Field(NamedTuple):
    """One header line: name as sent, value, lower-case name, CGI name (``HTTP_…``)."""

    name: str
    value: str
    lower: str
    cgi: str


def serialise_fields(headers: Iterable[tuple[str, str]]) -> bytes:
    """Return header lines, without the empty line that ends a section."""
    return "".join([f"{name}: {value}\r\n" for name, value in headers]).encode("latin-1")


class ResponseFields:
    """The header fields of an answer, and what a server has to know of them.

    Args:
        fields: as below.
        block: the same as somebody else has sent them, to be sent on byte for byte.

    Raises ``ValueError`` for line breaks in a field: they would end it, or the head.

    Attributes:
        fields: the fields; not to be changed.
        block: the same as they are sent.
        content_length: what ``Content-Length`` says in bytes, None if there is none.
        dated: whether there is a ``Date``.
    """

    __slots__ = ("block", "content_length", "dated", "fields")

    def __init__(self, fields: list[tuple[str, str]], block: bytes | None = None) -> None:
        self.fields = fields
        self.block = serialise_fields(fields) if block is None else block
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


ForwardedKey = tuple[object, ...]

# Of sections from which nothing has gone on, so that each needs no dictionary of its own.
_NOT_FORWARDED: dict[ForwardedKey, bytes] = {}


class HeaderSection:
    """The header lines of a message, and what they say about it.

    Attributes:
        fields: the lines in their order.
        known_values: the values of the fields that matter here, by lower-case name.
        content_length: of the body, in bytes; None if not given.
        chunked: whether the body is chunked.
        connection_options: what ``Connection`` names, lower case.
        keep_alive: whether the connection may carry another message after this one.
        has_body: whether a request with these lines has a body (RFC 9112, 6.3: by its framing,
            whatever the method).
        upgrade: the protocol asked for with ``Connection: upgrade``, lower case, or empty.
            HTTP/1.0 can't ask (RFC 9110, 7.8).
        authenticates_connection: whether what carries these lines must carry no request of
            another client any more.
        variables: of a request, the fields as ``http.environ`` gives them to applications, once
            it has.
        answer: of an answer, the fields that go on to a client, once they are known.
        forwarded: of a request, the section that goes on to a target, by who sent it, whether as
            an upgrade, and the target's origin. See :meth:`keep_forwarded`.
    """

    __slots__ = (
        "_memory",
        "answer",
        "authenticates_connection",
        "chunked",
        "connection_options",
        "content_length",
        "fields",
        "forwarded",
        "has_body",
        "keep_alive",
        "known_values",
        "upgrade",
        "variables",
    )

    def __init__(
        self,
        fields: list[Field],
        known_values: dict[str, list[str]],
        content_length: int | None,
        chunked: bool,
        *,
        http_1_0: bool = False,
    ) -> None:
        self.fields = fields
        self.known_values = known_values
        self.content_length = content_length
        self.chunked = chunked
        self.connection_options = options = _connection_options(known_values)
        # RFC 9112, 9.3
        self.keep_alive = "close" not in options and (not http_1_0 or "keep-alive" in options)
        self.has_body = chunked or bool(content_length)
        self.upgrade = ""
        if "upgrade" in options and not http_1_0:
            self.upgrade = _upgrade(known_values.get("upgrade", ()), fields)
        self.authenticates_connection = "authorization" in known_values and any(
            value.partition(" ")[0].lower() in _OF_CONNECTIONS
            for value in known_values["authorization"]
        )
        self.variables: dict[str, str] | None = None
        self.answer: ResponseFields | None = None
        self.forwarded = _NOT_FORWARDED
        self._memory: SectionMemory | None = None

    def keep_forwarded(self, key: ForwardedKey, section: bytes) -> None:
        """Remember what goes on to a target, if these lines are remembered themselves."""
        memory = self._memory
        if memory is None:
            return
        if self.forwarded is _NOT_FORWARDED or len(self.forwarded) >= _MAX_FORWARDED:
            self.forwarded = {}
        self.forwarded[key] = section
        memory.take(len(section) + _FORWARDED_BYTES)

    def remembered_in(self, memory: SectionMemory) -> None:
        """Take note of what remembers these lines."""
        self._memory = memory


# Schemes that authenticate a connection instead of a request (RFC 4559, 6).
_OF_CONNECTIONS = ("ntlm", "negotiate")


def _upgrade(values: Iterable[str], fields: Iterable[Field]) -> str:
    """Return the protocol that a request asks for; of several, WebSocket if it can be that.

    A client may offer ``h2c, websocket``; the fields of a handshake tell whether it means it.
    """
    protocols = [protocol.strip().lower() for protocol in ",".join(values).split(",")]
    if len(protocols) > 1 and "websocket" in protocols:
        is_handshake = any(field.lower == "sec-websocket-key" for field in fields)
        return "websocket" if is_handshake else ""
    return protocols[0] if len(protocols) == 1 else ""


# A header section has room for 20,000 options, which take 10 ms and more than a megabyte.
_MAX_CONNECTION_OPTIONS = 100
_NO_OPTIONS: frozenset[str] = frozenset()
_KEEP_ALIVE = frozenset(("keep-alive",))

# Clients repeat their header lines; a parsed line is remembered (saves 0.25 µs a line).
# Bounded, and emptied when full: an attacker can only make it useless.
_FIELD_CACHE: dict[str, Field] = {}
_FIELD_CACHE_SIZE = 4096
_FIELD_CACHE_LINE = 256
# What that takes at the most, in bytes: lines of nothing but a long name.
_FIELD_CACHE_MOST = 6_000_000


def _parse_field(line: str) -> Field:
    name, colon, value = line.partition(":")
    if not colon or not TOKEN.fullmatch(name):
        # Also a folded line (obs-fold) and a space before the colon (RFC 9112, 5.1 and 5.2).
        raise WireError("malformed header line")
    lower = name.lower()
    cgi = lower.upper().replace("-", "_")
    value = value.strip(" \t")
    if lower not in ("content-type", "content-length"):
        cgi = "HTTP_" + cgi
    elif lower == "content-length":
        value = _without_zeros(value)
    field = Field(name, value, lower, cgi)
    if len(line) <= _FIELD_CACHE_LINE:
        if len(_FIELD_CACHE) >= _FIELD_CACHE_SIZE:
            _FIELD_CACHE.clear()
        _FIELD_CACHE[line] = field
    return field


def _without_zeros(length: str) -> str:
    """Return a length as it is forwarded: to some, ``010`` is 8."""
    return length.lstrip("0") or length[-1:]


def _parse_fields(lines: Iterable[str]) -> tuple[list[Field], dict[str, list[str]]]:
    cached = _FIELD_CACHE.get
    fields = [cached(line) or _parse_field(line) for line in lines]
    known_values: dict[str, list[str]] = {}
    for _, value, lower, _ in fields:
        if lower in _KNOWN:
            if lower in known_values:
                known_values[lower].append(value)
            else:
                known_values[lower] = [value]
    return fields, known_values


def _head_lines(block: bytes) -> list[str]:
    lines = block.decode("latin-1").split("\r\n")
    # One pass in C finds NUL, bare CR, bare LF and every other control character.
    if len(block) - len(block.translate(None, _CONTROLS)) != 2 * (len(lines) - 1):
        raise WireError("control character in the header section")
    return lines


# Different clients and targets for which it is remembered what goes on.
_MAX_FORWARDED = 8

# What a remembered section takes, in bytes, with what is derived from it: so much for each field
# (lines are objects of five strings), its own bytes three times, and so much for the rest. And
# what each form of it that goes on to a target takes beside its own bytes. (tracemalloc's figures.)
_FIELD_BYTES = 360
_COPIES = 3
_SECTION_BYTES = 600
_FORWARDED_BYTES = 300


class SectionMemory:
    """Remembers HTTP/1.1 sections, by their bytes, with what is derived from them.

    They come again: those of a client that polls, or of answers within the same second. It saves
    6 µs of a small request and 9 µs of its answer.

    Attributes:
        get: returns the section of these bytes, or None.
    """

    MOST_BYTES = 10_000_000
    """What all of them may take. Then they are forgotten: clients can do no worse, and a thousand
    browsers fit in."""
    MOST = 1024
    LARGEST = 2048
    """Bytes of a section that is remembered."""
    MOST_FIELDS = 32

    __slots__ = ("_left", "_sections", "get")

    def __init__(self) -> None:
        self._sections: dict[bytes, HeaderSection] = {}
        self._left = self.MOST_BYTES
        self.get = self._sections.get

    def __len__(self) -> int:
        return len(self._sections)

    def add(self, block: bytes, section: HeaderSection) -> None:
        """Remember a section, unless it is too large."""
        fields = len(section.fields)
        if len(block) > self.LARGEST or fields > self.MOST_FIELDS:
            return
        if len(self._sections) >= self.MOST:
            self.clear()
        self.take(_FIELD_BYTES * fields + _COPIES * len(block) + _SECTION_BYTES)
        self._sections[block] = section
        section.remembered_in(self)

    def take(self, size: int) -> None:
        """Take note that something of so many bytes is remembered; forget all if it is too much."""
        if size > self._left:
            self.clear()
        self._left -= size

    def clear(self) -> None:
        """Forget all."""
        self._sections.clear()
        self._left = self.MOST_BYTES


REQUEST_SECTIONS = SectionMemory()
RESPONSE_SECTIONS = SectionMemory()


def parse_section(block: bytes, http_1_0: bool, memory: SectionMemory) -> HeaderSection:
    """Parse the lines behind the first one, or find them in ``memory``."""
    if not http_1_0:
        section = memory.get(block)
        if section is not None:
            return section
    fields, known_values = _parse_fields(_head_lines(block)) if block else ([], {})
    section = HeaderSection(
        fields, known_values, *_framing(known_values, http_1_0), http_1_0=http_1_0
    )
    if memory is REQUEST_SECTIONS:
        _check_host(known_values.get("host"), http_1_0)
    if not http_1_0:
        memory.add(block, section)
    return section


def _check_host(hosts: list[str] | None, http_1_0: bool) -> None:
    if hosts is None:
        if not http_1_0:
            raise WireError("no Host header")
    elif len(hosts) != 1 or not HOST.fullmatch(hosts[0]):
        raise WireError("malformed or duplicate Host header")


def _connection_options(known_values: dict[str, list[str]]) -> frozenset[str]:
    values = known_values.get("connection")
    if values is None:
        return _NO_OPTIONS
    if len(values) == 1 and values[0] == "keep-alive":
        return _KEEP_ALIVE
    if sum(value.count(",") for value in values) > _MAX_CONNECTION_OPTIONS:
        raise WireError("too many connection options")
    return frozenset(
        option.strip(" \t").lower() for value in values for option in value.split(",")
    ) - {""}


def _framing(known_values: dict[str, list[str]], http_1_0: bool) -> tuple[int | None, bool]:
    """Return (content length, chunked) or raise when they are not beyond doubt."""
    codings = known_values.get("transfer-encoding")
    lengths = known_values.get("content-length")
    if codings is not None:
        if lengths is not None:
            raise WireError("both Content-Length and Transfer-Encoding")
        if http_1_0:
            raise WireError("Transfer-Encoding in an HTTP/1.0 message")
        if len(codings) != 1 or codings[0].lower() != "chunked":
            raise WireError("Transfer-Encoding other than chunked")
        return None, True
    if lengths is None:
        return None, False
    length = lengths[0]
    if len(lengths) != 1 or not (length.isascii() and length.isdigit()) or len(length) > 18:
        raise WireError("malformed Content-Length")
    return int(length), False


def parse_trailers(block: bytes) -> list[Field]:
    """Return the fields of a trailer section without its empty line. Raises ``WireError``."""
    return _parse_fields(_head_lines(block))[0]
