"""Cases of hostile requests: bytes of a client, and what may become of them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    """Bytes of a client, the statuses that answer them, and the bytes that the target gets."""

    name: str
    raw: bytes
    statuses: tuple[int, ...]
    seen: bytes = b""
    closed: bool = False


def message(*lines: str, body: str = "") -> bytes:
    """Return the bytes of a request with these lines."""
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode("latin-1")


def forwarded(
    *lines: str, host: str | None = "a", port: str = "80", coding: bool = False, body: str = ""
) -> bytes:
    """Return a request as it is forwarded: with its Host and X-Forwarded-* added."""
    first, *others = lines
    added = [f"X-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Port: {port}\r\nX-Forwarded-Proto: http"]
    added.append(f"X-Forwarded-Host: {host}")
    if coding:
        added.append("Transfer-Encoding: chunked")
    return message(first, f"Host: {host}", *others, *added, body=body)


def refused(name: str, raw: bytes, status: int = 400) -> Case:
    """A request that is answered with ``status``; the connection is closed."""
    return Case(name, raw, (status,), closed=True)


def passed(name: str, raw: bytes, seen: bytes) -> Case:
    """A request that the target answers with 200; the connection stays open."""
    return Case(name, raw, (200,), seen)
