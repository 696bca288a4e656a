"""Messages for the fuzz tests of ``wire``: well-formed ones, and what is nearly so."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import settings
from hypothesis import strategies as st

thorough = settings(max_examples=400)

TOKEN_CHARACTERS = "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
VALUE_CHARACTERS = "\t" + "".join(map(chr, [*range(0x20, 0x7F), *range(0x80, 0x100)]))
TARGET_CHARACTERS = VALUE_CHARACTERS.replace("\t", "").replace(" ", "")

# Names that mean nothing to a parser, unlike those that frame or end a message.
_MEANING = "connection content-length host transfer-encoding upgrade".split()

tokens = st.text(TOKEN_CHARACTERS, min_size=1, max_size=12)
names = tokens.filter(lambda name: name.lower() not in _MEANING)
values = st.text(VALUE_CHARACTERS, max_size=20).map(lambda value: value.strip(" \t"))
fields = st.lists(st.tuples(names, values), max_size=6)
targets = st.text(TARGET_CHARACTERS, max_size=20).map(lambda rest: "/" + rest)
bodies = st.lists(st.binary(min_size=1, max_size=40), max_size=6)

# Fields with a meaning, right and wrong. Well-formed ones come first: hypothesis prefers
# them.
_MEANINGFUL = [
    ("Host", ["a", "a:80", "", "[::1]", "b", "a b", "a,b", "u@a"]),
    ("Content-Length", ["0", "5", "05", "3", "99", "5, 5", "+5", "", "0x5", "5 "]),
    ("Transfer-Encoding", ["chunked", "Chunked", "gzip, chunked", "chunked, chunked", "identity"]),
    ("Connection", ["close", "keep-alive", "upgrade", "X, close", "Upgrade, HTTP2-Settings"]),
    ("Upgrade", ["websocket", "h2c"]),
    ("Expect", ["100-continue"]),
]
meaningful = st.one_of(
    *(st.tuples(st.just(name), st.sampled_from(known)) for name, known in _MEANINGFUL)
)

methods = st.sampled_from("GET POST HEAD PUT DELETE OPTIONS PATCH TRACE PROPFIND SEARCH".split())
versions = st.sampled_from(["HTTP/1.1"] * 7 + ["HTTP/1.0", "HTTP/1.2", "HTTP/2.0"])
odd_targets = st.one_of(
    st.text(TARGET_CHARACTERS[:94], max_size=20).map(lambda rest: "/" + rest),
    targets,
    st.sampled_from(
        ["*", "http://a/b", "http://a", "HTTP://A:80?x", "a", "a:80", "//a", "http:/a"]
    ),
)
statuses = st.sampled_from([200, 200, 404, 204, 304, 100, 101, 103, 500])
_ends = st.sampled_from(["\r\n", "\r\n", "\n", "\r", "\r\n ", "\r\r\n"])
_colons = st.sampled_from([": ", ":", ":\t ", " : ", " "])


@st.composite
def heads(draw: st.DrawFn, first_line: st.SearchStrategy[str]) -> bytes:
    """A head, its end included, with fields that may contradict each other."""
    tidy = draw(st.integers(0, 3)) > 0
    ends = st.just("\r\n") if tidy else _ends
    colons = st.just(": ") if tidy else _colons
    drawn = draw(st.lists(st.one_of(st.tuples(names, values), meaningful), max_size=5))
    text = draw(first_line) + draw(ends)
    for name, value in [*draw(st.sampled_from([[("Host", "a")], []])), *drawn]:
        text += name + draw(colons) + value + draw(ends)
    return (text + "\r\n").encode("latin-1")


@st.composite
def request_lines(draw: st.DrawFn) -> str:
    """A request line with a method that llhttp knows."""
    return f"{draw(methods)} {draw(odd_targets)} {draw(versions)}"


@st.composite
def status_lines(draw: st.DrawFn) -> str:
    """A status line."""
    reason = draw(st.sampled_from([" OK", " ", "", " caf\xe9"]))
    return f"{draw(versions)} {draw(statuses)}{reason}"


_right_sizes = st.sampled_from(["%x", "%X", "0%x", "%x;a", "%x;a=b", '%x;a="b"'])
_sizes = st.one_of(_right_sizes, st.sampled_from(["%x ", "%x;", "+%x", "0x%x", "%x;a= "]))
_chunk_ends = st.sampled_from([b"\r\n", b"\n", b"\r", b"", b"\r\n\r\n"])


@st.composite
def coded_bodies(draw: st.DrawFn) -> bytes:
    """Something like a chunked body, or none, and something behind it."""
    tidy = draw(st.integers(0, 3)) > 0
    sizes = _right_sizes if tidy else _sizes
    ends = st.just(b"\r\n") if tidy else _chunk_ends
    coded = b""
    for piece in [*draw(bodies), b""]:
        coded += (draw(sizes) % len(piece)).encode() + draw(ends)
        coded += piece + (draw(ends) if piece else b"")
    for name, value in draw(st.lists(st.tuples(names, values), max_size=2)):
        coded += f"{name}: {value}".encode("latin-1") + draw(ends)
    return coded + draw(ends) + draw(st.sampled_from([b"", b"rest", b"\r\n"]))


@st.composite
def mutated(draw: st.DrawFn, originals: st.SearchStrategy[bytes]) -> bytes:
    """Bytes of ``originals`` with some replaced, removed or doubled."""
    data = bytearray(draw(originals))
    for _ in range(draw(st.sampled_from([0, 0, 1, 1, 2, 4]))):
        position = draw(st.integers(0, max(len(data) - 1, 0)))
        what = draw(st.sampled_from(["replace", "insert", "remove", "double"]))
        byte = draw(st.one_of(st.sampled_from(b"\r\n \t:;,\x000"), st.integers(0, 255)))
        if what == "replace":
            data[position : position + 1] = bytes([byte])
        elif what == "insert":
            data[position:position] = bytes([byte])
        elif what == "remove":
            del data[position : position + 1]
        else:
            data[position:position] = data[position : position + draw(st.integers(1, 9))]
    return bytes(data)


@st.composite
def split(draw: st.DrawFn, data: bytes) -> list[bytes]:
    """Cut ``data`` into pieces, none of them empty."""
    cuts = draw(st.lists(st.integers(1, max(len(data) - 1, 1)), max_size=8))
    edges = sorted({0, *(cut for cut in cuts if cut < len(data)), len(data)})
    return [data[a:b] for a, b in pairwise(edges)]
