"""Log lines in CHP's form, on standard output: ``HH:MM:SS.mmm [ConfigProxy] info: …``."""

from __future__ import annotations

import logging
import sys
from typing import Any

from gunicorn.glogging import Logger

LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "error": logging.ERROR,
}
_COLOURS = {"debug": 34, "info": 32, "warn": 33, "error": 31}


class LineFormatter(logging.Formatter):
    """Formats a record as CHP does; the level in colour on a terminal."""

    def __init__(self, *, colour: bool = False) -> None:
        super().__init__(datefmt="%H:%M:%S")
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; control characters from outside can't start a new one."""
        level = {"WARNING": "warn", "CRITICAL": "error"}.get(
            record.levelname, record.levelname.lower()
        )
        if self._colour:
            level = f"\x1b[{_COLOURS.get(level, 0)}m{level}\x1b[39m"
        message = _printable(record.getMessage())
        if record.exc_info:
            message += "\n" + self.formatException(record.exc_info)
        return f"{self.formatTime(record)} [ConfigProxy] {level}: {message}"

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802
        """Return the local time with milliseconds."""
        return f"{super().formatTime(record, self.datefmt)}.{int(record.msecs):03d}"


class ProxyLogger(Logger):
    """gunicorn's logger, writing where and how the rest of the server does.

    Its own news about processes is for ``--log-level debug``, its warnings are for all, and
    its debugging output, a dump of 130 settings at every start, is for nobody.
    """

    def setup(self, cfg: Any) -> None:
        """Configure logging of the whole server; also called on a reload."""
        super().setup(cfg)
        level = LEVELS.get(cfg.loglevel, logging.INFO)
        handler = logging.StreamHandler(sys.stdout)
        handler.setFormatter(LineFormatter(colour=sys.stdout.isatty()))
        ours = logging.getLogger("chp_gevent")
        ours.setLevel(level)
        ours.propagate = False
        ours.handlers = [handler]
        self.error_log.handlers = [handler]
        self.error_log.setLevel(
            logging.INFO if level == logging.DEBUG else max(level, logging.WARNING)
        )


def _printable(message: str) -> str:
    if message.isprintable():
        return message
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in message)
