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
from typing import Any, NamedTuple

from chp_gevent.options import LimitOptions

# What is sent, and what bodies come in.
Buffer = bytes | memoryview

HEAD_END = b"\r\n\r\n"

# RFC 9110, 5.6.2; shared with the grammar of bodies.
TOKEN_PATTERN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_TOKEN = re.compile(TOKEN_PATTERN)
_USUAL_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
_STATUS_LINE = re.compile(r"HTTP/1\.([01]) ([1-5][0-9]{2})(?: ([\t\x20-\x7e\x80-\xff]*))?")
# RFC 9110, 7.2, without commas: a list of hosts is what some make of two Host lines.
_HOST = re.compile(r"(?:[A-Za-z0-9\-._~!$&'()*+;=%]*|\[[0-9A-Za-z:.%\-_~]+\])(?::[0-9]*)?")
_ABSOLUTE_FORM = re.compile(r"(https?)://([^/?#]+)(?:[/?#].*)?", re.IGNORECASE)
_DEFAULT_PORT = {"http": ":80", "https": ":443"}
_LINE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_CONTROLS = bytes(c for c in range(0x20) if c != 0x09) + b"\x7f"

# Fields that decide about framing, routing or the life of the connection.
_NOTED = frozenset(
    "connection content-length date expect host location te transfer-encoding upgrade".split()
)


class WireError(Exception):
    """A message that must not be acted upon.

    ``status`` is what a server answers to such a request (400 unless a limit was passed),
    ``str(error)`` the reason in a few words.
    """

    def __init__(self, reason: str, status: int = 400) -> None:
        super().__init__(reason)
        self.status = status


class IncompleteMessage(WireError):
    """The connection ended inside a message."""


class Field(NamedTuple):
    """One header line: name as sent, value, lower-case name, CGI name (``HTTP_…``)."""

    name: str
    value: str
    lower: str
    cgi: str


class HeaderSection:
    """The header lines of a message, and what they say about it.

    Attributes:
        fields: the lines in their order.
        noted: the values of the fields that matter here, by lower-case name.
        content_length: of the body, in bytes; None if not given.
        chunked: whether the body is chunked.
        connection_options: what ``Connection`` names, lower case.
        keep_alive: whether the connection may carry another message after this one.
        has_body: whether a request with these lines has a body (RFC 9112, 6.3: by its framing,
            whatever the method).
        upgrade: the protocol asked for with ``Connection: upgrade``, lower case, or empty.
            HTTP/1.0 can't ask (RFC 9110, 7.8).
        memo: for callers to keep what they derive from these lines alone.
    """

    __slots__ = (
        "chunked",
        "connection_options",
        "content_length",
        "fields",
        "has_body",
        "keep_alive",
        "memo",
        "noted",
        "upgrade",
    )

    def __init__(
        self,
        fields: list[Field],
        noted: dict[str, list[str]],
        content_length: int | None,
        chunked: bool,
        *,
        http_1_0: bool = False,
    ) -> None:
        self.fields = fields
        self.noted = noted
        self.content_length = content_length
        self.chunked = chunked
        self.connection_options = options = _connection_options(noted)
        # RFC 9112, 9.3
        self.keep_alive = "close" not in options and (not http_1_0 or "keep-alive" in options)
        self.has_body = chunked or bool(content_length)
        self.upgrade = ""
        if "upgrade" in options and not http_1_0:
            self.upgrade = ",".join(noted.get("upgrade", ())).strip().lower()
        self.memo: dict[Any, Any] = {}


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
    def noted(self) -> dict[str, list[str]]:
        """The values of the fields that matter, by lower-case name."""
        return self.section.noted

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
    def noted(self) -> dict[str, list[str]]:
        """The values of the fields that matter, by lower-case name."""
        return self.section.noted

    @property
    def connection_options(self) -> frozenset[str]:
        """What ``Connection`` names, lower case."""
        return self.section.connection_options


# -- heads


_NO_OPTIONS: frozenset[str] = frozenset()
_KEEP_ALIVE = frozenset(("keep-alive",))

# Clients repeat their header lines; a parsed line is remembered (saves 0.25 µs a line).
# Bounded, and emptied when full: an attacker can only make it useless.
_FIELD_CACHE: dict[str, Field] = {}
_FIELD_CACHE_SIZE = 4096
_FIELD_CACHE_LINE = 256


def _parse_field(line: str) -> Field:
    name, colon, value = line.partition(":")
    if not colon or not _TOKEN.fullmatch(name):
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
    noted: dict[str, list[str]] = {}
    for _, value, lower, _ in fields:
        if lower in _NOTED:
            if lower in noted:
                noted[lower].append(value)
            else:
                noted[lower] = [value]
    return fields, noted


def _head_lines(block: bytes) -> list[str]:
    lines = block.decode("latin-1").split("\r\n")
    # One pass in C finds NUL, bare CR, bare LF and every other control character.
    if len(block) - len(block.translate(None, _CONTROLS)) != 2 * (len(lines) - 1):
        raise WireError("control character in the header section")
    return lines


# Whole sections come again too: those of a client that polls, or of answers within the same
# second. Remembering them, and what others derive from them, saves 6 µs of a small request
# and 9 µs of its answer. Bounded as above, and in the size of what is remembered: a field
# takes 350 bytes, so that the worst that clients can do is 12 MB (128 fields: 45 MB).
_SECTION_CACHE_SIZE = 1024
_SECTION_CACHE_BYTES = 2048
_SECTION_CACHE_FIELDS = 32
_request_sections: dict[bytes, HeaderSection] = {}
_response_sections: dict[bytes, HeaderSection] = {}


