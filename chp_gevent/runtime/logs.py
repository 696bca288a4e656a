"""The log: lines on standard output, each written at once or dropped.

No line is worth waiting for: see ``log_output``. What they look like is ``log_format``'s.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from typing import Any

from gunicorn.glogging import Logger

from chp_gevent.runtime.log_format import LEVELS, ChpFormat, LogFormat, log_format
from chp_gevent.runtime.log_output import Output, secure_standard_streams, standard_output
from chp_gevent.runtime.systemd import is_journal

_STDOUT = 1


class LineHandler(logging.Handler):
    """Writes each record as one line with one ``write(2)``.

    ``logging.StreamHandler`` takes 13 µs a line under gevent (a lock, strftime, two layers of
    files), this 4; and adding a route, which should cost what it costs Node, logs three.

    Lines that can't be written at once are dropped and counted. The count is a line itself, which
    comes before the next one, or with the next call of ``flush``, as soon as it can be written.
    """

    def __init__(
        self, descriptor: int, output: Output | None = None, format: LogFormat | None = None
    ) -> None:
        super().__init__()
        self._output = output or Output(descriptor)
        self._format = format or ChpFormat()

    def createLock(self) -> None:  # noqa: N802
        """Have no lock: a write is whole, and a process has one thread that logs."""
        self.lock = None

    def handle(self, record: logging.LogRecord) -> bool:
        """Write a record; a log that can't be written to is no reason to stop serving."""
        output = self._output
        if output.lost and not self._told_losses():
            output.lose()
            return False
        return output.put((self.line(record) + "\n").encode("utf-8", "backslashreplace"))

    def flush(self) -> None:
        """Say how many lines were dropped, if any were, and if that can be written now."""
        if self._output.lost:
            self._told_losses()

    def _told_losses(self) -> bool:
        """Write how many lines were dropped; return whether there is nothing to tell any more."""
        output = self._output
        if not output.has_losses():
            return True
        record = {"levelno": logging.WARNING, "msg": output.losses()}
        return output.put_losses(self.line(logging.makeLogRecord(record)).encode() + b"\n")

    def line(self, record: logging.LogRecord) -> str:
        """Return the line of a record, without its end."""
        return self._format.line(record, self._output.whole)


class ProxyLogger(Logger):
    """gunicorn's logger, writing where and how the rest of the server does.

    Its own news about processes is for ``--log-level debug``, its warnings are for all, and
    its debugging output, a dump of 130 settings at every start, is for nobody.

    Attributes:
        log_format: the name of the format, ``--log-format``.
    """

    log_format = "chp"

    @classmethod
    def writing(cls, log_format: str) -> type[ProxyLogger]:
        """Return the class with this format; gunicorn makes the logger, of a class alone."""
        return type(cls.__name__, (cls,), {"log_format": log_format})

    def setup(self, cfg: Any) -> None:
        """Configure logging of the whole server; also called on a reload."""
        secure_standard_streams()
        super().setup(cfg)
        _look_up_less()
        level = LEVELS.get(cfg.loglevel, logging.INFO)
        journal = is_journal(_STDOUT)
        colour = os.isatty(_STDOUT)
        lines = log_format(self.log_format, colour=colour, journal=journal)
        handler = LineHandler(_STDOUT, standard_output(_STDOUT), lines)
        ours = logging.getLogger("chp_gevent")
        ours.setLevel(level)
        ours.propagate = False
        ours.handlers = [handler]
        self.error_log.handlers = [handler]
        self.error_log.setLevel(
            logging.INFO if level == logging.DEBUG else max(level, logging.WARNING)
        )


def tell_losses() -> None:
    """Log how many lines were dropped, if any; each process calls this once a second."""
    for handler in logging.getLogger("chp_gevent").handlers:
        handler.flush()


def finish() -> None:
    """Have the last lines written, where a process ends without Python's own end."""
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()


def _look_up_less() -> None:
    """Spare every record what our lines don't show (``logging``, "Optimization")."""
    logging._srcfile = None
    logging.logThreads = False
    logging.logProcesses = False
    logging.logMultiprocessing = False
