"""Times in the API; what is expected here is what V8's Date.parse and toISOString say."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from chp_gevent.management.timestamps import IsoFormatter, parse_iso8601

NEW_YEAR = 1_767_225_600_000  # 2026-01-01T00:00:00Z


@pytest.fixture
def far_from_utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Local time is UTC-3."""
    monkeypatch.setenv("TZ", "XXX+3")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026", NEW_YEAR),
        ("2026-01", NEW_YEAR),
        ("2026-01-01", NEW_YEAR),
        (" 2026-01-01 ", NEW_YEAR),
        ("2026-01-01Z", NEW_YEAR),
        ("2026-01-01T00:00Z", NEW_YEAR),
        ("2026-01-01T00:00:00Z", NEW_YEAR),
        ("2026-01-01t00:00:00z", NEW_YEAR),
        ("2026-01-01T00:00:00.1Z", NEW_YEAR + 100),
        ("2026-01-01T00:00:00.123456Z", NEW_YEAR + 123),
        ("2026-01-01T00:00:00.999999Z", NEW_YEAR + 999),
        ("2026-01-01T00:00:00.1234567890123Z", NEW_YEAR + 123),
        ("2026-01-01T00:00:00+02:00", NEW_YEAR - 7_200_000),
        ("2026-01-01T00:00:00+0200", NEW_YEAR - 7_200_000),
        ("2026-01-01T00:00:00-00:30", NEW_YEAR + 1_800_000),
        ("2026-01-01T00:00:00+23:59", 1_767_139_260_000),
        ("2026-01-01 00:00:00Z", NEW_YEAR),
        ("2026-01-01 00:00:00.123456+00:00", NEW_YEAR + 123),
        ("2026-01-01T24:00:00Z", NEW_YEAR + 86_400_000),
        ("2026-02-30", 1_772_409_600_000),
        ("2026-02-30T00:00:00Z", 1_772_409_600_000),
        ("+002026-01-01T00:00:00Z", NEW_YEAR),
        ("-000001-01-01T00:00:00Z", -62_198_755_200_000),
        ("0000-01-01", -62_167_219_200_000),
        ("9999-12-31T23:59:59.999Z", 253_402_300_799_999),
        ("+275760-09-13T00:00:00Z", 8_640_000_000_000_000),
    ],
)
def test_iso_8601_is_read_as_javascript_reads_it(text: str, expected: int) -> None:
    assert parse_iso8601(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "xx",
        "2026-01-01T00",
        "2026-01-01T00:00:00,5Z",
        "2026-01-01T00:00:00.Z",
        "2026-01-01T00:00:00+02",
        "2026-01-01T00:00:00+02:60",
        "2026-01-01T00:00:00+24:00",
        "2026-01-01T00:00:00 02:00",
        "2026-01-01T00:00:00 Z",
        "2026-01-01T24:00:01Z",
        "2026-01-01T25:00:00Z",
        "2026-01-01T23:59:60Z",
        "2026-01-01T00:60:00Z",
        "2026-00-01",
        "2026-13-01",
        "2026-01-00",
        "2026-01-32",
        "-000000-01-01",
        "+275760-09-13T00:00:01Z",
        "20260101",
        "2026-W01-1",
        "1795385695",
        "26-01-01",
        "２０２６-01-01",
    ],
)
def test_anything_else_is_no_time(text: str) -> None:
    assert parse_iso8601(text) is None


@pytest.mark.usefixtures("far_from_utc")
def test_a_time_without_a_zone_is_local_and_a_date_alone_is_utc() -> None:
    assert parse_iso8601("2026-01-01T00:00:00.5") == NEW_YEAR + 3 * 3_600_000 + 500
    assert parse_iso8601("2026-01-01 00:00") == NEW_YEAR + 3 * 3_600_000
    assert parse_iso8601("2026-01-01") == NEW_YEAR


@pytest.mark.parametrize(
    ("ms", "expected"),
    [
        (0, b"1970-01-01T00:00:00.000Z"),
        (NEW_YEAR, b"2026-01-01T00:00:00.000Z"),
        (NEW_YEAR + 1, b"2026-01-01T00:00:00.001Z"),
        (NEW_YEAR - 1, b"2025-12-31T23:59:59.999Z"),
    ],
)
def test_times_are_shown_in_utc_with_milliseconds(ms: int, expected: bytes) -> None:
    show = IsoFormatter()
    assert show(ms) == expected
    assert show(ms) == expected, "remembered"
    assert parse_iso8601(expected.decode()) == ms


def test_a_long_history_of_times_is_forgotten() -> None:
    show = IsoFormatter()
    for second in range(10_000):
        show(second * 1000)
    assert len(show._seconds) <= IsoFormatter._REMEMBERED
    assert show(5_000_007) == b"1970-01-01T01:23:20.007Z"
