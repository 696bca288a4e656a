"""Where an error that nobody foresaw came from."""

from __future__ import annotations

import logging


def log_traceback(log: logging.Logger, error: BaseException) -> None:
    """Log the traceback of an error that has one line of the log to itself.

    At debug level: clients that find a way to cause one would fill the log with hundreds of lines a
    request.
    """
    log.debug("Traceback of that error", exc_info=error)
