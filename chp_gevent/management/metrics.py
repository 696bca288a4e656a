"""Metrics in Prometheus's text format: CHP's names, and ours beside them.

Everything is read from the shared segment when somebody asks; requests pay nothing for it.

Imported after monkey patching only.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import gevent
from gevent.lock import BoundedSemaphore
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.registry import Collector

from chp_gevent.config.tls_parts import PARTS
from chp_gevent.management.counters import Totals, management_row, read_totals, worker_rows
from chp_gevent.shared.segment import (
    BYTES_FROM_CLIENTS,
    BYTES_TO_CLIENTS,
    GENERATION,
    HANDSHAKES_FULL,
    HANDSHAKES_RESUMED,
    OPEN_CONNECTIONS,
    OPEN_TUNNELS,
    PID,
    REQUESTS_WEB,
    REQUESTS_WS,
    STARTS,
    TARGET_ERRORS,
    Segment,
)
from chp_gevent.stores import Figure

if TYPE_CHECKING:
    from chp_gevent.acme.keeper import CertificateKeeper
    from chp_gevent.acme.state import State

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

COLLECTED_FOR: Final = 1.0
"""Seconds for which a text is served again; Prometheus asks every 15 by default."""

# CHP's counters, from prom-client, which appends no _total to their names.
_CHP_COUNTERS: Final = {
    "api_route_get": "Count of API route get requests",
    "api_route_add": "Count of API route add requests",
    "api_route_delete": "Count of API route delete requests",
    "requests_ws": "Count of websocket requests",
    "requests_web": "Count of web requests",
}
_CHP_STATUS_COUNTERS: Final = {
    "requests_proxy": "Count of proxy requests",
    "requests_api": "Count of API requests",
}
_TOTAL_TO_CUT: Final = re.compile(
    rb"^(# (?:HELP|TYPE) (?:%b))_total "
    % "|".join([*_CHP_COUNTERS, *_CHP_STATUS_COUNTERS]).encode(),
    re.MULTILINE,
)

_WORKER_COUNTERS: Final = (
    (BYTES_FROM_CLIENTS, "chp_bytes_from_clients", "Bytes of bodies and tunnels from clients"),
    (BYTES_TO_CLIENTS, "chp_bytes_to_clients", "Bytes of bodies and tunnels to clients"),
)
_WORKER_GAUGES: Final = (
    (OPEN_CONNECTIONS, "chp_open_connections", "Open connections of clients"),
    (OPEN_TUNNELS, "chp_open_tunnels", "Open WebSocket tunnels"),
)


class Metrics(Collector):
    """Collects the metrics of one server.

    Args:
        segment: the shared segment.
        count_routes: returns the number of routes.
        arbiter_pid: process id of the arbiter.
        keeper: gets certificates from an ACME server; None if nothing does.
        store: says what is to be known of routes that servers share.
    """

    def __init__(
        self,
        segment: Segment,
        count_routes: Callable[[], int],
        arbiter_pid: int,
        keeper: CertificateKeeper | None = None,
        store: Callable[[], Iterable[Figure]] = tuple,
    ) -> None:
        self._segment = segment
        self._count_routes = count_routes
        self._arbiter_pid = arbiter_pid
        self._keeper = keeper
        self._store = store
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def exposition(self) -> bytes:
        """Return all metrics as text."""
        return _TOTAL_TO_CUT.sub(rb"\1 ", generate_latest(self._registry))

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics (the interface of prometheus-client's collectors)."""
        yield from _chp_metrics(read_totals(self._segment))
        yield from self._server_metrics()
        yield from self._worker_metrics()
        yield from self._process_metrics()

    def _server_metrics(self) -> Iterator[Metric]:
        own = management_row(self._segment)
        yield GaugeMetricFamily("chp_routes", "Routes in the table", self._count_routes())
        yield GaugeMetricFamily(
            "chp_table_generation",
            "Number of the last published change of the routing table",
            self._segment.words[GENERATION],
        )
        days = GaugeMetricFamily(
            "chp_certificate_days_left", "Days until a certificate ends", labels=["certificate"]
        )
        for part in PARTS:
            ends = self._segment.words[part.ends]
            if ends:
                days.add_metric([part.name], (ends - time.time()) / 86_400)
        yield days
        if self._keeper is not None:
            yield from _acme_metrics(self._keeper.state)
        yield from _store_metrics(self._store())
        yield CounterMetricFamily(
            "chp_management_restarts",
            "Times that the management process was replaced",
            max(0, own[STARTS] - 1),
        )

    def _worker_metrics(self) -> Iterator[Metric]:
        rows = [(str(number), row) for number, row in worker_rows(self._segment)]
        for word, name, text in _WORKER_GAUGES:
            yield _by_worker(GaugeMetricFamily(name, text, labels=["worker"]), rows, word)
        for word, name, text in _WORKER_COUNTERS:
            yield _by_worker(CounterMetricFamily(name, text, labels=["worker"]), rows, word)
        restarts = CounterMetricFamily(
            "chp_worker_restarts", "Times that a worker was replaced", labels=["worker"]
        )
        requests = CounterMetricFamily(
            "chp_worker_requests", "Requests by worker", labels=["worker", "kind"]
        )
        handshakes = CounterMetricFamily(
            "chp_tls_handshakes", "TLS handshakes of clients", labels=["worker", "kind"]
        )
        for number, row in rows:
            handshakes.add_metric([number, "full"], row[HANDSHAKES_FULL])
            handshakes.add_metric([number, "resumed"], row[HANDSHAKES_RESUMED])
            restarts.add_metric([number], row[STARTS] - 1)
            requests.add_metric([number, "web"], row[REQUESTS_WEB])
            requests.add_metric([number, "ws"], row[REQUESTS_WS])
        yield restarts
        yield requests
        yield handshakes
        yield self._target_errors([row for _, row in rows])

    @staticmethod
    def _target_errors(rows: list[memoryview[int]]) -> Metric:
        errors = CounterMetricFamily(
            "chp_target_errors", "Failures of targets by reason", labels=["reason"]
        )
        for reason, word in TARGET_ERRORS.items():
            # All reasons, those that nothing has failed for too: a rate needs a first value.
            errors.add_metric([reason], sum(row[word] for row in rows))
        return errors

    def _process_metrics(self) -> Iterator[Metric]:
        pids = {"arbiter": self._arbiter_pid, "management": os.getpid()}
        for number, row in worker_rows(self._segment):
            if _parent_of(row[PID]) == self._arbiter_pid:
                pids[f"worker-{number}"] = row[PID]
        return _process_metrics(pids)


