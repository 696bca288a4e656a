"""The pattern of ``scripts/soak`` and ``scripts/chaos`` finds what the code really writes."""

from __future__ import annotations

import logging
import re

import pytest

from chp_gevent.http.events import ServerEvents
from chp_gevent.runtime.event_loop_errors import report
from tests.kit.crash_lines import ALTERNATIVES, CRASH
from tests.kit.log_lines import is_logged

# Lines with gaps, as the code's calls have them.
LINES = [
    "Traceback of that error",
    "Error in handler for …: …",
    "Error in the event loop: …: …",
    "Error while ending that: …: …",
    "WORKER TIMEOUT (pid:…)",
    "management process (pid …) hangs since … s; ending it",
    "draining worker (pid …) hangs; ending it",
    "The journal of routes can't be compacted: …",
    "… failed: …; trying again",
    "The management process failed: …: …",
    "management process failed: …",
]


@pytest.mark.parametrize("line", LINES)
def test_lines_of_crashes_are_written_and_found(line: str) -> None:
    assert is_logged(line)
    assert CRASH.search(line)


@pytest.mark.parametrize("alternative", ALTERNATIVES)
def test_no_part_of_the_pattern_is_for_a_line_that_nobody_writes(alternative: str) -> None:
    assert any(re.search(alternative, line) for line in LINES)


class Failing:
    """What an event of the loop was for; to end it fails, too."""

    def move(self) -> None:
        """Fail."""

    def callback_failed(self) -> None:
        """See ``chp_gevent.runtime.event_loop_errors``."""
        raise ValueError("again")


def test_what_the_server_logs_of_errors_in_itself_is_found(
    log: logging.Logger, lines: list[str]
) -> None:
    ServerEvents("server", log).on_crash(None, ValueError("unforeseen"))
    report(Failing().move, ValueError("unforeseen"), log)
    assert [line.partition(": ")[2] for line in lines] == [
        "Error in handler for a connection: ValueError: unforeseen",
        "Error in the event loop: ValueError: unforeseen",
        "Error while ending that: ValueError: again",
    ]
    assert all(CRASH.search(line) for line in lines)


@pytest.mark.parametrize(
    "line",
    [
        "error: 503 GET /x 127.0.0.1:9: connection refused",
        "error: management process (pid 7) died; restarting it",
        "warn: TLS handshake of 192.0.2.1 with the proxy failed: no shared cipher",
        "error: Worker (pid:7) was sent SIGKILL! Perhaps out of memory?",
    ],
)
def test_what_clients_targets_and_kills_cause_is_not(line: str) -> None:
    assert not CRASH.search(line)
