"""The PROXY protocol, versions 1 and 2: who the client of a proxy in front of us is. Pure.

A proxy that forwards bytes, and no HTTP, says it once, at the beginning of each connection; TLS
comes after it. https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt is what it follows.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

from chp_gevent.http.errors import WireError

_V1 = b"PROXY "
_V1_SHORTEST = len(b"PROXY UNKNOWN\r\n")
# With two IPv6 addresses, or with anything behind UNKNOWN (section 2.1).
_V1_LONGEST = 107
_v1_line = re.compile(
    rb"PROXY (?:UNKNOWN(?: [^\r\n]*)?|"
    rb"(TCP[46]) ([0-9A-Fa-f.:]+) [0-9A-Fa-f.:]+ ([0-9]{1,5}) [0-9]{1,5})\r\n"
).fullmatch

_V2 = b"\r\n\r\n\0\r\nQUIT\n"
_V2_HEAD = len(_V2) + 4
# The addresses take 36 bytes; what may follow them can have the name in a certificate.
_V2_LONGEST = 4096
_V2_LOCAL, _V2_PROXY = 0x20, 0x21
# A field that says whether the client spoke TLS to the proxy, and the bit that says that it did
# (section 2.2.6).
_TLS_FIELD = 0x20
_CLIENT_SPOKE_TLS = 0x01
# Bytes of an address by family and transport; and of two of them, each with a port.
_V2_ADDRESS_SIZE = {0x11: 4, 0x21: 16}


class Client(NamedTuple):
    """Where a client came from, and whether it spoke TLS to the proxy (version 2 may say so)."""

    address: str
    port: int
    secure: bool = False


def _address(ip: IPv4Address | IPv6Address) -> str:
    """Return an address as that of any peer: one of IPv4 in IPv6's notation is IPv4."""
    return str(getattr(ip, "ipv4_mapped", None) or ip)


def missing(received: bytes) -> int:
    """Return how many bytes may be read next; 0 when a header is complete.

    No more: what is behind it may be for TLS. Raises ``WireError`` for what can't become one.
    """
    size = len(received)
    if _V2.startswith(received[: len(_V2)]) and size:
        if size < _V2_HEAD:
            return _V2_HEAD - size
        length = int.from_bytes(received[14:16], "big")
        if length > _V2_LONGEST:
            raise WireError("PROXY protocol header too long")
        return _V2_HEAD + length - size
    if not _V1.startswith(received[: len(_V1)]):
        raise WireError("no PROXY protocol header")
    if size < _V1_SHORTEST:
        return _V1_SHORTEST - size
    if received.endswith(b"\n"):
        return 0
    if size >= _V1_LONGEST:
        raise WireError("PROXY protocol header too long")
    # A line has no length: its end has to be looked for byte by byte.
    return 1


def parse(header: bytes) -> Client | None:
    """Return the client that a complete header tells; None for the proxy itself or one unknown.

    Raises ``WireError``.
    """
    try:
        return _parse_v1(header) if header.startswith(_V1) else _parse_v2(header)
    except ValueError:
        raise WireError("malformed PROXY protocol header") from None


def _parse_v1(header: bytes) -> Client | None:
    match = _v1_line(header)
    if match is None:
        raise ValueError("no such line")
    family, address, port = match.groups()
    if family is None:
        return None
    text = address.decode()
    ip = IPv4Address(text) if family == b"TCP4" else IPv6Address(text)
    if int(port) > 65535:
        raise ValueError("no port")
    return Client(_address(ip), int(port))


def _parse_v2(header: bytes) -> Client | None:
    command, family = header[12], header[13]
    if command == _V2_LOCAL:
        return None
    if command != _V2_PROXY:
        raise ValueError("unknown version or command")
    size = _V2_ADDRESS_SIZE.get(family)
    if size is None:
        return None  # of a socket that has no address, or one of a kind that is not ours
    addresses = header[_V2_HEAD:]
    end = 2 * size + 4
    if len(addresses) < end:
        raise ValueError("no place for addresses")
    source = addresses[:size]
    ip = IPv4Address(source) if size == 4 else IPv6Address(source)
    port = int.from_bytes(addresses[2 * size : 2 * size + 2], "big")
    return Client(_address(ip), port, _says_tls(addresses[end:]))


def _says_tls(fields: bytes) -> bool:
    """Whether one of the fields behind the addresses says that the client spoke TLS."""
    secure = False
    while fields:
        length = int.from_bytes(fields[1:3], "big")
        value, behind = fields[3 : 3 + length], fields[3 + length :]
        if len(fields) < 3 or len(value) < length:
            raise ValueError("field cut short")
        if fields[0] == _TLS_FIELD:
            if not value:
                raise ValueError("nothing said of TLS")
            secure = bool(value[0] & _CLIENT_SPOKE_TLS)
        fields = behind
    return secure
