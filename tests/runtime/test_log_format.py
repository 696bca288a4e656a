"""Lines of the log: as CHP writes them, with priorities for the journal, as JSON."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterator

import pytest

from chp_gevent.runtime.log_format import ChpFormat, JsonFormat, log_format
from chp_gevent.runtime.systemd import error_line, is_journal

# 2026-01-31T12:00:00.007Z
WHEN = 1_769_860_800.007
NO_LIMIT = sys.maxsize


def record(message: str = "hello", level: int = logging.INFO, **more: object) -> logging.LogRecord:
    """A record of the proxy's logger, at a time that is known."""
    made = logging.makeLogRecord(
        {"name": "chp_gevent.proxy", "levelno": level, "levelname": logging.getLevelName(level)}
    )
    made.__dict__.update({"msg": message, "created": WHEN, "msecs": 7.0, **more})
    return made


def failed() -> logging.LogRecord:
    """A record with a traceback."""
    try:
        raise RuntimeError("broken")
    except RuntimeError:
        return record("it failed", logging.ERROR, exc_info=sys.exc_info())


@pytest.mark.parametrize(
    ("level", "name", "priority"),
    [
        (logging.DEBUG, "debug", 7),
        (logging.INFO, "info", 6),
        (logging.WARNING, "warn", 4),
        (logging.ERROR, "error", 3),
        (logging.CRITICAL, "error", 2),
    ],
)
def test_each_level_has_its_name_and_its_priority_in_the_journal(
    level: int, name: str, priority: int
) -> None:
    line = ChpFormat().line(record(level=level), NO_LIMIT)
    assert line == f"2026-01-31T12:00:00.007Z [ConfigProxy] {name}: hello"
    # The journal has a date of its own.
    journalled = ChpFormat(journal=True).line(record(level=level), NO_LIMIT)
    assert journalled == f"<{priority}>[ConfigProxy] {name}: hello"
    as_json = JsonFormat(journal=True).line(record(level=level), NO_LIMIT)
    assert as_json.startswith(f'<{priority}>{{"time": "2026-01-31T12:00:00.007Z"')
    assert json.loads(as_json[3:])["level"] == name


@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Asia/Kolkata"])
def test_dates_are_utc_wherever_the_server_is(monkeypatch: pytest.MonkeyPatch, zone: str) -> None:
    import time

    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        assert ChpFormat().line(record(), NO_LIMIT).startswith("2026-01-31T12:00:00.007Z ")
    finally:
        monkeypatch.undo()
        time.tzset()


def test_levels_are_coloured_as_chp_does() -> None:
    assert "\x1b[33mwarn\x1b[39m: " in ChpFormat(colour=True).line(
        record(level=logging.WARNING), NO_LIMIT
    )


def test_every_line_of_a_traceback_has_the_priority_of_its_error() -> None:
    lines = ChpFormat(journal=True).line(failed(), NO_LIMIT).split("\n")
    assert len(lines) > 3
    assert all(line.startswith("<3>") for line in lines)


@pytest.mark.parametrize("text", ["a\nb", "a\rb", "a\x1b[31mb", "a\u2028b", "a\x9bb", "a\x00b"])
def test_what_comes_from_outside_starts_no_new_line(text: str) -> None:
    assert ChpFormat().line(record(text), NO_LIMIT).isprintable()
    as_json = JsonFormat().line(record(text), NO_LIMIT)
    assert as_json.isprintable()
    assert json.loads(as_json)["message"] == text


def test_json_has_all_there_is_to_say_in_one_line() -> None:
    assert json.loads(JsonFormat().line(record("café %s", args=("x",)), NO_LIMIT)) == {
        "time": "2026-01-31T12:00:00.007Z",
        "level": "info",
        "message": "café x",
        "logger": "proxy",
        "pid": os.getpid(),
    }
    line = JsonFormat().line(failed(), NO_LIMIT)
    assert "\n" not in line
    assert json.loads(line)["traceback"].endswith("RuntimeError: broken")


@pytest.mark.parametrize("text", ["x" * 10_000, "é" * 10_000, "\n" * 10_000, "x" * 4096])
@pytest.mark.parametrize("journal", [False, True])
def test_json_that_is_too_long_is_cut_and_is_still_json(text: str, journal: bool) -> None:
    line = JsonFormat(journal=journal).line(record(text), 4096) + "\n"
    assert 3000 < len(line) <= 4096
    message = json.loads(line[3:] if journal else line)["message"]
    kept, _, left = message.partition(" [")
    assert kept == text[: len(kept)]
    assert len(kept) + int(left.split()[0]) == len(text)


def test_a_traceback_is_cut_before_the_message_is() -> None:
    whole = JsonFormat().line(failed(), NO_LIMIT)
    entry = json.loads(JsonFormat().line(failed(), len(whole) - 20))
    assert entry["message"] == "it failed"
    assert entry["traceback"].endswith(" more characters]")


def test_formats_have_the_names_of_the_option() -> None:
    assert isinstance(log_format("chp", colour=False, journal=False), ChpFormat)
    assert isinstance(log_format("json", colour=False, journal=False), JsonFormat)


@pytest.fixture
def pipe() -> Iterator[tuple[int, str]]:
    """The inlet of a pipe, and what systemd would call it."""
    outlet, inlet = os.pipe()
    status = os.fstat(inlet)
    yield inlet, f"{status.st_dev}:{status.st_ino}"
    os.close(outlet)
    os.close(inlet)


def test_the_journal_is_known_by_device_and_inode(pipe: tuple[int, str]) -> None:
    inlet, name = pipe
    assert is_journal(inlet, {"JOURNAL_STREAM": name})
    assert not is_journal(inlet, {})
    # As inherited by a program whose output goes elsewhere.
    assert not is_journal(inlet, {"JOURNAL_STREAM": "1:2"})
    assert not is_journal(inlet, {"JOURNAL_STREAM": "nonsense"})
    assert not is_journal(-1, {"JOURNAL_STREAM": name})


def test_an_error_at_start_is_an_error_in_the_journal_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    assert error_line("error: no") == "error: no"
    status = os.fstat(2)
    monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
    assert error_line("error: no") == "<3>error: no"
