"""What the benchmark reports is what was measured; failed requests are not left out of it."""

from __future__ import annotations

import asyncio
import math
import socket
import time

import pytest

from scripts.lib.bench import budget, report
from scripts.lib.bench.cases import all_cases
from scripts.lib.bench.definitions import BESIDE, QUICK, RESTARTS, Case, Measurement, Row
from scripts.lib.bench.latencies import Latencies
from scripts.lib.bench.programs import steady_client, tiny_chunks_client
from scripts.lib.bench.proxies import CONTENDERS
from scripts.lib.bench.runner import Results
from tests.kit.peers.loopback import LoopbackServer

BULK, CHUNKS, WORKER = "beside-bulk", "beside-tiny-chunks", "restart-worker"


def run_of(measured: dict[tuple[str, str], list[Measurement]]) -> report.Run:
    """A run of three cases with these measurements."""
    rows = [Row(BULK, "bulk", "", BESIDE), Row(CHUNKS, "chunks", "", BESIDE)]
    rows += [Row(WORKER, "worker", "", RESTARTS)]
    cases = [Case(row.key, (row,), lambda around, contender: iter(())) for row in rows]
    contenders = list(CONTENDERS.values())
    return report.Run(cases, contenders, Results(measured), 1, "scripts/bench", {}, {})


def timed(row: str, p50: float, p99: float, broke: str = "") -> list[Measurement]:
    return [Measurement(row, p50_ms=p50, p99_ms=p99, broke=broke)]


def lines_with(text: str, *words: str) -> list[str]:
    return [line for line in text.splitlines() if all(word in line for word in words)]


@pytest.mark.parametrize(
    ("answered", "failed", "share", "expected"),
    [
        (range(1, 101), 0, 50, 51),
        (range(100, 0, -1), 0, 99, 100),
        ([7.5], 0, 99, 7.5),
        (range(1, 100), 1, 98, 99),
        (range(1, 100), 1, 99, math.inf),
        (range(1, 50), 51, 50, math.inf),
        ([], 3, 50, math.inf),
    ],
)
def test_a_failed_request_counts_as_the_slowest(
    answered: list[float], failed: int, share: int, expected: float
) -> None:
    latencies = Latencies(list(answered), {"closed": failed} if failed else {})
    assert latencies.percentile(share) == expected


def test_failures_are_told_by_their_reason() -> None:
    assert Latencies([1.0]).failures() == ""
    some = Latencies([1.0] * 7, {"no answer": 1, "closed": 2})
    assert some.failures() == "3 of 10 requests failed (2 closed, 1 no answer)"


def test_a_tail_is_held_against_that_of_the_peer_in_the_same_run() -> None:
    def verdict(ours: float) -> str:
        text = report.render(
            run_of({(BULK, "ours"): timed(BULK, 5, ours), (BULK, "traefik"): timed(BULK, 9, 40)})
        )
        (line,) = lines_with(text, "bulk, p99")
        return line

    assert verdict(50) == "| bulk, p99 | 50.0 | 1.25 × Traefik's 40.0 = 50.0 | kept |"
    assert verdict(51) == "| bulk, p99 | 51.0 | 1.25 × Traefik's 40.0 = 50.0 | **over** |"


def test_without_the_peer_there_is_no_verdict() -> None:
    assert not lines_with(report.render(run_of({(BULK, "ours"): timed(BULK, 5, 9)})), "bulk, p99")


@pytest.mark.parametrize(
    ("p50", "p99", "verdict"), [(150, 900, "kept"), (151, 151, "**over**")], ids=["kept", "over"]
)
def test_of_restarts_the_median_counts(p50: float, p99: float, verdict: str) -> None:
    text = report.render(run_of({(WORKER, "ours"): timed(WORKER, p50, p99)}))
    assert lines_with(text, "worker, median", "| 150 |", verdict)


def test_a_proxy_that_breaks_is_shown_and_not_within_any_budget() -> None:
    broke = "3 of 500 requests failed (3 closed)"
    text = report.render(
        run_of(
            {
                (CHUNKS, "ours"): timed(CHUNKS, 4, 9, broke),
                (CHUNKS, "chp"): timed(CHUNKS, 4, math.inf, broke),
            }
        )
    )
    assert lines_with(text, "4.00 / 9.00 **breaks**", "4.00 / ∞ **breaks**")
    assert lines_with(text, "chunks, p99", "**over**")
    assert lines_with(text, "- chunks, Node CHP: ", f"breaks: {broke}")


def test_latency_beside_other_work_is_not_among_those_at_full_load() -> None:
    text = report.render(run_of({(BULK, "caddy"): timed(BULK, 5, 9)}))
    assert "## Latency beside other traffic" in text
    assert "## Latency\n" not in text


def test_each_budget_is_one_of_a_row() -> None:
    rows = {row.key for case in all_cases(QUICK) for row in case.rows} | {"api-add-100000"}
    budgeted = {*budget.BUDGET, *budget.BUDGET_TAIL, *budget.BUDGET_MS}
    assert budgeted <= rows


class FixedServer(LoopbackServer):
    """Gives one answer on each connection, and then closes its side or stays silent."""

    def __init__(self, answer: bytes, *, closes: bool) -> None:
        super().__init__()
        self._answer = answer
        self._closes = closes

    def serve(self, connection: socket.socket, index: int) -> None:
        """Answer what comes first; read the rest."""
        if connection.recv(65536):
            connection.sendall(self._answer)
            if self._closes:
                connection.shutdown(socket.SHUT_WR)
            while connection.recv(1 << 20):
                pass


@pytest.mark.parametrize(
    ("answer", "why"),
    [(b"HTTP/1.1 400 Bad Request\r\n\r\n", "answered HTTP/1.1 400 Bad Request"), (b"", "closed")],
    ids=["answered", "closed"],
)
def test_an_upload_that_is_broken_off_says_how(answer: bytes, why: str) -> None:
    with FixedServer(answer, closes=True) as target:
        _, told = tiny_chunks_client.upload((target.host, target.port), "/x", time.monotonic() + 5)
    assert told == why


def test_an_upload_that_is_taken_to_the_end_was_not_broken_off() -> None:
    with FixedServer(b"", closes=False) as target:
        sent, told = tiny_chunks_client.upload(
            (target.host, target.port), "/x", time.monotonic() + 0.2
        )
    assert sent > 0
    assert told == ""


def asked(target: FixedServer, lead: float) -> steady_client.SteadyClient:
    client = steady_client.SteadyClient(f"{target.url}/1k", 50, lead, 0.2)
    asyncio.run(client.run())
    return client


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def test_requests_before_the_measurement_do_not_count() -> None:
    with FixedServer(OK, closes=True) as target:
        client = asked(target, lead=0.1)
    assert len(client.milliseconds) + client.failed.total() == 10


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", "answered HTTP/1.1 503 Service Unavailable"),
        (OK[:-1], "closed"),
        (b"", "closed"),
    ],
    ids=["503", "cut short", "nothing"],
)
def test_a_request_without_its_answer_has_failed(answer: bytes, reason: str) -> None:
    with FixedServer(answer, closes=True) as target:
        client = asked(target, lead=0.0)
    assert client.failed == {reason: 10}
    assert client.milliseconds == []


def test_a_request_is_sent_though_the_one_before_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steady_client, "STRAGGLERS", 0.1)
    with FixedServer(b"", closes=False) as target:
        client = asked(target, lead=0.0)
    assert client.failed == {"no answer": 10}
    assert len(client.late) == 10