def _parse_section(
    block: bytes, http_1_0: bool, cache: dict[bytes, HeaderSection]
) -> HeaderSection:
    """Parse the lines behind the first one; ``cache`` holds HTTP/1.1 sections only."""
    if not http_1_0:
        section = cache.get(block)
        if section is not None:
            return section
    fields, noted = _parse_fields(_head_lines(block)) if block else ([], {})
    section = HeaderSection(fields, noted, *_framing(noted, http_1_0), http_1_0=http_1_0)
    if cache is _request_sections:
        _check_host(noted.get("host"), http_1_0)
    small = len(block) <= _SECTION_CACHE_BYTES and len(fields) <= _SECTION_CACHE_FIELDS
    if small and not http_1_0:
        if len(cache) >= _SECTION_CACHE_SIZE:
            cache.clear()
        cache[block] = section
    return section


def _check_host(hosts: list[str] | None, http_1_0: bool) -> None:
    if hosts is None:
        if not http_1_0:
            raise WireError("no Host header")
    elif len(hosts) != 1 or not _HOST.fullmatch(hosts[0]):
        raise WireError("malformed or duplicate Host header")


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


def _connection_options(noted: dict[str, list[str]]) -> frozenset[str]:
    values = noted.get("connection")
    if values is None:
        return _NO_OPTIONS
    if len(values) == 1 and values[0] == "keep-alive":
        return _KEEP_ALIVE
    return frozenset(
        option.strip(" \t").lower() for value in values for option in value.split(",")
    ) - {""}


def _framing(noted: dict[str, list[str]], http_1_0: bool) -> tuple[int | None, bool]:
    """Return (content length, chunked) or raise when they are not beyond doubt."""
    codings = noted.get("transfer-encoding")
    lengths = noted.get("content-length")
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
    known = method in _USUAL_METHODS or _TOKEN.fullmatch(method)
    if not known or not target or "\t" in target:
        raise WireError("malformed request line")
    if method == "CONNECT":
        raise WireError("CONNECT is not supported", 405)
    if section_block.count(b"\r\n") >= limits.max_headers:
        raise WireError("too many header lines", 431)
    section = _parse_section(section_block, http_1_0, _request_sections)
    if target[0] != "/":
        _check_target(method, target, section.noted.get("host"))
    head = RequestHead(method, target, http_1_0, section)
    if "upgrade" in section.noted and head.has_body and head.upgrade:
        raise WireError("an upgrade with a body")
    return head


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
    if match is None or not _HOST.fullmatch(match[2]):
        raise WireError("malformed request target")
    if hosts is not None:
        port = _DEFAULT_PORT[match[1].lower()]
        if match[2].lower().removesuffix(port) != hosts[0].lower().removesuffix(port):
            raise WireError("the host in the target is not that in the Host header")


def _bad_version(version: str) -> WireError:
    if re.fullmatch(r"HTTP/1\.[0-9]", version):
        return WireError("HTTP version not supported", 505)
    return WireError("malformed request line or unknown protocol")


# As the header sections above.
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
    section = _parse_section(section_block, http_1_0, _response_sections)
    if status == 101 and not (
        "upgrade" in section.noted and "upgrade" in section.connection_options
    ):
        raise WireError("101 without an upgrade")
    head = ResponseHead(status, reason, http_1_0, section, block)
    if method == "HEAD" or status < 200 or status == 204 or status == 304:
        head.content_length, head.chunked = 0, False
        if (status < 200 or status == 204) and "content-length" in section.noted:
            # RFC 9110, 8.6: there must be none; a client might wait for a body.
            head.fields = [field for field in head.fields if field.lower != "content-length"]
    elif head.content_length is None and not head.chunked:
        head.keep_alive = False
    return head


def has_bare_line_feed(received: bytes | bytearray) -> bool:
    """Whether an unfinished head has lines that end without CR: its end would never come."""
    return received.count(b"\n") != received.count(b"\r\n")


def head_too_large(received: bytes | bytearray, limits: LimitOptions) -> WireError | None:
    """Return the error for an unfinished head that can't become a good one, or None.

    ``received`` may end with a part of the CRLF, or of the two, that will end it.
    """
    if has_bare_line_feed(received):
        return WireError("line feed without carriage return in the header section")
    line_end = received.find(b"\r\n", 0, limits.max_request_line + 2)
    if line_end < 0 and len(received) > limits.max_request_line + 1:
        return WireError("request line too long", 414)
    if len(received) > limits.max_header_size + 3:
        return WireError("header section too large", 431)
    return None


def serialise_fields(headers: Iterable[tuple[str, str]]) -> bytes:
    """Return header lines, without the empty line that ends a section."""
    return "".join([f"{name}: {value}\r\n" for name, value in headers]).encode("latin-1")


def serialise_head(first_line: str, headers: Iterable[tuple[str, str]]) -> bytes:
    """Return a head, its empty line included."""
    return first_line.encode("latin-1") + b"\r\n" + serialise_fields(headers) + b"\r\n"


def parse_trailers(block: bytes) -> list[Field]:
    """Return the fields of a trailer section without its empty line. Raises ``WireError``."""
    return _parse_fields(_head_lines(block))[0]
