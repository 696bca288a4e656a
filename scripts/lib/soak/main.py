"""The command line of the soak, and its course."""

from __future__ import annotations

import argparse
import random
import re
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from scripts.lib.bench.processes import BenchError
from scripts.lib.bench.toolbox import Toolbox, default_cache
from scripts.lib.soak import verdict
from scripts.lib.soak.load import Load, started_programs
from scripts.lib.soak.plan import Slice, slices
from scripts.lib.soak.reading import Reading, read
from scripts.lib.soak.verdict import Row, Run
from tests.kit.crash_lines import CRASH
from tests.kit.peers.upgrades import switched_client
from tests.kit.server import Proxy, start_proxy

SETTLE_LIMIT = 12.0
STEADY_SECONDS = 1.2
LOG_LINES = 20
# Fewer of anything would leave some kinds out of a slice.
FEWEST_A_SLICE = 50
# What it logs all the time here: changes, and the errors that are asked for.
ORDINARY = re.compile(r"[Rr]out|(?:error|warn): (?:404|503) ")


def main() -> int:
    """Parse the command line, run, and return the exit status."""
    arguments = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    seed = arguments.seed if arguments.seed is not None else random.randrange(1_000_000)
    planned = slices(arguments.requests, arguments.tunnels, arguments.changes, arguments.slices)
    print(
        f"soak: {arguments.requests:,} requests, {arguments.tunnels:,} tunnels, "
        f"{arguments.changes:,} changes in {arguments.slices} slices, seed {seed}",
        flush=True,
    )
    began = time.monotonic()
    try:
        run = _soak(planned, arguments.workers, seed, arguments.log)
    except BenchError as error:
        print(f"FAILED: {error}")
        return 1
    minutes = (time.monotonic() - began) / 60
    failures = verdict.failures(run)
    lines = [*verdict.table(run), "", *verdict.summary(run)]
    print("", *lines, "", sep="\n")
    if arguments.output is not None:
        arguments.output.write_text("\n".join(lines) + "\n", "utf-8")
    print(*failures, sep="\n")
    words = f"FAILED (seed {seed})" if failures else "held"
    print(f"{words}; {minutes:.1f} minutes")
    return 1 if failures else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/soak", description="Memory over a long stretch of work, on loopback."
    )
    parser.add_argument("--requests", type=int, default=500_000, help="default: 500000")
    parser.add_argument("--tunnels", type=int, default=20_000, help="default: 20000")
    parser.add_argument("--changes", type=int, default=50_000, help="of routes; default: 50000")
    parser.add_argument("--slices", type=int, default=20, help="default: 20")
    parser.add_argument("--workers", type=int, default=1, help="default: 1")
    parser.add_argument("--seed", type=int, help="of everything random")
    parser.add_argument("--output", type=Path, metavar="FILE", help="for the table, as Markdown")
    parser.add_argument("--log", type=Path, metavar="FILE", help="for the server's log")
    arguments = parser.parse_args()
    try:
        verdict.windows(arguments.slices)
    except ValueError as error:
        parser.error(str(error))
    if min(arguments.requests, arguments.tunnels, arguments.changes) < (
        FEWEST_A_SLICE * arguments.slices
    ):
        parser.error(f"less than {FEWEST_A_SLICE} requests, tunnels or changes for each slice")
    return arguments


def _soak(planned: list[Slice], workers: int, seed: int, log: Path | None) -> Run:
    """Start everything, do the slices, stop everything."""
    tools = Toolbox(default_cache())
    with (
        tempfile.TemporaryDirectory(prefix="chp-soak-") as name,
        _dead_port() as dead,
        started_programs(tools, Path(name)) as ports,
    ):
        with start_proxy(workers=workers) as proxy:
            load = Load(proxy, {**ports, "dead": dead}, tools, Path(name), seed)
            run = _slices(planned, load, _roles(proxy, workers))
        if log is not None:
            log.write_text(proxy.log(), "utf-8")
        crashes = [line for line in proxy.log().splitlines() if CRASH.search(line)]
        run.wrong += [f"log: {line}" for line in crashes]
        return run


@contextmanager
def _dead_port() -> Iterator[int]:
    """A port that refuses connections, and that nobody else can take meanwhile."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


def _roles(proxy: Proxy, workers: int) -> dict[str, int]:
    """The processes of a server by what they are."""
    names = ["worker"] if workers == 1 else [f"worker {n + 1}" for n in range(workers)]
    return {
        "arbiter": proxy.pid,
        "management": proxy.management_pid(),
        **dict(zip(names, sorted(proxy.worker_pids()), strict=True)),
    }


def _slices(planned: list[Slice], load: Load, roles: dict[str, int]) -> Run:
    """Do slice after slice, and read after each what the processes have."""
    wrong = load.add_routes()
    _use_workers(load.proxy, len(roles) - 2)
    run = Run(_settled(load, roles, None), wrong=wrong)
    requests = tunnels = changes = 0
    for work in planned:
        began = time.monotonic()
        wrong = load.do(work)
        run.wrong += wrong
        for problem in wrong:
            print(problem, flush=True)
        requests += work.requests.total()
        tunnels += work.tunnels
        changes += work.changes
        usual = run.rows[-1].reading if run.rows else None
        row = Row(requests, tunnels, changes, _settled(load, roles, usual))
        run.rows.append(row)
        seconds = time.monotonic() - began
        print(f"{verdict.line(str(work.number + 1), row)} {seconds:.1f} s", flush=True)
    return run


def _use_workers(proxy: Proxy, workers: int) -> None:
    """Have every worker do something, so that each has opened what it keeps open."""
    with ExitStack() as open_tunnels:
        # Held together, they are shared out among the workers.
        for _ in range(10 * workers):
            client = open_tunnels.enter_context(proxy.client())
            switched_client(client, "/kept/own/warm-up")
    for _ in range(10 * workers):
        proxy.get("/kept/files/1k", "Connection: close")


def _settled(load: Load, roles: dict[str, int], usual: Reading | None) -> Reading:
    """Read when descriptors don't change any more, and are as many as ``usual`` (or late)."""
    load.renew_kept_routes()
    wanted = None if usual is None else _descriptors(usual)
    before = None
    end = time.monotonic() + SETTLE_LIMIT
    while True:
        # Workers look for connections that nobody needs once a second.
        time.sleep(STEADY_SECONDS)
        reading = _read(load.proxy, roles)
        now = _descriptors(reading)
        if (now == before and wanted in (None, now)) or time.monotonic() > end:
            return reading
        before = now


def _descriptors(reading: Reading) -> dict[str, int]:
    return {role: process.descriptors.total() for role, process in reading.processes.items()}


def _read(proxy: Proxy, roles: dict[str, int]) -> Reading:
    """Read. Raises ``BenchError`` when the processes are not those of the beginning."""
    try:
        if set(proxy.tree()) == set(roles.values()):
            return read(roles)
    except OSError:
        pass
    telling = [line for line in proxy.log().splitlines() if not ORDINARY.search(line)]
    log = "\n".join(telling[-LOG_LINES:])
    raise BenchError(f"a process of the server has ended, or there is a new one:\n{log}")
