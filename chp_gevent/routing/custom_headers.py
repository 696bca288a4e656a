"""Header fields that users add to requests, by ``--custom-header`` or for one route. Pure."""

from __future__ import annotations

import re

from chp_gevent.http.h1.fields import TOKEN

_OWN_NAMES = frozenset(
    # they frame the message or belong to the connection
    (
        "connection",
        "content-length",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    )
)
_not_in_values = re.compile(r"[^\t\x20-\x7e\x80-\xff]").search


def fault_of_name(name: str) -> str | None:
    """Return why no field of this name can be added, to follow the name in a message."""
    if not TOKEN.fullmatch(name):
        return "is not a name for a header"
    if name.lower() in _OWN_NAMES:
        return "is set by the proxy itself"
    return None


def is_value(value: str) -> bool:
    """Whether a field can have this value: no control characters, and none beyond latin-1."""
    return not _not_in_values(value)
