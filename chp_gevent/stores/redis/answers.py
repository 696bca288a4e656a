"""What the engine's answers say."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

import gevent

from chp_gevent.stores.redis.link import Link

_PAGE = 5000

_T = TypeVar("_T")


def pairs_of(flat: list[_T]) -> Iterable[tuple[_T, _T]]:
    """Return what stands side by side: names and values."""
    return zip(flat[::2], flat[1::2], strict=True)


def number_of(entry: bytes) -> int:
    """Return the number of a change from the id of its entry in the log."""
    return int(entry.partition(b"-")[0])


def path_of(key: bytes) -> str:
    """Return the path of a route; one that is no UTF-8 can be none, and is left out later."""
    return key.decode(errors="surrogateescape")


def fields_of(flat: list[bytes]) -> dict[bytes, bytes]:
    """Return the fields of an entry of a stream."""
    return dict(pairs_of(flat))


def activity_since(link: Link, key: str, since: int) -> Iterator[tuple[str, int]]:
    """Yield the routes that were used since a Unix time, and when; all times are in ms.

    Page by page, between which others may do something. Raises what is in ``link.FAILURES``.
    """
    start = 0
    while True:
        flat = link.call(
            *("ZRANGEBYSCORE", key, since, "+inf", "WITHSCORES"), *("LIMIT", start, _PAGE)
        )
        for path, when in pairs_of(flat):
            yield path_of(path), int(float(when))
        if len(flat) < 2 * _PAGE:
            return
        start += _PAGE
        gevent.sleep(0)


def reason_of(error: BaseException) -> str:
    """Return in one line what has failed."""
    return " ".join(str(error).split()) or type(error).__name__
