"""What a client may send."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LimitOptions:
    """What a client may send before a request is refused, and the status it is refused with."""

    max_request_line: int = 16 * 1024
    """Bytes of the request line; 414."""
    max_header_size: int = 64 * 1024
    """Bytes of the whole header section; 431."""
    max_headers: int = 128
    """Header fields; 431."""
    header_timeout: float = 60.0
    """Seconds from the first byte of a request to the end of its header section; 408."""
    body_timeout: float | None = 300.0
    """Seconds in which a client neither sends anything more of a body that is waited for nor takes
    anything of its answer; 408, or a reset if the answer has begun. None is never."""
