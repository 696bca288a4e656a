"""The command line of the fuzzer."""

from __future__ import annotations

import argparse
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from scripts.lib.fuzz import live
from scripts.lib.fuzz.coverage_guide import NoGuideError, default_cache, python_path
from scripts.lib.fuzz.findings import Findings

REPOSITORY = Path(__file__).resolve().parents[3]
_PARSERS = [sys.executable, "-m", "scripts.lib.fuzz.parsers"]
# What libFuzzer calls the inputs that it writes.
_INPUTS = ("crash-", "timeout-", "oom-", "leak-")
# Seconds that the parsers' part may take longer: it looks at the time between inputs.
_GRACE = 120.0

_executions = re.compile(r"^(?:stat::number_of_executed_units: *|inputs at random: )(\d+)$", re.M)
_edges = re.compile(r" cov: (\d+) ")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/fuzz")
    parser.add_argument("--seconds", type=float, default=3600.0, help="default 3600")
    parser.add_argument("--seed", type=int, help="for the same messages again; default random")
    parser.add_argument("--part", choices=("parsers", "live"), help="one of the two; default both")
    parser.add_argument("--findings", type=Path, metavar="DIR", help="where findings are written")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="give what was found again")
    return parser.parse_args()


def main() -> int:
    """Fuzz and report; 0 when nothing was found."""
    arguments = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if arguments.replay is not None and not arguments.replay.is_file():
        print(f"scripts/fuzz: there is no file {arguments.replay}", file=sys.stderr)
        return 2
    folder = arguments.findings or Path(tempfile.mkdtemp(prefix="chp-fuzz-"))
    folder.mkdir(parents=True, exist_ok=True)
    if arguments.replay is not None:
        return _replay(arguments.replay.resolve(), folder)
    seed = arguments.seed if arguments.seed is not None else random.randrange(1 << 31)
    print(f"fuzz: {arguments.seconds:g} s, seed {seed}, findings in {folder}", flush=True)
    bad = _fuzz(arguments.part, arguments.seconds, seed, folder)
    print("FOUND something" if bad else "nothing found", flush=True)
    return 1 if bad else 0


def _replay(path: Path, folder: Path) -> int:
    """Give again what was found: an input to its parser, or conversations to a server."""
    if path.suffix != ".json":
        return subprocess.run([*_PARSERS, str(path)], cwd=REPOSITORY, check=False).returncode
    return 1 if _report(live.replay(path, folder), folder) else 0


def _fuzz(part: str | None, seconds: float, seed: int, folder: Path) -> bool:
    """Fuzz one part or both; return whether something was found."""
    bad = False
    with ThreadPoolExecutor(1) as pool:
        parsers: subprocess.Popen[bytes] | None = None
        watched: Future[bool] | None = None
        try:
            if part != "live":
                parsers = _start_parsers(seconds, seed, folder)
                watched = pool.submit(_watch_parsers, parsers, seconds, folder)
            if part != "parsers":
                bad = _report(live.fuzz(seconds, seed, folder), folder)
            if watched is not None:
                bad = watched.result() or bad
                print(_parsers_summary(folder), flush=True)
        finally:
            if parsers is not None and parsers.poll() is None:
                parsers.kill()
                parsers.wait()
    return bad


def _start_parsers(seconds: float, seed: int, folder: Path) -> subprocess.Popen[bytes]:
    path = [os.environ.get("PYTHONPATH", "")]
    try:
        path += python_path(default_cache())
    except NoGuideError as error:
        print(f"parsers: inputs at random, since there is no atheris: {error}", flush=True)
    with (folder / "parsers.log").open("wb") as log:
        return subprocess.Popen(
            [*_PARSERS, str(seconds), str(seed), str(folder)],
            cwd=REPOSITORY,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path))},
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def _watch_parsers(parsers: subprocess.Popen[bytes], seconds: float, folder: Path) -> bool:
    """Wait for the parsers' part, and say at once what it found; return whether it did."""
    try:
        code = parsers.wait(seconds + _GRACE)
    except subprocess.TimeoutExpired:
        print("parsers: an input takes for ever; see parsers.log", flush=True)
        return True
    if code:
        log = (folder / "parsers.log").read_text("utf-8", "replace")
        begin = max(0, log.find("=== Uncaught Python exception"))
        print(*log[begin:].splitlines()[:30], sep="\n")
    for path in _inputs_found(folder):
        print(f"parsers: found {path}; see it again: scripts/fuzz --replay {path}", flush=True)
    return code != 0


def _inputs_found(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*-*") if path.name.startswith(_INPUTS))


def _parsers_summary(folder: Path) -> str:
    """Return what the parsers' part did, in a line."""
    log = (folder / "parsers.log").read_text("utf-8", "replace")
    executions = sum(int(each) for each in _executions.findall(log))
    edges = _edges.findall(log)
    led = f"{int(edges[-1]):,} edges covered" if edges else "at random, no coverage"
    return f"parsers: {executions:,} executions, {led}, {len(_inputs_found(folder))} findings"


def _report(findings: Findings, folder: Path) -> bool:
    """Say what was done and found with the server; return whether something was."""
    for text in findings.found[:5]:
        print(f"live: {text[:500]}")
    if findings.found:
        path = folder / "live.json"
        print(f"live: all in {path}; see it again: scripts/fuzz --replay {path}")
        print(f"live: the server's log is {folder}/server.log")
    done = ", ".join(f"{count:,} {what}" for what, count in sorted(findings.counts.items()))
    print(f"live: {done}, {len(findings.found)} findings", flush=True)
    return bool(findings.found)
