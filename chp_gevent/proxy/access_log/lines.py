"""What a line of the access log looks like: Combined Log Format and more, or JSON. No I/O.

No line has a query, nor has its Referer: queries may hold tokens, and logs are read by many.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Final

from chp_gevent.http.access_entry import AccessEntry
from chp_gevent.runtime.log_format import Seconds, fitting_json, timestamps
from chp_gevent.runtime.systemd import PRIORITIES

Clock = Callable[[], float]

_PRIORITY: Final = PRIORITIES[20]

_NOT_PLAIN: Final = re.compile(r"[^ !#-\[\]-~]")
_HALF_ESCAPED: Final = re.compile(r"\\(?:x[0-9a-f]?)?\Z")
# Bytes of a line beside its five texts.
_LENGTH_OF_THE_REST: Final = 200


class CombinedLines:
    """Apache's and nginx's ``combined``, then the route in quotes, and two times in seconds:
    until the answer was sent, and until that of the target began.

    ``-`` is what there is not. Characters that would break a line or its quotes, and bytes above
    127, are ``\\xHH``.

    Args:
        journal: whether the lines go to systemd's journal, and so begin with their priority.
        clock: returns Unix time.
    """

    def __init__(self, *, journal: bool = False, clock: Clock = time.time) -> None:
        self._priority = _PRIORITY if journal else ""
        self._clock = clock
        self._seconds = Seconds("%d/%b/%Y:%H:%M:%S +0000")

    def line(self, entry: AccessEntry, most: int) -> str:
        """Return the line of a request, with its end; of ``most`` bytes at the most."""
        method, target, protocol, referer, agent = entry.request
        if "?" in target:
            target = target.partition("?")[0]
        if "?" in referer:
            referer = referer.partition("?")[0]
        texts: tuple[str, ...] = (method, target, referer, agent, entry.route)
        # All at once: five searches take 2 µs more.
        plain = "".join(texts)
        if not (plain.isascii() and plain.isprintable()) or '"' in plain or "\\" in plain:
            texts = tuple(map(_escaped, texts))
        line = self._line(entry, texts, protocol)
        if len(line) > most:
            share = (most - _LENGTH_OF_THE_REST) // len(texts)
            line = self._line(entry, tuple(_cut(text, share) for text in texts), protocol)
        return line

    def _line(self, entry: AccessEntry, texts: tuple[str, ...], protocol: str) -> str:
        method, target, referer, agent, route = texts
        sent = "-" if entry.sent is None else entry.sent
        answered = "-" if entry.answered is None else f"{entry.answered - entry.began:.3f}"
        return (
            f"{self._priority}{entry.peer.address or 'unix:'} - - "
            f"[{self._seconds.text(self._clock())}] "
            f'"{f"{method} {target} {protocol}" if method else "-"}" {entry.status} {sent} '
            f'"{referer or "-"}" "{agent or "-"}" "{route or "-"}" '
            f"{entry.ended - entry.began:.3f} {answered}\n"
        )


class JsonLines:
    """One object a line, of the same things; what there is not is null. Arguments as before."""

    def __init__(self, *, journal: bool = False, clock: Clock = time.time) -> None:
        self._priority = _PRIORITY if journal else ""
        self._clock = clock
        self._seconds = timestamps()

    def line(self, entry: AccessEntry, most: int) -> str:
        """See ``CombinedLines``."""
        asked = entry.request
        now = self._clock()
        answered = None if entry.answered is None else round(entry.answered - entry.began, 6)
        found = {
            "time": f"{self._seconds.text(now)}.{int(now % 1 * 1000):03d}Z",
            "logger": "access",
            "client": entry.peer.address or "unix:",
            "method": _text(asked.method) or None,
            "target": _text(_without_query(asked.target)) or None,
            "protocol": asked.protocol or None,
            "status": entry.status,
            "bytes": entry.sent,
            "referer": _text(_without_query(asked.referer)) or None,
            "user_agent": _text(asked.user_agent) or None,
            "route": entry.route or None,
            "seconds": round(entry.ended - entry.began, 6),
            "target_seconds": answered,
        }
        room = most - len(self._priority) - 1
        cut_first = ("user_agent", "referer", "target", "method", "route")
        return f"{self._priority}{fitting_json(found, room, cut_first)}\n"


AccessLines = CombinedLines | JsonLines


def access_lines(log_format: str, *, journal: bool) -> AccessLines:
    """Return the format that belongs to that of the log."""
    return (JsonLines if log_format == "json" else CombinedLines)(journal=journal)


def _without_query(url: str) -> str:
    return url.partition("?")[0]


def _escaped(text: str) -> str:
    """Return a text in which each byte that is not plain is ``\\xHH``."""
    if not text:
        return text
    # Header fields are latin-1, a character for each byte; paths of routes are text.
    data = text.encode("latin-1" if max(text) <= "\xff" else "utf-8", "surrogatepass")
    return _NOT_PLAIN.sub(lambda found: f"\\x{ord(found[0]):02x}", data.decode("latin-1"))


def _cut(text: str, length: int) -> str:
    """Return the beginning of an escaped text, with no half of ``\\xHH`` at its end."""
    return _HALF_ESCAPED.sub("", text[:length])


def _text(field: str) -> str:
    """Return what a header field says, if it is UTF-8, as most is."""
    if field.isascii():
        return field
    return field.encode("latin-1").decode("utf-8", "backslashreplace")
