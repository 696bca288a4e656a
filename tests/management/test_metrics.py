"""Metrics: CHP's names as prom-client shows them, and ours."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import gevent
import pytest
from prometheus_client.parser import text_string_to_metric_families

from chp_gevent.management.counters import (
    API_ROUTE_ADD,
    API_ROUTE_DELETE,
    API_ROUTE_GET,
    Totals,
    management_row,
    read_totals,
    take_management_row,
    worker_rows,
)
from chp_gevent.management.metrics import COLLECTED_FOR, Metrics, MetricsApp
from chp_gevent.shared import segment as layout
from chp_gevent.shared.segment import STATUS, Segment
from tests.kit.api_calls import call_wsgi, conforming


@pytest.fixture
def counted(segment: Segment) -> Segment:
    """A segment in which two workers and the management process have counted."""
    for number in range(2):
        row = segment.row(number)
        row[layout.STARTS] = number + 1
        row[layout.PID] = os.getpid()
        row[layout.REQUESTS_WEB] = 10 + number
        row[layout.REQUESTS_WS] = 2
        row[layout.BYTES_FROM_CLIENTS] = 1000
        row[layout.BYTES_TO_CLIENTS] = 2**40
        row[layout.OPEN_CONNECTIONS] = 5
        row[layout.OPEN_TUNNELS] = number
        row[layout.FIND_TARGET_NS] = 1_500_000
        row[layout.FIND_TARGET_COUNT] = 12
        row[layout.ACTIVITY_NS] = 500
        row[layout.ACTIVITY_COUNT] = 3
        row[STATUS + 200] = 7
    segment.row(1)[STATUS + 503] = 4
    for number in range(2):
        segment.row(number)[layout.TARGET_ERRORS["refused"]] = 2
    own = take_management_row(segment)
    own[API_ROUTE_GET], own[API_ROUTE_ADD], own[API_ROUTE_DELETE] = 1, 2, 3
    own[STATUS + 201] = 2
    segment.words[layout.GENERATION] = 99
    return segment


@pytest.fixture
def text(counted: Segment) -> str:
    """The exposition of that."""
    return Metrics(counted, lambda: 17, os.getppid()).exposition().decode()


def value(text: str, sample: str) -> float:
    """Return the value of a sample, named as in the text."""
    match = re.search(rf"^{re.escape(sample)} (\S+)$", text, re.MULTILINE)
    assert match, f"{sample} is not in\n{text}"
    return float(match[1])


@pytest.mark.parametrize(
    ("sample", "expected"),
    [
        ("requests_web", 21),
        ("requests_ws", 4),
        ('requests_proxy{status="200"}', 14),
        ('requests_proxy{status="503"}', 4),
        ('requests_api{status="201"}', 2),
        ("api_route_get", 1),
        ("api_route_add", 2),
        ("api_route_delete", 3),
        ("find_target_for_req_count", 24),
        ("find_target_for_req_sum", 0.003),
        ("last_activity_updating_count", 6),
        ("last_activity_updating_sum", 1e-6),
        ("chp_routes", 17),
        ("chp_table_generation", 99),
        ("chp_management_restarts_total", 0),
        ('chp_open_connections{worker="0"}', 5),
        ('chp_open_tunnels{worker="1"}', 1),
        ('chp_bytes_from_clients_total{worker="0"}', 1000),
        ('chp_bytes_to_clients_total{worker="1"}', 2**40),
        ('chp_worker_restarts_total{worker="0"}', 0),
        ('chp_worker_restarts_total{worker="1"}', 1),
        ('chp_worker_requests_total{kind="web",worker="1"}', 11),
        ('chp_target_errors_total{reason="refused"}', 4),
        ('chp_target_errors_total{reason="timeout"}', 0),
    ],
)
def test_a_sample_has_its_name_and_value(text: str, sample: str, expected: float) -> None:
    assert value(text, sample) == expected


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("api_route_get", "counter"),
        ("api_route_add", "counter"),
        ("api_route_delete", "counter"),
        ("requests_ws", "counter"),
        ("requests_web", "counter"),
        ("requests_proxy", "counter"),
        ("requests_api", "counter"),
        ("find_target_for_req", "summary"),
        ("last_activity_updating", "summary"),
    ],
)
def test_metrics_of_chp_are_declared_as_prom_client_declares_them(
    segment: Segment, name: str, kind: str
) -> None:
    text = Metrics(segment, lambda: 0, os.getppid()).exposition().decode()
    assert f"# TYPE {name} {kind}\n" in text, "also before anything was counted"
    assert re.search(rf"^# HELP {name} \S", text, re.MULTILINE)
    assert f"{name}_total" not in text


def test_prometheus_can_read_it(text: str) -> None:
    families = list(text_string_to_metric_families(text))
    assert len(families) > 20
    names = [sample.name for family in families for sample in family.samples]
    assert "process_resident_memory_bytes" in names


def test_memory_and_cpu_are_shown_for_each_process_of_the_server(text: str) -> None:
    for process in ("arbiter", "management", "worker-0", "worker-1"):
        assert value(text, f'chp_process_resident_memory_bytes{{process="{process}"}}') > 1e6
        assert value(text, f'chp_process_open_fds{{process="{process}"}}') > 0


def test_a_process_that_is_gone_or_somebody_elses_is_left_out(counted: Segment) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    counted.row(0)[layout.PID] = gone.pid
    counted.row(1)[layout.PID] = os.getppid()
    text = Metrics(counted, lambda: 0, os.getppid()).exposition().decode()
    assert 'process="worker-' not in text
    assert value(text, "requests_web") == 21, "what they counted stays"


def test_each_restart_of_the_management_process_is_counted(segment: Segment) -> None:
    for _ in range(3):
        row = take_management_row(segment)
    assert row[layout.PID] == os.getpid()
    text = Metrics(segment, lambda: 0, os.getppid()).exposition().decode()
    assert value(text, "chp_management_restarts_total") == 2


def test_the_management_process_counts_for_no_worker(segment: Segment) -> None:
    take_management_row(segment)[STATUS + 404] = 5
    assert worker_rows(segment) == []
    assert read_totals(segment) == Totals(requests_api={404: 5})
    assert management_row(segment)[STATUS + 404] == 5


@pytest.mark.parametrize("method", ["GET", "POST", "HEAD"])
def test_metrics_are_served_at_their_path(counted: Segment, method: str) -> None:
    app = conforming(MetricsApp(Metrics(counted, lambda: 0, os.getppid())))
    answer = call_wsgi(app, method, "/metrics")
    assert answer.status == 200
    assert answer.headers == [("Content-Type", "text/plain; version=0.0.4; charset=utf-8")]
    assert b"requests_web 21.0\n" in answer.body


class CountedMetrics:
    """Metrics that say how often they have been collected, and let others run meanwhile."""

    def __init__(self) -> None:
        self.times = 0

    def exposition(self) -> bytes:
        """Collect."""
        self.times += 1
        number = self.times
        gevent.sleep(0)
        return b"%d" % number


def test_metrics_are_collected_once_a_second() -> None:
    now = 100.0
    app = MetricsApp(CountedMetrics(), lambda: now)  # type: ignore[arg-type]

    def ask() -> bytes:
        return call_wsgi(app, "GET", "/metrics").body

    assert [ask(), ask()] == [b"1", b"1"]
    now += COLLECTED_FOR - 0.01
    assert ask() == b"1"
    now += 0.01
    assert [ask(), ask()] == [b"2", b"2"]


def test_requests_at_the_same_time_share_one_collection() -> None:
    metrics = CountedMetrics()
    app = MetricsApp(metrics)  # type: ignore[arg-type]
    asking = [gevent.spawn(call_wsgi, app, "GET", "/metrics") for _ in range(10)]
    gevent.joinall(asking, timeout=10)
    assert [each.get().body for each in asking] == [b"1"] * 10


def test_a_collection_that_fails_is_tried_again() -> None:
    class Failing:
        def exposition(self) -> bytes:
            raise OSError("no /proc")

    app = MetricsApp(Failing())  # type: ignore[arg-type]
    for _ in range(2):
        with pytest.raises(OSError, match="no /proc"):
            call_wsgi(app, "GET", "/metrics")


def test_others_run_while_the_processes_are_looked_at(counted: Segment) -> None:
    metrics = Metrics(counted, lambda: 0, os.getppid())
    ran = gevent.spawn(lambda: True)
    metrics.exposition()
    assert ran.ready()


@pytest.mark.parametrize("target", ["/", "/metrics/", "/metrics?x=1", "/other"])
def test_other_paths_are_not_found(segment: Segment, target: str) -> None:
    app = MetricsApp(Metrics(segment, lambda: 0, os.getppid()))
    assert call_wsgi(app, "GET", target) == (404, [], b"Not Found")
