"""The cases: what is set up, what work is done, what a unit of it is."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from scripts.lib.bench import processes
from scripts.lib.bench.beside import beside_cases
from scripts.lib.bench.definitions import Case, Measurement, Row, Surroundings, Timing
from scripts.lib.bench.loads import (
    Handshakes,
    Load,
    Upload,
    WebSocketEcho,
    Wrk,
    idle_websockets,
    route_changes,
)
from scripts.lib.bench.new_worker import new_worker_case
from scripts.lib.bench.processes import BenchError
from scripts.lib.bench.proxies import Contender, RunningProxy, Setup
from scripts.lib.bench.restarts import restart_cases
from scripts.lib.bench.routes_api import RoutesApi, route_name
from scripts.lib.bench.stores import store_case
from scripts.lib.bench.targets import MB
from scripts.lib.bench.warming import Work, warm_up


def measure(around: Surroundings, proxy: RunningProxy, row: str, work: Work) -> Measurement:
    """Warm up, then measure the CPU that the proxy spends while the work is done."""
    warm_up(around.timing, proxy, work)
    return _measure_warm(around, proxy, row, work)


def _measure_warm(around: Surroundings, proxy: RunningProxy, row: str, work: Work) -> Measurement:
    before = proxy.cpu()
    load = work(proxy, around.timing.measure)
    spent = proxy.cpu() - before
    proxy.check_alive()
    return Measurement(
        row,
        cpu_us=spent / load.units * 1e6,
        per_second=load.units / load.seconds,
        p50_ms=load.p50_ms,
        p99_ms=load.p99_ms,
        memory=proxy.memory(),
        note=load.note,
    )


def _simple(
    key: str,
    title: str,
    unit: str,
    work: Work,
    *,
    target: str = "files",
    tls: bool = False,
    workers: int = 1,
) -> Case:
    """A case of one row: a fresh proxy, one kind of load."""

    def run(around: Surroundings, contender: Contender) -> Iterator[Measurement]:
        setup = Setup(getattr(around.targets, target), tls=tls, workers=workers)
        with contender.running(setup, around.folder, around.tools) as proxy:
            yield measure(around, proxy, key, work)

    return Case(key, (Row(key, title, unit),), run)


def _idle_tunnels(around: Surroundings, contender: Contender) -> Iterator[Measurement]:
    timing = around.timing
    with contender.running(Setup(around.targets.echo), around.folder, around.tools) as proxy:
        with idle_websockets(proxy, timing.tunnels // 10):
            pass
        time.sleep(timing.settle)
        before = proxy.memory()
        with idle_websockets(proxy, timing.tunnels):
            time.sleep(timing.settle)
            grown = proxy.memory() - before
            spent = proxy.cpu()
            time.sleep(timing.settle)
            idle_load = (proxy.cpu() - spent) / timing.settle
        extra = {
            "memory before": f"{before / MB:.0f} MB",
            "CPU while idle": f"{idle_load * 100:.1f}%",
        }
        yield Measurement("idle", memory=grown / timing.tunnels, extra=extra)


READ_ROUTES = 200_000  # routes read in all by the calls that read the table


def _api(around: Surroundings, contender: Contender) -> Iterator[Measurement]:
    """Add, delete and read at growing sizes of the table, on one life of the proxy."""
    timing = around.timing
    with contender.running(Setup(around.targets.files), around.folder, around.tools) as proxy:
        api = proxy.api
        assert api is not None
        target = proxy.setup.target_url
        for _ in _api_at(proxy, api, 0, timing.api_calls):
            pass  # warms up
        filled = 0
        for size in timing.tables:
            _expect(api.add(filled, size - filled, target) == 0, "a route could not be added")
            filled = size
            yield from _api_at(proxy, api, size, timing.api_calls)


def _api_at(proxy: RunningProxy, api: RoutesApi, size: int, calls: int) -> Iterator[Measurement]:
    """The calls at one size of the table, which they leave as it was."""
    target = proxy.setup.target_url
    reads = max(3, READ_ROUTES // max(size, 1000))

    def read() -> int:
        return sum(api.call("GET", "")[0] != 200 for _ in range(reads))

    yield _timed(proxy, api, f"api-add-{size}", calls, lambda: api.add(size, calls, target))
    yield _timed(proxy, api, f"api-delete-{size}", calls, lambda: api.delete(size, calls))
    yield _timed(proxy, api, f"api-get-{size}", reads, read)


def _timed(
    proxy: RunningProxy, api: RoutesApi, row: str, calls: int, work: Callable[[], int]
) -> Measurement:
    api.seconds.clear()
    before, began = proxy.cpu(), time.perf_counter()
    wrong = work()
    seconds = time.perf_counter() - began
    spent = proxy.cpu() - before
    _expect(wrong == 0, f"{wrong} of {calls} API calls had a wrong answer")
    times = sorted(api.seconds)
    return Measurement(
        row,
        cpu_us=spent / calls * 1e6,
        per_second=calls / seconds,
        p50_ms=times[len(times) // 2] * 1000,
        p99_ms=times[len(times) * 99 // 100] * 1000,
        memory=proxy.memory(),
    )


def _expect(holds: bool, otherwise: str) -> None:
    if not holds:
        raise BenchError(otherwise)


def _paths(around: Surroundings, routes: int) -> Path:
    """A file with a path in each of up to 1,000 routes, spread over the whole table."""
    step = max(1, routes // 1000)
    file = around.folder / f"paths-{routes}"
    lines = (f"{route_name(number)}/files/1k" for number in range(0, routes, step))
    file.write_text("\n".join(lines) + "\n", "utf-8")
    return file


CHANGES_PER_SECOND = 200


def _routes(around: Surroundings, contender: Contender) -> Iterator[Measurement]:
    """1 KB with a small table, with a big one, and with a big one that changes."""
    small, big = 10, around.timing.big_table
    setup = Setup(around.targets.files, routes=small)
    with contender.running(setup, around.folder, around.tools) as proxy:
        yield measure(around, proxy, "routes-10", Wrk(paths=_paths(around, small)))
        if proxy.api is None:
            return
        proxy.api.add(small, big - small, proxy.setup.target_url)
        work = Wrk(paths=_paths(around, big))
        yield measure(around, proxy, "routes-big", work)
        seconds = around.timing.measure + 1
        with route_changes(proxy, CHANGES_PER_SECOND, seconds):
            before = processes.cpu_by_process(proxy.process.pid)
            changing = _measure_warm(around, proxy, "routes-changing", work)
            after = processes.cpu_by_process(proxy.process.pid)
        shares = [spent - before.get(pid, 0.0) for pid, spent in after.items()]
        if contender.has_workers:
            changing.extra["busiest process"] = f"{max(shares) / sum(shares) * 100:.0f}% of it"
        yield changing


def _big_static_table(around: Surroundings, contender: Contender) -> Iterator[Measurement]:
    """1 KB with the big table for those whose routes are in a file."""
    setup = Setup(around.targets.files, routes=around.timing.big_table)
    with contender.running(setup, around.folder, around.tools) as proxy:
        yield measure(around, proxy, "routes-big", Wrk(paths=_paths(around, setup.routes)))


SPREAD_WORKERS = (1, 2, 4)
SPREAD_CONNECTIONS = (8, 64, 1000)


def _workers(around: Surroundings, contender: Contender) -> Iterator[Measurement]:
    """How load spreads over workers."""
    for workers in SPREAD_WORKERS:
        setup = Setup(around.targets.files, workers=workers)
        with contender.running(setup, around.folder, around.tools) as proxy:
            for connections in SPREAD_CONNECTIONS:
                spread: dict[str, str] = {}
                work = _watched(Wrk(connections=connections), workers, spread)
                row = f"workers-{workers}-{connections}"
                done = measure(around, proxy, row, work)
                done.extra.update(spread)
                yield done


def _watched(wrk: Wrk, workers: int, spread: dict[str, str]) -> Work:
    """A load that also notes how connections and CPU are spread over the workers."""

    def work(proxy: RunningProxy, seconds: float) -> Load:
        root, port = proxy.process.pid, proxy.place.port
        before = processes.cpu_by_process(root)
        held: list[int] = []

        def look() -> None:
            time.sleep(seconds / 2)
            held.extend(processes.connections_by_process(root, port).values())

        watcher = threading.Thread(target=look)
        watcher.start()
        load = wrk(proxy, seconds)
        watcher.join()
        after = processes.cpu_by_process(root)
        spent = [after[pid] - before.get(pid, 0.0) for pid in after]
        for name, values in (("connections", held), ("CPU", spent)):
            top = sorted(values, reverse=True)[:workers]
            mean = sum(top) / workers
            spread[f"busiest worker, {name} in shares"] = f"{max(top) / mean:.2f}" if mean else "–"
        return load

    return work


def _has_api(contender: Contender) -> bool:
    return contender.has_api


def _table_rows(timing: Timing) -> tuple[Row, ...]:
    verbs = {"add": "add a route", "delete": "delete a route", "get": "read the table"}
    return tuple(
        Row(f"api-{verb}-{size}", f"API: {title}, {size:,} routes", "call")
        for verb, title in verbs.items()
        for size in timing.tables
    )


def _echo(key: str, what: str, load: WebSocketEcho) -> Case:
    return _simple(key, f"WebSocket echo, {what}", "message", load, target="echo")


def all_cases(timing: Timing) -> list[Case]:
    """Every case, in the order of the report."""
    big = f"{timing.big_table:,}"
    return [
        _simple("http-1k", "1 KB, keep-alive", "request", Wrk("/1k")),
        _simple(
            "new-connection",
            "1 KB, new connection for each request",
            "request",
            Wrk("/1k", new_connections=True),
        ),
        _simple("http-100k", "100 KB", "request", Wrk("/100k")),
        _simple(
            "download-10m",
            "10 MB download",
            "download",
            Wrk("/10m", connections=8, unit_bytes=10 * MB),
        ),
        _simple("upload-1m", "1 MB upload", "upload", Upload(MB, 8), target="sink"),
        _simple("upload-100m", "100 MB upload", "upload", Upload(100 * MB, 2), target="sink"),
        _simple("https-1k", "HTTPS: 1 KB, keep-alive", "request", Wrk("/1k"), tls=True),
        _simple(
            "https-handshake",
            "HTTPS: 1 KB, new connection and full handshake for each request",
            "request",
            Handshakes("full"),
            tls=True,
        ),
        _simple(
            "https-resumed",
            "HTTPS: 1 KB, new connection and resumed session for each request, 4 workers",
            "request",
            Handshakes("resumed"),
            tls=True,
            workers=4,
        ),
        _echo("ws-64", "64 B", WebSocketEcho(64, 32)),
        _echo("ws-64-few", "64 B, 8 connections", WebSocketEcho(64, 8)),
        _echo("ws-64k", "64 KiB", WebSocketEcho(65536, 32)),
        _echo("ws-64k-few", "64 KiB, 8 connections", WebSocketEcho(65536, 8)),
        Case(
            "idle",
            (Row("idle", f"Idle WebSocket ({timing.tunnels:,} open)", "tunnel"),),
            _idle_tunnels,
        ),
        Case("api", _table_rows(timing), _api, _has_api, seconds=600.0),
        Case(
            "routes",
            (
                Row("routes-10", "1 KB, 10 routes", "request"),
                Row("routes-big", f"1 KB, {big} routes", "request"),
                Row(
                    "routes-changing",
                    f"1 KB, {big} routes, {CHANGES_PER_SECOND} changes a second",
                    "request",
                ),
            ),
            _routes,
            seconds=600.0,
        ),
        Case(
            "routes-static", (), _big_static_table, lambda contender: not contender.has_api, 300.0
        ),
        new_worker_case(timing),
        Case(
            "workers",
            tuple(
                Row(
                    f"workers-{workers}-{connections}",
                    f"1 KB, {workers} worker{'s' * (workers > 1)}, {connections:,} connections",
                    "request",
                )
                for workers in SPREAD_WORKERS
                for connections in SPREAD_CONNECTIONS
            ),
            _workers,
            lambda contender: contender.has_workers,
            seconds=300.0,
        ),
        store_case(),
        *beside_cases(),
        *restart_cases(),
    ]
