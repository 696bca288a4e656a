"""The little of WebSocket (RFC 6455) that an echo and its client need."""

from __future__ import annotations

import base64
import hashlib

ACCEPT_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
BINARY_FINAL = 0x82
ZERO_MASK = b"\0\0\0\0"


def accept_value(key: bytes) -> bytes:
    """``Sec-WebSocket-Accept`` for a ``Sec-WebSocket-Key`` (RFC 6455, section 4.2.2)."""
    return base64.b64encode(hashlib.sha1(key + ACCEPT_GUID).digest())


def frame(payload: bytes, *, masked: bool) -> bytes:
    """One binary message; masked with zeros, which leaves the payload as it is."""
    flag = 0x80 if masked else 0
    size = len(payload)
    if size < 126:
        head = bytes((BINARY_FINAL, flag | size))
    elif size < 65536:
        head = bytes((BINARY_FINAL, flag | 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((BINARY_FINAL, flag | 127)) + size.to_bytes(8, "big")
    return head + (ZERO_MASK if masked else b"") + payload


def take_frame(buffer: bytearray) -> bytes | None:
    """Remove one whole frame from the buffer and return its payload; None: more is needed."""
    if len(buffer) < 2:
        return None
    masked, size, position = buffer[1] & 0x80, buffer[1] & 0x7F, 2
    if size >= 126:
        width = 2 if size == 126 else 8
        if len(buffer) < position + width:
            return None
        size = int.from_bytes(buffer[position : position + width], "big")
        position += width
    end = position + (4 if masked else 0) + size
    if len(buffer) < end:
        return None
    mask = bytes(buffer[position : position + 4]) if masked else ZERO_MASK
    payload = bytes(buffer[end - size : end])
    del buffer[:end]
    if mask != ZERO_MASK:
        stream = (mask * (size // 4 + 1))[:size]
        xored = int.from_bytes(payload, "big") ^ int.from_bytes(stream, "big")
        payload = xored.to_bytes(size, "big")
    return payload