def _acme_metrics(state: State) -> Iterator[Metric]:
    for outcome, when in (("success", state.succeeded_at), ("failure", state.failed_at)):
        yield GaugeMetricFamily(
            f"chp_acme_last_{outcome}_timestamp_seconds",
            f"When getting a certificate last ended in {outcome}, 0 if it never did",
            when,
        )


def _store_metrics(figures: Iterable[Figure]) -> Iterator[Metric]:
    families: dict[str, Any] = {}
    for figure in figures:
        if figure.name not in families:
            family = CounterMetricFamily if figure.is_counter else GaugeMetricFamily
            labels = [figure.label[0]] if figure.label else []
            families[figure.name] = family(figure.name, figure.text, labels=labels)
        values = [figure.label[1]] if figure.label else []
        families[figure.name].add_metric(values, figure.value)
    yield from families.values()


def _chp_metrics(totals: Totals) -> Iterator[Metric]:
    """Yield what CHP 5 has, under its names."""
    for name, text in _CHP_COUNTERS.items():
        metric = Metric(name, text, "counter")
        metric.add_sample(name, {}, getattr(totals, name))
        yield metric
    for name, text in _CHP_STATUS_COUNTERS.items():
        metric = Metric(name, text, "counter")
        for status, count in sorted(getattr(totals, name).items()):
            metric.add_sample(name, {"status": str(status)}, count)
        yield metric
    yield SummaryMetricFamily(
        "find_target_for_req",
        "Summary of find target requests",
        totals.find_target_count,
        totals.find_target_ns / 1e9,
    )
    yield SummaryMetricFamily(
        "last_activity_updating",
        "Summary of last activity updating requests",
        totals.activity_count,
        totals.activity_ns / 1e9,
    )


def _by_worker(metric: Any, rows: Iterable[tuple[str, memoryview[int]]], word: int) -> Metric:
    for number, row in rows:
        metric.add_metric([number], row[word])
    return metric


def _parent_of(pid: int) -> int | None:
    """Return the parent of a process; the number of a dead worker may be somebody else's now."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            return int(stat.read().rpartition(b")")[2].split()[1])
    except OSError:
        return None


def _process_metrics(pids: Mapping[str, int]) -> Iterator[Metric]:
    """Yield what prometheus-client knows of a process, for each process of the server.

    ``process_open_fds`` becomes ``chp_process_open_fds{process="worker-0"}``, and so on.
    """
    merged: dict[str, Metric] = {}
    for process, pid in pids.items():
        # What /proc tells of a process takes 0.4 ms; nobody waits for that of all of them.
        gevent.sleep(0)
        for metric in ProcessCollector("chp", partial(int, pid), registry=None).collect():
            target = merged.setdefault(
                metric.name, Metric(metric.name, metric.documentation, metric.type)
            )
            for sample in metric.samples:
                target.add_sample(sample.name, {"process": process}, sample.value)
    return iter(merged.values())


class MetricsApp:
    """Serves the metrics at ``/metrics``, whatever the method, as CHP does (WSGI).

    They are collected once a second at most, and by one request at a time, whoever asks how
    often: with 8 workers that takes 4 ms of CPU, with 256 a hundred.

    Args:
        metrics: what is served.
        clock: returns monotonic time in seconds.
    """

    def __init__(self, metrics: Metrics, clock: Callable[[], float] = time.monotonic) -> None:
        self._metrics = metrics
        self._clock = clock
        self._text = b""
        self._collecting = BoundedSemaphore()
        self._collect_after = float("-inf")

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        """Answer one request (PEP 3333)."""
        if environ["RAW_URI"] != "/metrics":
            start_response("404 Not Found", [])
            return [b"Not Found"]
        with self._collecting:
            if self._clock() >= self._collect_after:
                self._text = self._metrics.exposition()
                self._collect_after = self._clock() + COLLECTED_FOR
        start_response("200 OK", [("Content-Type", CONTENT_TYPE)])
        return [self._text]
