"""The records of the journal: changes of the routing table as bytes.

A record is a length (4 bytes, little-endian) and so many bytes of MessagePack: an array
of a tag and the fields. What is added to a record comes at its end: who does not know it skips it,
and who misses it takes the default. Pure: no I/O.
"""

from __future__ import annotations

from typing import Final

import msgspec

from chp_gevent.routing.route_options import RouteOptions

LENGTH_BYTES: Final = 4

FORMAT: Final = 1
"""The number of this format. Processes of two versions share a journal while a server is upgraded:
what can't be read by those that have this number raises it."""


class Add(msgspec.Struct, array_like=True, tag=0, frozen=True, gc=False):
    """A route was added, or replaced.

    Attributes:
        path: the canonical path of the route.
        target: URL of the target.
        slot: index of the route's activity slot.
        data: the JSON object as the API shows it, without ``last_activity``.
        options: what it says about how requests are forwarded.
    """

    path: str
    target: str
    slot: int
    data: bytes
    options: RouteOptions | None = None


class AddWithRawData(msgspec.Struct, array_like=True, tag=0, frozen=True, gc=False):
    """``Add`` as a worker reads it: the same record, of which ``data`` is not copied."""

    path: str
    target: str
    slot: int
    data: msgspec.Raw
    options: RouteOptions | None = None


class Remove(msgspec.Struct, array_like=True, tag=1, frozen=True, gc=False):
    """A route was removed."""

    path: str


_encoder = msgspec.msgpack.Encoder()

# Decode one record without its length; raise ``msgspec.DecodeError`` on anything else.
decode = msgspec.msgpack.Decoder(Add | Remove).decode
decode_with_raw_data = msgspec.msgpack.Decoder(AddWithRawData | Remove).decode


def encode(message: Add | Remove) -> bytes:
    """Return the record of ``message``, its length included.

    Raises:
        UnicodeEncodeError: a string can't be written as UTF-8 (lone surrogates).
    """
    payload = _encoder.encode(message)
    return len(payload).to_bytes(LENGTH_BYTES, "little") + payload


def split(block: bytes) -> tuple[list[memoryview[int]], int]:
    """Cut a block at the boundaries of its records.

    Args:
        block: whole records, perhaps followed by a part of one.

    Returns:
        The records without their lengths, as views of ``block``, and the number of bytes
        that they take in it, lengths included.
    """
    records = []
    view = memoryview(block)
    size = len(block)
    offset = 0
    while (start := offset + LENGTH_BYTES) <= size:
        end = start + int.from_bytes(view[offset:start], "little")
        if end > size:
            break
        records.append(view[start:end])
        offset = end
    return records, offset


def needed(block: bytes) -> int:
    """Return how many bytes the first record of ``block`` takes, its length included."""
    return LENGTH_BYTES + int.from_bytes(block[:LENGTH_BYTES], "little")
