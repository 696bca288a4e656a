"""HTTP/1.1 on the wire: bytes to messages and back. Pure: no sockets, no clocks.

The grammar is RFC 9112's without its leniencies, for requests and responses alike: what
two implementations could read differently is refused, never guessed. What is parsed here
is always written again in canonical form, so the next hop can't read it differently
either.

Text is ``str`` in latin-1, one character per byte, as PEP 3333 has it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from chp_gevent.http.errors import WireError
from chp_gevent.http.h1.fields import (
    HOST,
    REQUEST_SECTIONS,
    RESPONSE_SECTIONS,
    TOKEN,
    Field,
    HeaderSection,
    parse_section,
    serialise_fields,
)
from chp_gevent.http.limits import LimitOptions

# What is sent, and what bodies come in.
Buffer = bytes | memoryview

HEAD_END = b"\r\n\r\n"

_USUAL_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
# Lines of an answer's header section, most of which would be cookies: nobody has that many, and
# each takes 350 bytes here. Node.js takes 2000 and drops the others in silence.
_MAX_RESPONSE_FIELDS = 1000
_SHORTEST_LINE = len(b"a:\r\n")

_STATUS_LINE = re.compile(r"HTTP/1\.([01]) ([1-5][0-9]{2})(?: ([\t\x20-\x7e\x80-\xff]*))?")
# No fragment behind the authority: to some it is part of that. Behind a path it is passed on.
_ABSOLUTE_FORM = re.compile(r"(https?)://([^/?#]+)(?:[/?].*)?", re.IGNORECASE)
_DEFAULT_PORT = {"http": ":80", "https": ":443"}
_LINE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")


class RequestHead:
    """A request without its body: its first line, and what its ``section`` says."""

    __slots__ = (
        "has_body",
        "http_1_0",
        "keep_alive",
        "method",
        "section",
        "target",
        "upgrade",
    )

    def __init__(self, method: str, target: str, http_1_0: bool, section: HeaderSection) -> None:
        self.method = method
        self.target = target
        self.http_1_0 = http_1_0
        self.section = section
        # Copies of what every request is asked for: properties cost 15 times as much.
        self.has_body = section.has_body
        self.keep_alive = section.keep_alive
        self.upgrade = section.upgrade

    @property
    def fields(self) -> list[Field]:
        """The header lines."""
        return self.section.fields

    @property
    def known_values(self) -> dict[str, list[str]]:
        """The values of the fields that matter, by lower-case name."""
        return self.section.known_values

    @property
    def chunked(self) -> bool:
        """Whether the body is chunked."""
        return self.section.chunked

    @property
    def content_length(self) -> int | None:
        """Bytes of the body, or None if not given."""
        return self.section.content_length

    @property
    def connection_options(self) -> frozenset[str]:
        """What ``Connection`` names, lower case."""
        return self.section.connection_options


class ResponseHead:
    """A response without its body.

    ``content_length`` is None, without ``chunked``, for a body until the connection ends.
    """

    __slots__ = (
        "_block",
        "chunked",
        "content_length",
        "fields",
        "http_1_0",
        "keep_alive",
        "reason",
        "section",
        "status",
    )

    def __init__(
        self, status: int, reason: str, http_1_0: bool, section: HeaderSection, block: bytes
    ) -> None:
        self.status = status
        self.reason = reason
        self.http_1_0 = http_1_0
        self.section = section
        self._block = block
        self.fields = section.fields
        self.content_length = section.content_length
        self.chunked = section.chunked
        self.keep_alive = section.keep_alive

    @property
    def raw(self) -> bytes:
        """The head as it came, end included."""
        return self._block + HEAD_END

    @property
    def known_values(self) -> dict[str, list[str]]:
        """The values of the fields that matter, by lower-case name."""
        return self.section.known_values

    @property
    def connection_options(self) -> frozenset[str]:
        """What ``Connection`` names, lower case."""
        return self.section.connection_options


def _split_first_line(block: bytes) -> tuple[str, bytes]:
    """Return the first line of a head and the section behind it."""
    end = block.find(b"\r\n")
    line = (block if end < 0 else block[:end]).decode("latin-1")
    # Nearly all lines are printable, which is quickly asked.
    if not line.isprintable() and not _LINE.fullmatch(line):
        raise WireError("control character in the first line")
    if end < 0:
        return line, b""
    if end + 2 == len(block):
        raise WireError("malformed header line")
    return line, block[end + 2 :]


def parse_request_head(block: bytes, limits: LimitOptions) -> RequestHead:
    """Parse a request head.

    ``block`` is all before the empty line. Raises ``WireError`` with status 400, 405
    (CONNECT: this is no forward proxy), 414, 431 or 505.
    """
    line, section_block = _split_first_line(block)
    if len(line) > limits.max_request_line:
        raise WireError("request line too long", 414)
    try:
        method, target, version = line.split(" ")
    except ValueError:
        raise WireError("malformed request line") from None
    http_1_0 = version == "HTTP/1.0"
    if not http_1_0 and version != "HTTP/1.1":
        raise _bad_version(version)
    known = method in _USUAL_METHODS or TOKEN.fullmatch(method)
    if not known or not target or "\t" in target:
        raise WireError("malformed request line")
    if method == "CONNECT":
        raise WireError("CONNECT is not supported", 405)
    if section_block.count(b"\r\n") >= limits.max_headers:
        raise WireError("too many header lines", 431)
    section = parse_section(section_block, http_1_0, REQUEST_SECTIONS)
    if target[0] != "/":
        _check_target(method, target, section.known_values.get("host"))
    return RequestHead(method, target, http_1_0, section)


def take_request_head(received: bytes, limits: LimitOptions) -> tuple[RequestHead, bytes] | None:
    """Return the head at the beginning of ``received`` and what lies behind; None: it has no end.

    Raises ``WireError`` as :func:`parse_request_head` does.
    """
    end = received.find(HEAD_END)
    if end < 0:
        return None
    if end > limits.max_header_size:
        raise PartialHead(received[: end + 2]).error(limits) or WireError("too large", 431)
    # RFC 9112, 2.2: an empty line before a request is ignored.
    start = 2 if end and received.startswith(b"\r\n") else 0
    return parse_request_head(received[start:end], limits), received[end + len(HEAD_END) :]


def _check_target(method: str, target: str, hosts: list[str] | None) -> None:
    """Check a request target that is not in origin-form (RFC 9112, 3.2).

    The host of an absolute-form must be that of the Host header: the RFC lets the former
    win, and others route by the latter.
    """
    if target == "*":
        if method != "OPTIONS":
            raise WireError("a target of * is for OPTIONS only")
        return
    match = _ABSOLUTE_FORM.fullmatch(target)
    if match is None or not HOST.fullmatch(match[2]):
        raise WireError("malformed request target")
    if hosts is not None:
        port = _DEFAULT_PORT[match[1].lower()]
        if match[2].lower().removesuffix(port) != hosts[0].lower().removesuffix(port):
            raise WireError("the host in the target is not that in the Host header")


def _bad_version(version: str) -> WireError:
    if re.fullmatch(r"HTTP/1\.[0-9]", version):
        return WireError("HTTP version not supported", 505)
    return WireError("malformed request line or unknown protocol")


# Remembered as header sections are.
_status_lines: dict[str, tuple[bool, int, str]] = {}
_STATUS_LINES_SIZE = 256
_STATUS_LINES_LENGTH = 64


def _parse_status_line(line: str) -> tuple[bool, int, str]:
    """Return whether a response is HTTP/1.0, its status and its reason."""
    match = _STATUS_LINE.fullmatch(line)
    if match is None:
        raise WireError("malformed status line")
    parsed = (match[1] == "0", int(match[2]), match[3] or "")
    if len(line) <= _STATUS_LINES_LENGTH:
        if len(_status_lines) >= _STATUS_LINES_SIZE:
            _status_lines.clear()
        _status_lines[line] = parsed
    return parsed


def parse_response_head(block: bytes, method: str) -> ResponseHead:
    """Parse a response head to a request with ``method``.

    ``block`` is all before the empty line. Raises ``WireError``; ``content_length`` is 0
    and ``chunked`` False where the status or HEAD means that there is no body (RFC 9112,
    6.3). A length of None without ``chunked`` means: until the connection ends.
    """
    line, section_block = _split_first_line(block)
    http_1_0, status, reason = _status_lines.get(line) or _parse_status_line(line)
    # Short sections, which nearly all are, need not be counted.
    long = len(section_block) >= _MAX_RESPONSE_FIELDS * _SHORTEST_LINE - 2
    if long and section_block.count(b"\r\n") >= _MAX_RESPONSE_FIELDS:
        raise WireError("too many header lines")
    section = parse_section(section_block, http_1_0, RESPONSE_SECTIONS)
    if status == 101 and not (
        "upgrade" in section.known_values and "upgrade" in section.connection_options
    ):
        raise WireError("101 without an upgrade")
    head = ResponseHead(status, reason, http_1_0, section, block)
    if method == "HEAD" or status < 200 or status == 204 or status == 304:
        head.content_length, head.chunked = 0, False
        if (status < 200 or status == 204) and "content-length" in section.known_values:
            # RFC 9110, 8.6: there must be none; a client might wait for a body.
            head.fields = [field for field in head.fields if field.lower != "content-length"]
    elif head.content_length is None and not head.chunked:
        head.keep_alive = False
    return head


class PartialHead:
    """What has arrived of a head whose end has not: each byte is searched once.

    Searching all of it again with each piece, and copying it, took 60 µs for one of a byte.

    Attributes:
        received: all of it, and what has come behind its end.
        complete: whether its end has arrived, with what was added last.
        bare_line_feed: whether it has lines that end without CR: its end would never come.
        first_line_end: where its first line ends; -1 if that has not arrived.
    """

    __slots__ = ("bare_line_feed", "complete", "first_line_end", "received")

    def __init__(self, received: bytes | bytearray) -> None:
        self.received = bytearray()
        self.complete = False
        self.bare_line_feed = False
        self.first_line_end = -1
        self.add(received)

    def add(self, data: bytes | bytearray) -> None:
        """Take in what has arrived."""
        received = self.received
        before = len(received)
        received += data
        # The second byte of a CRLF may be the first of the data.
        line_ends_from = max(0, before - 1)
        self.complete = received.find(HEAD_END, max(0, before - len(HEAD_END) + 1)) >= 0
        line_ends = received.count(b"\r\n", line_ends_from)
        if received.count(b"\n", before) != line_ends:
            self.bare_line_feed = True
        if self.first_line_end < 0:
            self.first_line_end = received.find(b"\r\n", line_ends_from)

    def error(self, limits: LimitOptions) -> WireError | None:
        """Return what is wrong with an unfinished head that can't become a good one, or None.

        It may end with a part of the CRLF, or of the two, that will end it.
        """
        if self.bare_line_feed:
            return WireError("line feed without carriage return in the header section")
        size = len(self.received)
        has_line = 0 <= self.first_line_end <= limits.max_request_line
        if not has_line and size > limits.max_request_line + 1:
            return WireError("request line too long", 414)
        if size > limits.max_header_size + 3:
            return WireError("header section too large", 431)
        return None


def serialise_head(first_line: str, headers: Iterable[tuple[str, str]]) -> bytes:
    """Return a head, its empty line included."""
    return first_line.encode("latin-1") + b"\r\n" + serialise_fields(headers) + b"\r\n"
