"""What fails again and again is logged now and then."""

from __future__ import annotations

import logging

from chp_gevent.runtime.troubles import REPEATED_AFTER, Troubles
from tests.kit.server_thread import ManualClock


def test_the_same_trouble_is_logged_now_and_then(log: logging.Logger, lines: list[str]) -> None:
    clock = ManualClock()
    troubles = Troubles(log, clock)
    for _ in range(10):
        troubles.note("forking", OSError("no room"))
    assert lines == ["error: forking failed: OSError: no room; trying again"]
    clock.now += REPEATED_AFTER + 1
    troubles.note("forking", OSError("no room"))
    assert len(lines) == 2


def test_another_reason_or_another_task_is_logged_at_once(
    log: logging.Logger, lines: list[str]
) -> None:
    troubles = Troubles(log, ManualClock())
    troubles.note("forking", OSError("no room"))
    troubles.note("forking", RuntimeError())
    troubles.note("waiting", RuntimeError())
    assert lines == [
        "error: forking failed: OSError: no room; trying again",
        "error: forking failed: RuntimeError; trying again",
        "error: waiting failed: RuntimeError; trying again",
    ]


def test_what_has_succeeded_meanwhile_is_news_when_it_fails(
    log: logging.Logger, lines: list[str]
) -> None:
    troubles = Troubles(log, ManualClock())
    for _ in range(2):
        troubles.note("forking", OSError("no room"))
        troubles.end("forking")
        troubles.end("forking")
    assert len(lines) == 2
