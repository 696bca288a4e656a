"""The case about what a new worker spends before it serves with a big table."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import statistics
import time
from collections.abc import Iterator

from scripts.lib.bench import processes
from scripts.lib.bench.definitions import Case, Measurement, Row, Surroundings, Timing
from scripts.lib.bench.processes import BenchError
from scripts.lib.bench.proxies import Contender, RunningProxy, Setup
from scripts.lib.bench.routes_api import route_name

KILLS = 5  # for one measurement, whose figure is their median
ANSWER_SECONDS = 20.0


def _serving_worker(proxy: RunningProxy, path: str) -> int:
    """The worker that answers a request now. Raises OSError, HTTPException or BenchError."""
    port = proxy.place.port
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_SECONDS)
    with contextlib.closing(connection):
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
        held = processes.connections_by_process(proxy.process.pid, port)
    found = [pid for pid, count in held.items() if count]
    if answer.status != 200 or len(found) != 1:
        raise BenchError(f"answered {answer.status} by {len(found)} processes")
    return found[0]


def _next_worker(proxy: RunningProxy, path: str, victim: int) -> int:
    """Kill a worker; the one that answers after it."""
    os.kill(victim, signal.SIGKILL)
    end = time.monotonic() + ANSWER_SECONDS
    while time.monotonic() < end:
        # The dying worker may have taken the connection.
        with contextlib.suppress(OSError, http.client.HTTPException):
            worker = _serving_worker(proxy, path)
            if worker != victim:
                return worker
    raise BenchError("no new worker")


def _run(around: Surroundings, contender: Contender) -> Iterator[Measurement]:
    """Kill the only worker, again and again: the CPU of the new one when it has answered."""
    size = around.timing.big_table
    with contender.running(Setup(around.targets.files), around.folder, around.tools) as proxy:
        assert proxy.api is not None
        proxy.api.add(0, size, proxy.setup.target_url)
        path = f"{route_name(size - 1)}/files/1k"
        worker, spent = _serving_worker(proxy, path), []
        for _ in range(KILLS):
            worker = _next_worker(proxy, path, worker)
            spent.append(processes.cpu_by_process(proxy.process.pid)[worker])
        proxy.check_alive()
    extra = {"least and most": f"{min(spent) * 1000:.0f} and {max(spent) * 1000:.0f} ms"}
    yield Measurement("new-worker", cpu_us=statistics.median(spent) * 1e6, extra=extra)


def new_worker_case(timing: Timing) -> Case:
    """The case."""
    title = f"A new worker serves, {timing.big_table:,} routes"
    return Case(
        "new-worker",
        (Row("new-worker", title, "worker"),),
        _run,
        lambda contender: contender.has_workers,
        seconds=600.0,
    )
