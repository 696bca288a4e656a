"""Lines of the access log: what programs that read them rely on."""

from __future__ import annotations

import json
import re
import shlex

import pytest

from chp_gevent.http.access_entry import AccessEntry, RequestFacts
from chp_gevent.http.peer import Peer
from chp_gevent.proxy.access_log.lines import CombinedLines, JsonLines, access_lines

# 2026-01-31T12:00:00.25Z
WHEN = 1_769_860_800.25

COMBINED = re.compile(
    r'(\S+) (\S+) (\S+) \[([^\]]+)\] "((?:[^"\\]|\\.)*)" (\d{3}) (\d+|-) '
    r'"((?:[^"\\]|\\.)*)" "((?:[^"\\]|\\.)*)" "((?:[^"\\]|\\.)*)" (\d+\.\d{3}) (\d+\.\d{3}|-)\n'
)

ASKED = RequestFacts("GET", "/user/ada/tree", "HTTP/1.1", "http://hub/hub/home", "Firefox/140.0")


def entry(asked: RequestFacts = ASKED, **more: object) -> AccessEntry:
    """A request that was answered with 200 after half a second."""
    made = AccessEntry(Peer("192.0.2.1", False, True), 100.0)
    made.request, made.status, made.sent, made.route = asked, 200, 1234, "/user/ada"
    made.ended, made.answered = 100.5, 100.25
    for name, value in more.items():
        setattr(made, name, value)
    return made


def combined(made: AccessEntry, most: int = 65536) -> str:
    """The line in the log's own format."""
    return CombinedLines(clock=lambda: WHEN).line(made, most)


def as_json(made: AccessEntry, most: int = 65536) -> dict[str, object]:
    """The same as JSON, parsed."""
    line = JsonLines(clock=lambda: WHEN).line(made, most)
    assert line.endswith("}\n")
    assert line[:-1].isprintable()
    found = json.loads(line)
    assert isinstance(found, dict)
    return found


def test_a_line_is_combined_log_format_with_route_and_times() -> None:
    assert combined(entry()) == (
        '192.0.2.1 - - [31/Jan/2026:12:00:00 +0000] "GET /user/ada/tree HTTP/1.1" 200 1234 '
        '"http://hub/hub/home" "Firefox/140.0" "/user/ada" 0.500 0.250\n'
    )


def test_json_has_the_same_under_names() -> None:
    assert as_json(entry()) == {
        "time": "2026-01-31T12:00:00.250Z",
        "logger": "access",
        "client": "192.0.2.1",
        "method": "GET",
        "target": "/user/ada/tree",
        "protocol": "HTTP/1.1",
        "status": 200,
        "bytes": 1234,
        "referer": "http://hub/hub/home",
        "user_agent": "Firefox/140.0",
        "route": "/user/ada",
        "seconds": 0.5,
        "target_seconds": 0.25,
    }


def test_what_there_is_not_is_a_dash() -> None:
    refused = entry(RequestFacts(), status=400, sent=None, route="", answered=None)
    assert combined(refused).split("] ")[1] == '"-" 400 - "-" "-" "-" 0.500 -\n'
    found = as_json(refused)
    nothing = {name for name, value in found.items() if value is None}
    assert nothing == {
        *("method", "target", "protocol", "bytes", "referer"),
        *("user_agent", "route", "target_seconds"),
    }


def test_a_peer_on_a_unix_socket_has_no_address() -> None:
    assert combined(entry(peer=Peer("", False, True))).startswith("unix: - - [")


@pytest.mark.parametrize("field", ["target", "referer"])
def test_queries_are_left_out_since_they_may_hold_tokens(field: str) -> None:
    asked = ASKED._replace(**{field: "/hub/api?token=secret"})
    for line in (combined(entry(asked)), json.dumps(as_json(entry(asked)))):
        assert "/hub/api" in line
        assert "secret" not in line
        assert "?" not in line


@pytest.mark.parametrize(
    ("sent", "logged"),
    [
        ('a "quoted" agent', r"a \x22quoted\x22 agent"),
        ("back\\slash", r"back\x5cslash"),
        ("tab\there", r"tab\x09here"),
        ("caf\xc3\xa9", r"caf\xc3\xa9"),
        ("C1 \x9b", r"C1 \x9b"),
    ],
)
def test_what_would_break_quotes_or_terminals_is_escaped(sent: str, logged: str) -> None:
    line = combined(entry(ASKED._replace(user_agent=sent, referer=sent, target="/" + sent)))
    assert line[:-1].isascii()
    assert line[:-1].isprintable()
    match = COMBINED.fullmatch(line)
    assert match, line
    assert (match[5], match[8], match[9]) == (f"GET /{logged} HTTP/1.1", logged, logged)


def test_a_route_may_have_any_character() -> None:
    line = combined(entry(route="/user/é日"))
    assert r'"/user/\xc3\xa9\xe6\x97\xa5"' in line
    assert as_json(entry(route="/user/é日"))["route"] == "/user/é日"


def test_json_has_header_fields_as_the_utf_8_that_they_mostly_are() -> None:
    sent = "café 日".encode().decode("latin-1")
    assert as_json(entry(ASKED._replace(user_agent=sent)))["user_agent"] == "café 日"
    assert as_json(entry(ASKED._replace(user_agent="\xe9")))["user_agent"] == "\\xe9"


@pytest.mark.parametrize("character", ["x", '"', "\xff", "\x01"])
def test_a_line_that_is_too_long_is_still_one_that_can_be_read(character: str) -> None:
    much = character * 16_000
    asked = RequestFacts("GET", "/" + much, "HTTP/1.1", "/" + much, much)
    made = entry(asked, route="/" + much)
    line = combined(made, 4096)
    assert 300 < len(line) <= 4096
    assert COMBINED.fullmatch(line), line
    found = JsonLines().line(made, 4096)
    assert len(found) <= 4096
    assert json.loads(found)["status"] == 200


def test_fields_can_be_told_apart_by_a_shell_s_rules_too() -> None:
    words = shlex.split(combined(entry(ASKED._replace(user_agent='a "b" c'))))
    assert len(words) == 13
    assert words[5:8] == ["GET /user/ada/tree HTTP/1.1", "200", "1234"]


def test_in_the_journal_lines_have_their_priority() -> None:
    assert CombinedLines(journal=True).line(entry(), 4096).startswith("<6>192.0.2.1 - - [")
    assert JsonLines(journal=True).line(entry(), 4096).startswith('<6>{"time": ')


def test_the_format_follows_that_of_the_log() -> None:
    assert isinstance(access_lines("chp", journal=False), CombinedLines)
    assert isinstance(access_lines("json", journal=False), JsonLines)
