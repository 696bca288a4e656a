"""The cases about how long it takes until a killed process has been replaced."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import statistics
import time
from collections.abc import Callable, Iterator

from scripts.lib.bench import processes
from scripts.lib.bench.definitions import RESTARTS, Case, Measurement, Row, Surroundings
from scripts.lib.bench.processes import BenchError
from scripts.lib.bench.proxies import Contender, RunningProxy, Setup

KILLS = 15  # for one measurement, whose figure is their median
REST = 0.3  # seconds after a restart, in which the arbiter has taken note of it
ANSWER_SECONDS = 20.0


def _exchanged(port: int, request: bytes) -> socket.socket:
    """Ask on a new connection; returns it, answered and open. Raises OSError, BenchError."""
    sock = socket.create_connection(("127.0.0.1", port), timeout=ANSWER_SECONDS)
    try:
        sock.sendall(request)
        answer = sock.recv(65536)
        if not answer.startswith(b"HTTP/1.1 200"):
            raise BenchError(f"answered {answer[:40]!r}")
    except (OSError, BenchError):
        sock.close()
        raise
    return sock


def _server_of(proxy: RunningProxy, port: int, request: bytes) -> int:
    """The process that answers on a port."""
    with contextlib.closing(_exchanged(port, request)):
        held = processes.connections_by_process(proxy.process.pid, port)
    found = [pid for pid, count in held.items() if count]
    if len(found) != 1:
        raise BenchError(f"port {port} is served by {len(found)} processes")
    return found[0]


def kill_and_ask(proxy: RunningProxy, port: int, request: bytes) -> float:
    """Kill who serves a port; milliseconds until a request on a new connection is answered."""
    victim = _server_of(proxy, port, request)
    began = time.perf_counter()
    os.kill(victim, signal.SIGKILL)
    while True:
        try:
            _exchanged(port, request).close()
        except ConnectionError:
            # The dying process had taken the connection.
            continue
        return (time.perf_counter() - began) * 1000


Door = Callable[[RunningProxy], tuple[int, bytes]]


def worker_door(proxy: RunningProxy) -> tuple[int, bytes]:
    """Where a worker answers: port and request."""
    return proxy.place.port, b"GET /1k HTTP/1.1\r\nHost: localhost\r\n\r\n"


def management_door(proxy: RunningProxy) -> tuple[int, bytes]:
    """Where the management process answers: port and request."""
    token = f"Authorization: token {proxy.place.token}\r\n"
    request = f"GET /api/routes HTTP/1.1\r\nHost: localhost\r\n{token}\r\n"
    return proxy.place.api_port, request.encode()


def _case(key: str, title: str, door: Door) -> Case:
    def run(around: Surroundings, contender: Contender) -> Iterator[Measurement]:
        setup = Setup(around.targets.files)
        with contender.running(setup, around.folder, around.tools) as proxy:
            port, request = door(proxy)
            taken = []
            for _ in range(KILLS):
                time.sleep(REST)
                taken.append(kill_and_ask(proxy, port, request))
            proxy.check_alive()
        extra = {"fastest and slowest": f"{min(taken):.0f} and {max(taken):.0f} ms"}
        yield Measurement(key, p50_ms=statistics.median(taken), p99_ms=max(taken), extra=extra)

    return Case(
        key, (Row(key, title, "restart", RESTARTS),), run, lambda contender: contender.has_workers
    )


def restart_cases() -> list[Case]:
    """The cases, in the order of the report."""
    return [
        _case("restart-worker", "The only worker killed", worker_door),
        _case("restart-management", "The management process killed", management_door),
    ]
