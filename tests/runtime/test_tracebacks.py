"""An error that nobody foresaw is one line, and where it came from is shown at debug level."""

from __future__ import annotations

import logging
from pathlib import Path

import chp_gevent
from chp_gevent.runtime import tracebacks
from chp_gevent.runtime.tracebacks import log_traceback


def unforeseen() -> ValueError:
    try:
        raise ValueError("unforeseen")
    except ValueError as error:
        return error


def test_a_traceback_is_shown_at_debug_level(log: logging.Logger, lines: list[str]) -> None:
    log.setLevel(logging.DEBUG)
    log_traceback(log, unforeseen())
    (shown,) = lines
    assert shown.startswith("debug: Traceback of that error\n")
    assert ", in unforeseen\n" in shown
    assert shown.endswith("ValueError: unforeseen")


def test_a_traceback_is_not_shown_otherwise(log: logging.Logger, lines: list[str]) -> None:
    log_traceback(log, unforeseen())
    assert lines == []


def test_no_module_logs_a_traceback_in_its_own_way() -> None:
    root = Path(chp_gevent.__path__[0])
    logging_one = {
        path.relative_to(root).as_posix()
        for path in root.rglob("*.py")
        if "exc_info=" in (text := path.read_text("utf-8")) or ".exception(" in text
    }
    assert logging_one == {Path(tracebacks.__file__).relative_to(root).as_posix()}
