"""Measures changes, starts and activity of servers that keep their routes outside."""

from __future__ import annotations

import argparse
import os
import statistics
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import requests

from chp_gevent.shared.segment import FRESH_SLOT, PAGE, ROW_LENGTH, WORD, Segment
from scripts.lib.bench.routes_api import RoutesApi
from tests.kit import processes
from tests.kit.engine import PROGRAMS, Engine, running_engine
from tests.kit.peers import EchoTarget, wait_until
from tests.kit.server import TOKEN, Proxy, start_proxy

SERVERS = 3
ADDS = 1000
LARGE = 100_000
USED = 10_000
# Seconds for which the cost of activity is measured.
WATCHED = 20.0
SAMPLES = 30
AT_ONCE = 8

BOUNDS: Mapping[str, float] = {
    "shared add, p50 ms": 5,
    "shared add, p99 ms": 25,
    "start to current, s": 3,
    "engine, % of a core": 20,
    "activity visible, slowest s": 2,
    "SQLite add, p50 ms": 1,
}

_SEGMENT_ROUTES = 1_000_000


class Figures:
    """The figures so far, each with its bound."""

    def __init__(self, scale: float) -> None:
        self.scale = scale
        self.are_kept = True

    def counted(self, number: int) -> int:
        """Return how many of something there are to be at this scale."""
        return max(10, int(number * self.scale))

    def put(self, name: str, value: float) -> None:
        """Print a figure, and whether it is within its bound."""
        bound = BOUNDS[name]
        self.are_kept = self.are_kept and value <= bound
        print(
            f"{name:<28} {value:8.2f}   at most {bound:g}{'' if value <= bound else '  OVER'}",
            flush=True,
        )


def _is_current(proxy: Proxy) -> bool:
    return requests.get(f"{proxy.url}/_chp_ready?current", timeout=10).status_code == 200


@contextmanager
def _server(storage: str, name: str) -> Iterator[Proxy]:
    flags = ("--storage-backend", storage, "--log-level", "error")
    more = ("--replica-name", name) if storage.startswith("redis") else ()
    with start_proxy(*flags, *more) as proxy:
        wait_until(lambda: _is_current(proxy), 60, "it is current")
        yield proxy


def _adds(proxies: list[Proxy], number: int) -> list[float]:
    """Add routes one after the other, by each server in turn; return how many ms each took."""
    apis = [RoutesApi(proxy.api_port, TOKEN) for proxy in proxies]
    for each in range(number):
        status, answer = apis[each % len(apis)].call(
            "POST", f"/add/{each}", {"target": "http://127.0.0.1:9"}
        )
        assert status == 201, answer
    for api in apis:
        api.close()
    return [1000 * seconds for api in apis for seconds in api.seconds]


def _percentile(values: list[float], part: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * part))]


def _fill(proxy: Proxy, number: int) -> None:
    """Add routes, some at a time."""

    def add(first: int) -> None:
        api = RoutesApi(proxy.api_port, TOKEN)
        assert api.add(first, share, "http://127.0.0.1:9") == 0
        api.close()

    share = -(-number // AT_ONCE)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(add, range(0, number, share)))


def _segment_of(proxy: Proxy) -> Segment:
    """Return the shared memory of a server, as its processes have it."""
    folder = Path(f"/proc/{proxy.pid}/fd")
    links = [
        link
        for link in folder.iterdir()
        if os.readlink(link).startswith("/memfd:chp-gevent-segment")
    ]
    file = os.open(links[0], os.O_RDWR)
    rows = (os.fstat(file).st_size - PAGE - _SEGMENT_ROUTES * WORD) // (ROW_LENGTH * WORD)
    return Segment(rows, _SEGMENT_ROUTES, file)


@contextmanager
def _all_used(proxies: list[Proxy]) -> Iterator[None]:
    """Have all routes of servers be used each second, at no cost for the servers."""
    ended = threading.Event()
    segments = [_segment_of(proxy) for proxy in proxies]

    def use() -> None:
        while not ended.wait(1.0):
            for segment in segments:
                now = time.time()
                for slot in range(segment.words[FRESH_SLOT]):
                    segment.activity[slot] = now

    thread = threading.Thread(target=use)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _seconds_until_seen(first: Proxy, second: Proxy, path: str) -> float:
    """Use a route by one server; return after how many seconds another one shows that."""
    used = time.time()
    first.get(path)
    wait_until(lambda: _last_activity(second, path) >= used - 0.001, 10, "it is seen")
    return time.time() - used


def _last_activity(proxy: Proxy, path: str) -> float:
    answer = requests.get(proxy.api.route_url(path), headers=proxy.api.headers, timeout=10).json()
    return datetime.fromisoformat(answer["last_activity"].replace("Z", "+00:00")).timestamp()


def _cpu(engine: Engine) -> float:
    found = processes.status(engine.pid)
    assert found is not None
    return found.cpu


def _measure_shared(figures: Figures, engine: Engine, stack: ExitStack) -> None:
    proxies = [stack.enter_context(_server(engine.url, f"s{n}")) for n in range(SERVERS)]
    _adds(proxies, 30)  # warm
    taken = _adds(proxies, figures.counted(ADDS))
    figures.put("shared add, p50 ms", statistics.median(taken))
    figures.put("shared add, p99 ms", _percentile(taken, 0.99))

    used = figures.counted(USED)
    _fill(proxies[0], used)
    target = stack.enter_context(EchoTarget("t"))
    proxies[0].api.add("/seen", target.url)
    with _all_used(proxies):
        threading.Event().wait(3)
        cpu, began = _cpu(engine), time.monotonic()
        threading.Event().wait(WATCHED * figures.scale)
        share = (_cpu(engine) - cpu) / (time.monotonic() - began)
        # Of those that were there when it was asked for.
        told = engine.client.zcount("{chp}:activity", (time.time() - 3) * 1000, "+inf")
        assert told >= used, f"{told} of {used} routes have been told of"
        figures.put("engine, % of a core", 100 * share)
    # By requests, beside nothing: what else is told is no older than this.
    samples = [
        _seconds_until_seen(proxies[n % 3], proxies[(n + 1) % 3], "/seen")
        for n in range(figures.counted(SAMPLES))
    ]
    print(f"    activity visible after {statistics.median(samples):.2f} s, the median")
    figures.put("activity visible, slowest s", max(samples))

    _fill(proxies[0], figures.counted(LARGE))
    began = time.monotonic()
    with start_proxy("--storage-backend", engine.url, "--log-level", "error") as late:
        wait_until(lambda: _is_current(late), 60, "it is current")
        figures.put("start to current, s", time.monotonic() - began)
        assert len(late.api.routes()) >= figures.counted(LARGE)


def measure(figures: Figures, kind: str) -> None:
    """Measure everything."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="replicas-figures-")))
        with _server(f"sqlite:{folder / 'routes.sqlite'}", "one") as proxy:
            _adds([proxy], 30)
            taken = _adds([proxy], figures.counted(ADDS))
            print(f"    SQLite add, p99 {_percentile(taken, 0.99):.2f} ms")
            figures.put("SQLite add, p50 ms", statistics.median(taken))
        engine = stack.enter_context(running_engine(folder, kind=kind))
        _measure_shared(figures, engine, stack)


def main() -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", choices=sorted(PROGRAMS), default="redis")
    parser.add_argument("--scale", type=float, default=1.0)
    arguments = parser.parse_args()
    if PROGRAMS[arguments.engine] is None:
        print(f"left out: no {arguments.engine} on this machine")
        return 0
    figures = Figures(arguments.scale)
    measure(figures, arguments.engine)
    return 0 if figures.are_kept else 1
