"""What becomes of an exception that nobody expected in what the event loop calls.

gevent prints it and goes on: a callback that is due all the time, as that of a readable socket,
would then fail without end, and what it works for would stay open for ever. To look after this
here costs nothing, while a ``try`` around each callback has to be thought of each time.
"""

from __future__ import annotations

import logging
from typing import Any

from chp_gevent.runtime.tracebacks import log_traceback


def look_after(hub: Any, log: logging.Logger) -> None:
    """Have exceptions out of the callbacks of ``hub``'s loop, and out of its greenlets, end well.

    Each is one line in the log. If the callback was a method of something that has
    ``callback_failed``, that is called, and ends what has failed. ``SystemExit`` and its like
    end the process, as always.
    """
    inherited = hub.handle_error

    def handle_error(context: Any, kind: Any, error: Any, traceback: Any) -> None:
        if context is None or not issubclass(kind, Exception) or issubclass(kind, hub.SYSTEM_ERROR):
            inherited(context, kind, error, traceback)
            return
        if not isinstance(error, BaseException):
            error = kind(error)  # C code may give the text alone
        report(getattr(context, "callback", None), error, log)

    hub.handle_error = handle_error


def report(callback: Any, error: BaseException, log: logging.Logger) -> None:
    """Log an exception that came out of ``callback``, and end what it works for."""
    log.error("Error in the event loop: %s: %s", type(error).__name__, error)
    log_traceback(log, error)
    failed = getattr(getattr(callback, "__self__", None), "callback_failed", None)
    if failed is not None:
        try:
            failed()
        except Exception as second:
            log.error("Error while ending that: %s: %s", type(second).__name__, second)
