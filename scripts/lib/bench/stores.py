"""The case about what a request costs when routes are kept outside the server."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from scripts.lib.bench.definitions import Case, Measurement, Row, Surroundings
from scripts.lib.bench.loads import Wrk
from scripts.lib.bench.processes import running
from scripts.lib.bench.proxies import Contender, RunningProxy, Setup
from scripts.lib.bench.targets import free_port
from scripts.lib.bench.warming import warm_up

# Each server is measured so often, in turn with the others, so that slow times are shared.
TURNS = 6
_ROWS = {
    "store-none": "1 KB, no store",
    "store-sqlite": "1 KB, SQLite",
    "store-redis": "1 KB, Redis",
}


def _engine(folder: Path, stack: ExitStack) -> str:
    """Start Redis; return its URL."""
    program = shutil.which("redis-server")
    assert program is not None
    port = free_port()
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    stack.enter_context(running(command, folder / "redis.log", {}))
    return f"redis://127.0.0.1:{port}"


def _run(around: Surroundings, contender: Contender) -> Iterator[Measurement]:
    with ExitStack() as stack:
        storage = {
            "store-none": (),
            "store-sqlite": ("--storage-backend", f"sqlite:{around.folder / 'routes.sqlite'}"),
            "store-redis": ("--storage-backend", _engine(around.folder, stack)),
        }
        proxies: dict[str, RunningProxy] = {}
        for row, flags in storage.items():
            folder = around.folder / row
            folder.mkdir(exist_ok=True)
            setup = Setup(around.targets.files, flags=flags)
            proxies[row] = stack.enter_context(contender.running(setup, folder, around.tools))
        work = Wrk("/1k")
        for proxy in proxies.values():
            warm_up(around.timing, proxy, work)
        cpu, units = dict.fromkeys(_ROWS, 0.0), dict.fromkeys(_ROWS, 0.0)
        rows = list(proxies)
        for turn in range(TURNS):
            first = turn % len(rows)
            for row in rows[first:] + rows[:first]:
                proxy = proxies[row]
                before = proxy.cpu()
                load = work(proxy, around.timing.measure / 2)
                cpu[row] += proxy.cpu() - before
                units[row] += load.units
        for row, proxy in proxies.items():
            proxy.check_alive()
            yield Measurement(row, cpu_us=cpu[row] / units[row] * 1e6)


def store_case() -> Case:
    """The case; it is left out where there is no Redis."""
    return Case(
        "store",
        tuple(Row(key, title, "request") for key, title in _ROWS.items()),
        _run,
        lambda contender: contender.has_workers and shutil.which("redis-server") is not None,
        seconds=300.0,
    )
