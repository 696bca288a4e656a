"""The PROXY protocol: what a proxy says first, and what it may not say."""

from __future__ import annotations

import contextlib
import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chp_gevent.http.errors import WireError
from chp_gevent.http.proxy_protocol import Client, missing, parse

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
BEHIND = b"GET / HTTP/1.1\r\n"


def v2(command: int, family: int, addresses: bytes) -> bytes:
    """Return a header of version 2."""
    return SIGNATURE + struct.pack("!BBH", command, family, len(addresses)) + addresses


def pair(family: socket.AddressFamily, source: str, port: int) -> bytes:
    """Return two addresses and two ports as version 2 has them."""
    host = socket.inet_pton(family, source)
    return host + host + struct.pack("!HH", port, 443)


def field(kind: int, value: bytes) -> bytes:
    """Return one of the fields that may follow the addresses."""
    return struct.pack("!BH", kind, len(value)) + value


def tls_field(flags: int) -> bytes:
    """Return the field about TLS between client and proxy, with a field of its own: the version."""
    return field(0x20, struct.pack("!BI", flags, 0) + field(0x21, b"TLSv1.3"))


IPV4 = pair(socket.AF_INET, "192.0.2.1", 56324)
IPV6 = pair(socket.AF_INET6, "2001:db8::1", 56324)

GOOD = [
    (b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n", Client("192.0.2.1", 56324)),
    (b"PROXY TCP6 2001:DB8::1 ::1 0 65535\r\n", Client("2001:db8::1", 0)),
    (
        b"PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff "
        b"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n",
        Client("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 65535),
    ),
    (b"PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2\r\n", Client("192.0.2.1", 1)),
    (b"PROXY UNKNOWN\r\n", None),
    (b"PROXY UNKNOWN any thing\r\n", None),
    (v2(0x21, 0x11, IPV4), Client("192.0.2.1", 56324)),
    (v2(0x21, 0x21, IPV6), Client("2001:db8::1", 56324)),
    (v2(0x21, 0x11, IPV4 + b"\x04\x00\x03abc"), Client("192.0.2.1", 56324)),
    (v2(0x21, 0x11, IPV4 + tls_field(1)), Client("192.0.2.1", 56324, secure=True)),
    (v2(0x21, 0x21, IPV6 + field(4, b"") + tls_field(5)), Client("2001:db8::1", 56324, True)),
    (v2(0x21, 0x11, IPV4 + tls_field(1) + field(5, b"id")), Client("192.0.2.1", 56324, True)),
    (v2(0x21, 0x11, IPV4 + tls_field(0)), Client("192.0.2.1", 56324)),
    (v2(0x21, 0x11, IPV4 + field(0x21, b"\1")), Client("192.0.2.1", 56324)),
    (v2(0x20, 0x11, IPV4 + tls_field(1)), None),
    (v2(0x20, 0x11, IPV4), None),
    (v2(0x20, 0x00, b""), None),
    (v2(0x21, 0x00, b""), None),
    (v2(0x21, 0x12, IPV4), None),
    (v2(0x21, 0x31, bytes(216)), None),
]

BAD = [
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03",
    b"\r\n\r\nGET / HTTP/1.1\r\n",
    b"PROXY\r\n",
    b"proxy TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n",
    b"PROXY TCP4 192.0.2.1\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2 3\r\n",
    b"PROXY TCP4 192.0.2.256 192.0.2.2 1 2\r\n",
    b"PROXY TCP4 ::1 ::1 1 2\r\n",
    b"PROXY TCP6 192.0.2.1 192.0.2.2 1 2\r\n",
    b"PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 65536 2\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 -1 2\r\n",
    b"PROXY TCP4  192.0.2.1 192.0.2.2 1 2\r\n",
    b"PROXY UDP4 192.0.2.1 192.0.2.2 1 2\r\n",
    b"PROXY UNKNOWN" + b" " * 200,
    SIGNATURE[:-1] + b"\r",
    v2(0x11, 0x11, IPV4),
    v2(0x22, 0x11, IPV4),
    v2(0x21, 0x11, IPV4[:-1]),
    v2(0x21, 0x21, IPV4),
    v2(0x21, 0x11, bytes(4097)),
    v2(0x21, 0x11, IPV4 + b"\x20"),
    v2(0x21, 0x11, IPV4 + b"\x20\x00"),
    v2(0x21, 0x11, IPV4 + field(0x20, b"")),
    v2(0x21, 0x11, IPV4 + tls_field(1)[:-1]),
    v2(0x21, 0x11, IPV4 + field(4, b"abc")[:-1]),
]


def read(sent: bytes) -> tuple[Client | None, bytes]:
    """Return what a header at the beginning of ``sent`` says, and what is left behind it.

    Raises ``WireError``, and ``EOFError`` if ``sent`` ends too early.
    """
    header = b""
    while size := missing(header):
        piece = sent[len(header) : len(header) + size]
        if not piece:
            raise EOFError
        header += piece
    return parse(header), sent[len(header) :]


@pytest.mark.parametrize(("header", "client"), GOOD)
def test_a_header_tells_the_client_and_nothing_behind_it_is_read(
    header: bytes, client: Client | None
) -> None:
    for behind in (BEHIND, b"\n", b""):
        assert read(header + behind) == (client, behind)


@pytest.mark.parametrize("header", [header for header, _ in GOOD])
def test_half_a_header_is_waited_for(header: bytes) -> None:
    for end in range(len(header)):
        with pytest.raises(EOFError):
            read(header[:end])


@pytest.mark.parametrize("sent", BAD)
def test_what_is_no_header_is_refused_before_much_of_it_is_read(sent: bytes) -> None:
    with pytest.raises(WireError, match="PROXY protocol header"):
        read(sent + b"x" * 5000)


@given(st.sampled_from([b"", b"PROXY TCP4 ", SIGNATURE, SIGNATURE + b"\x21"]), st.binary())
def test_any_bytes_are_a_header_or_none(start: bytes, rest: bytes) -> None:
    with contextlib.suppress(WireError, EOFError):
        client, _ = read(start + rest)
        assert client is None or client.address
