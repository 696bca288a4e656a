"""What a line of the log looks like: as CHP writes it, or as JSON. No I/O but the process's id."""

from __future__ import annotations

import json
import logging
import os
import time
from bisect import bisect_right
from typing import Any, Final, Protocol

from chp_gevent.runtime.systemd import PRIORITIES

LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "error": logging.ERROR,
}
_NAMES: Final = {
    logging.DEBUG: "debug",
    logging.INFO: "info",
    logging.WARNING: "warn",
    logging.ERROR: "error",
    logging.CRITICAL: "error",
}
_COLOURS: Final = {"debug": 34, "info": 32, "warn": 33, "error": 31}

_traceback_of = logging.Formatter().formatException


class LogFormat(Protocol):
    """How records become lines."""

    def line(self, record: logging.LogRecord, most: int) -> str:
        """Return a record as it is written, without the final line end.

        ``most`` is how many bytes can be written whole. Control characters from outside can't
        start a new line.
        """


class Seconds:
    """Formats times that are mostly within the same second as the one before."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._second = 0
        self._text = ""

    def text(self, when: float) -> str:
        """Return the second of a Unix time in UTC, as ``strftime`` writes it."""
        second = int(when)
        if second != self._second:
            self._second = second
            self._text = time.strftime(self._pattern, time.gmtime(second))
        return self._text


def timestamps() -> Seconds:
    """Return what makes the dates of both formats, but for their milliseconds."""
    return Seconds("%Y-%m-%dT%H:%M:%S")


class ChpFormat:
    """``2026-01-31T12:00:00.000Z [ConfigProxy] info: …``, as CHP 5 has it.

    Args:
        colour: whether the level is coloured, for terminals.
        journal: whether the lines go to systemd's journal. Then each line of a record begins with
            its priority, and has no date, since the journal has one.
    """

    def __init__(self, *, colour: bool = False, journal: bool = False) -> None:
        self._names = {
            level: f"\x1b[{_COLOURS[name]}m{name}\x1b[39m" if colour else name
            for level, name in _NAMES.items()
        }
        self._journal = journal
        self._seconds = timestamps()

    def line(self, record: logging.LogRecord, most: int) -> str:
        """See ``LogFormat``. What is too long is cut by whoever writes it."""
        message = printable(record.getMessage())
        if record.exc_info:
            message += "\n" + _traceback_of(record.exc_info)
        level = self._names.get(record.levelno) or record.levelname.lower()
        text = f"[ConfigProxy] {level}: {message}"
        if self._journal:
            priority = _priority(record)
            return priority + text.replace("\n", "\n" + priority)
        return f"{self._seconds.text(record.created)}.{int(record.msecs):03d}Z {text}"


class JsonFormat:
    """One object a line: ``time``, ``level``, ``message``, ``logger``, ``pid``, ``traceback``.

    Args:
        journal: whether the lines go to systemd's journal, and so begin with their priority.
    """

    def __init__(self, *, journal: bool = False) -> None:
        self._journal = journal
        self._seconds = timestamps()

    def line(self, record: logging.LogRecord, most: int) -> str:
        """See ``LogFormat``. What is too long is cut here, so that it is still JSON."""
        entry: dict[str, Any] = {
            "time": f"{self._seconds.text(record.created)}.{int(record.msecs):03d}Z",
            "level": _NAMES.get(record.levelno) or record.levelname.lower(),
            "message": record.getMessage(),
            "logger": record.name.removeprefix("chp_gevent."),
            "pid": os.getpid(),
        }
        if record.exc_info:
            entry["traceback"] = _traceback_of(record.exc_info)
        priority = _priority(record) if self._journal else ""
        return priority + fitting_json(entry, most - len(priority) - 1, ("traceback", "message"))


def fitting_json(entry: dict[str, Any], most: int, cut_first: tuple[str, ...]) -> str:
    """Return an object as JSON in ASCII, of ``most`` bytes at the most.

    Of the texts that ``cut_first`` names, in that order, as much is left out as is too much.
    """
    text = json.dumps(entry)
    for name in cut_first:
        value = entry.get(name)
        if len(text) > most and value:
            # The mark takes 30 bytes at most, a character of the value 1 to 12.
            room = most - (len(text) - len(json.dumps(value))) - 30
            lengths = range(len(value) + 1)
            fitting = bisect_right(lengths, room, key=lambda n: len(json.dumps(value[:n])))
            kept = value[: max(0, fitting - 1)]
            entry[name] = f"{kept} [{len(value) - len(kept)} more characters]"
            text = json.dumps(entry)
    return text


def log_format(name: str, *, colour: bool, journal: bool) -> LogFormat:
    """Return the format of ``--log-format``."""
    return (
        JsonFormat(journal=journal) if name == "json" else ChpFormat(colour=colour, journal=journal)
    )


def printable(text: str) -> str:
    """Return a text in one line: what can't be printed is escaped."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _priority(record: logging.LogRecord) -> str:
    return PRIORITIES.get(record.levelno, PRIORITIES[logging.INFO])
