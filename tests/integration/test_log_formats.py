"""What the lines of a real server's log look like: dates, priorities, JSON."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable

import pytest

from tests.integration.test_start import DATE
from tests.kit.server import OTHER_COMMAND, Proxy, command_line, start_proxy

WAYS = ["cli"] if OTHER_COMMAND else ["cli", "gunicorn"]

NOBODY = "http://127.0.0.1:9"


def test_every_line_has_its_date(start_proxy: Callable[..., Proxy]) -> None:
    proxy = start_proxy("--default-target", NOBODY, workers=2)
    proxy.get("/x")
    proxy.wait_for_log(r" \[ConfigProxy\] error: 503 GET /x ")
    assert [line for line in proxy.log().splitlines() if not re.match(DATE, line)] == []


@pytest.mark.ours
@pytest.mark.parametrize("how", WAYS)
def test_every_line_may_be_json(start_proxy: Callable[..., Proxy], how: str) -> None:
    proxy = start_proxy("--log-format", "json", "--default-target", NOBODY, how=how)
    assert proxy.get("/x").status == 503
    proxy.wait_for_log('"503 GET /x 127.0.0.1:9: connection refused"')
    entries = [json.loads(line) for line in proxy.log().splitlines()]
    levels = {entry["message"]: entry["level"] for entry in entries}
    assert levels[f"Route added / -> {NOBODY}"] == "info"
    assert levels["503 GET /x 127.0.0.1:9: connection refused"] == "error"
    assert all(re.match(DATE, entry["time"]) for entry in entries)
    assert {entry["pid"] for entry in entries} <= {proxy.pid, *proxy.tree()}


class JournalLike:
    """A pipe that ``JOURNAL_STREAM`` names, as systemd does with its socket.

    Attributes:
        inlet: the descriptor to give a server.
        environment: what it has to be told.
    """

    def __init__(self) -> None:
        self._outlet, self.inlet = os.pipe()
        status = os.fstat(self.inlet)
        self.environment = {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}

    def lines(self) -> list[str]:
        """Return what was written; nobody may have the inlet open any more."""
        with os.fdopen(self._outlet, encoding="utf-8") as outlet:
            return outlet.read().splitlines()


@pytest.mark.ours
@pytest.mark.parametrize("how", WAYS)
def test_in_the_journal_lines_have_a_priority_and_no_date(how: str) -> None:
    journal = JournalLike()
    flags = ("--default-target", NOBODY)
    with start_proxy(
        *flags, how=how, token=None, env=journal.environment, output=journal.inlet
    ) as proxy:
        os.close(journal.inlet)
        assert proxy.get("/x").status == 503
        assert proxy.get("/x", "Host: again").status == 400
    lines = journal.lines()
    assert "<4>[ConfigProxy] warn: REST API is not authenticated." in lines
    assert f"<6>[ConfigProxy] info: Route added / -> {NOBODY}" in lines
    assert "<3>[ConfigProxy] error: 503 GET /x 127.0.0.1:9: connection refused" in lines
    refused = "<4>[ConfigProxy] warn: 400 refused a request from 127.0.0.1: malformed or duplicate"
    assert any(line.startswith(refused) for line in lines)
    assert [line for line in lines if not re.match(r"<[3467]>\[ConfigProxy\] ", line)] == []


@pytest.mark.ours
@pytest.mark.parametrize("how", WAYS)
def test_what_the_server_can_not_be_started_with_is_an_error_in_the_journal(how: str) -> None:
    journal = JournalLike()
    command, extra = command_line(how, ["--port", "many"])
    subprocess.run(
        command,
        env={**os.environ, **extra, **journal.environment},
        stdout=journal.inlet,
        stderr=journal.inlet,
        timeout=30,
        check=False,
    )
    os.close(journal.inlet)
    lines = journal.lines()
    assert len(lines) == 1
    assert re.match(r"<3>error: .*--port: 'many' is not a whole number", lines[0])
