"""One run of chaos, and its report."""

from __future__ import annotations

import argparse
import os
import random
import signal
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from scripts.lib.chaos.catalogue import NAMES, settings, suitable
from scripts.lib.chaos.disturb import Disturber
from scripts.lib.chaos.home import WORKERS, Home, ReadProxy
from scripts.lib.chaos.isolation import Isolation, find_isolation
from scripts.lib.chaos.levels import Levels, baseline, wait_for_no_leaks
from scripts.lib.chaos.record import Record
from scripts.lib.chaos.target_process import Target, TargetProcess
from scripts.lib.chaos.traffic import Traffic
from tests.kit.crash_lines import CRASH
from tests.kit.server import TOKEN, free_ports, start_proxy

_SHOWN = 20


@dataclass(frozen=True)
class Setting:
    """What a run is about: how the server is started, and what is done to it."""

    isolation: Isolation
    only: tuple[str, ...]
    tls: bool


def run(seconds: float, seed: int, log_file: str | None, setting: Setting) -> bool:
    """Run and report. Returns whether everything held."""
    record = Record()
    left: list[str] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="chaos-")))
        home = Home(folder, setting.isolation, tls=setting.tls)
        flood_port, *ports = free_ports(5)
        targets = [Target(f"target{n}", port, record) for n, port in enumerate(ports)]
        for target in targets:
            target.start()
            stack.callback(target.kill)
        flood = TargetProcess("flood_target", flood_port, str(flood_port))
        flood.start()
        stack.callback(flood.kill)
        server = home.server("--drain-timeout", "15", "--workers", str(WORKERS))
        proxy = server.__enter__()
        try:
            proxy.api.add("/flood", flood.url)
            only = suitable(setting.only, tls=setting.tls)
            disturber = Disturber(home, proxy, targets, record, random.Random(seed), only)
            leaks, crashes = _disturbed(home, proxy, targets, disturber, seconds, seed)
        except BaseException:
            proxy.kill()
            print("\n".join(proxy.log().splitlines()[-60:]))
            raise
        if record.ended is not None:
            last = [line for line in proxy.log().splitlines() if "error" in line.lower()][-4:]
            left += [f"the server ended with {proxy.process.returncode}:", *last]
        try:
            server.__exit__(None, None, None)
            code = proxy.process.returncode
            if code != 0 and record.ended is None:
                left.append(f"exit status {code} after SIGTERM")
        except AssertionError as error:
            left.append(str(error))
    record.judge()
    log = [line for line in proxy.log().splitlines() if CRASH.search(line)]
    if log_file is not None:
        with Path(log_file).open("a", encoding="utf-8") as file:
            file.write(proxy.log() + "\n")
    return report(record, leaks, left, crashes + log)


def _disturbed(
    home: Home,
    proxy: ReadProxy,
    targets: list[Target],
    disturber: Disturber,
    seconds: float,
    seed: int,
) -> tuple[list[str], list[str]]:
    """Disturb traffic; return leaked descriptors, and crashes of clients."""
    for target in targets:
        proxy.api.add(f"/kept/{target.name}", target.url)
    record = disturber.record
    levels = Levels(proxy, disturber)
    before = baseline(proxy, levels, targets, home.tls)
    addresses = {target.name: target.url for target in targets}
    traffic = Traffic(record, proxy.address, proxy.api_address, TOKEN, addresses, home.tls)
    record.started = time.monotonic()
    traffic.start(seed)
    try:
        disturber.run(seconds)
    finally:
        traffic.stop()
    if record.ended is not None:
        return [], traffic.crashes
    _compare_tables(proxy, record, traffic.model, addresses)
    for target in targets:
        target.kill()
    # Workers that drain end within their 15 s.
    return wait_for_no_leaks(levels, before, 20), traffic.crashes


def _compare_tables(
    proxy: ReadProxy, record: Record, model: dict[str, str], addresses: dict[str, str]
) -> None:
    """Note each route that is not what the API was told last."""
    wanted = {path: addresses[name] for path, name in model.items()}
    wanted |= {f"/kept/{name}": url for name, url in addresses.items()}
    have = {path: route["target"] for path, route in proxy.api.routes().items()}
    have.pop("/flood")
    for path in wanted.keys() | have.keys():
        if wanted.get(path) != have.get(path):
            where = f"{path}: {have.get(path)} instead of {wanted.get(path)}"
            record.wrong(record.lost, where)


def _killed_arbiter() -> list[str]:
    """Kill the arbiter of a server of its own; return what is wrong after that."""
    with start_proxy(workers=WORKERS) as proxy:
        os.kill(proxy.pid, signal.SIGKILL)
        proxy.wait()
        try:
            proxy.assert_nothing_left(5)
        except AssertionError as error:
            return [f"after SIGKILL of the arbiter: {error}"]
    return []


def report(record: Record, leaks: list[str], left: list[str], crashes: list[str]) -> bool:
    """Print what happened. Returns whether everything held."""

    def listed(counts: Counter[str]) -> str:
        return ", ".join(f"{count} {what}" for what, count in sorted(counts.items())) or "none"

    print(f"disturbances: {listed(record.disturbed)}")
    print(f"sent: {record.sent.total()} ({listed(record.sent)})")
    print(f"answered: {record.done.total()} ({listed(record.done)})")
    print(f"broken off by their clients: {record.aborted}")
    print(f"longest wait that nothing explains: {record.longest_wait:.2f} s")
    print(f"failed, as they may: {record.explained.total()} ({listed(record.explained)})")
    verdicts = {
        "failed for no such reason": record.unexplained,
        "waited for no such reason": record.slow,
        "not as promised": record.not_kept,
        "wrong target": record.wrong_target,
        "stale route": record.stale,
        "lost route": record.lost,
        "leaked descriptors": leaks,
        "ended, or left something": left,
        "crashes": crashes,
    }
    for name, found in verdicts.items():
        print(f"{name}: {len(found)}")
        for line in found[:_SHOWN]:
            print(f"    {line}")
    return not any(verdicts.values())


def main() -> int:
    """Parse the command line, run, and return the exit status."""
    parser = argparse.ArgumentParser(prog="scripts/chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="of disturbed traffic")
    parser.add_argument("--seed", type=int, default=None, help="of the disturbances")
    parser.add_argument("--log", help="file to write the server's log to")
    parser.add_argument(
        "--only", metavar="A,B", default=",".join(NAMES), help=f"some of: {', '.join(NAMES)}"
    )
    arguments = parser.parse_args()
    only = tuple(arguments.only.split(","))
    if unknown := set(only) - set(NAMES):
        parser.error(f"unknown disturbance {', '.join(sorted(unknown))}; see --help")
    seed = arguments.seed if arguments.seed is not None else random.randrange(1_000_000)
    if arguments.log is not None:
        Path(arguments.log).write_bytes(b"")
    isolation = find_isolation()
    skipped = [f"{name} ({why})" for name, why in isolation.missing.items() if name in only]
    only = tuple(name for name in only if name not in isolation.missing)
    held = True
    kinds = settings(only)
    for tls in kinds:
        part = arguments.seconds / len(kinds)
        print(f"chaos for {part:g} s, seed {seed}, {'with' if tls else 'without'} TLS", flush=True)
        held &= run(part, seed, arguments.log, Setting(isolation, only, tls))
    after_arbiter = _killed_arbiter()
    print("\n".join(after_arbiter), end="\n" * bool(after_arbiter))
    if skipped:
        print(f"SKIPPED, since it can't be done here: {'; '.join(skipped)}")
    held &= not after_arbiter
    print("held" if held else f"FAILED (seed {seed})")
    return 0 if held else 1
