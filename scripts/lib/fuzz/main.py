"""The command line of the fuzzer."""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from scripts.lib.fuzz import live

REPOSITORY = Path(__file__).resolve().parents[3]
_PARSERS = [sys.executable, "-m", "scripts.lib.fuzz.parsers"]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/fuzz")
    parser.add_argument("--seconds", type=float, default=3600.0, help="default 3600")
    parser.add_argument("--seed", type=int, help="for the same messages again; default random")
    parser.add_argument("--part", choices=("parsers", "live"), help="one of the two; default both")
    parser.add_argument("--findings", type=Path, metavar="DIR", help="where findings are written")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="give a parser's finding again")
    return parser.parse_args()


def main() -> int:
    """Fuzz and report; 0 when nothing was found."""
    arguments = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if arguments.replay is not None:
        command = [*_PARSERS, str(arguments.replay.resolve())]
        return subprocess.run(command, cwd=REPOSITORY, check=False).returncode
    seed = arguments.seed if arguments.seed is not None else random.randrange(1 << 31)
    folder = arguments.findings or Path(tempfile.mkdtemp(prefix="chp-fuzz-"))
    folder.mkdir(parents=True, exist_ok=True)
    print(f"fuzz: {arguments.seconds:g} s, seed {seed}, findings in {folder}", flush=True)
    parsers = None
    if arguments.part != "live":
        parsers = _start_parsers(arguments.seconds, seed, folder)
    bad = False
    try:
        if arguments.part != "parsers":
            bad = not _report(live.fuzz(arguments.seconds, seed, folder / "server.log"), folder)
        if parsers is not None:
            bad = _report_parsers(parsers, arguments.seconds, folder) or bad
    finally:
        if parsers is not None and parsers.poll() is None:
            parsers.kill()
            parsers.wait()
    print("FOUND something" if bad else "nothing found", flush=True)
    return 1 if bad else 0


def _start_parsers(seconds: float, seed: int, folder: Path) -> subprocess.Popen[bytes]:
    with (folder / "parsers.log").open("wb") as log:
        return subprocess.Popen(
            [*_PARSERS, str(seconds), str(seed), str(folder)],
            cwd=REPOSITORY,
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def _report_parsers(parsers: subprocess.Popen[bytes], seconds: float, folder: Path) -> bool:
    """Wait for the parsers' part and say what became of it; return whether it found something."""
    deadline = time.monotonic() + seconds + 120
    try:
        code = parsers.wait(max(1.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        print("parsers: an input takes for ever; see parsers.log")
        return True
    lines = (folder / "parsers.log").read_text("utf-8", "replace").splitlines()
    told = [line for line in lines if line.startswith(("parsers:", "stat::", "Done "))]
    told += [line for line in lines if " cov: " in line][-1:]
    print(*(f"parsers: {line.removeprefix('parsers: ')}" for line in told), sep="\n")
    for path in sorted(folder.glob("*-*")):
        if path.name.startswith(("crash-", "timeout-", "oom-", "leak-")):
            print(f"parsers: found {path}; see it again: scripts/fuzz --replay {path}")
    if code:
        print(*lines[-30:], sep="\n")
    return code != 0


def _report(findings: live.Findings, folder: Path) -> bool:
    """Say what was done and found with the server; return whether nothing was."""
    for what, count in sorted(findings.counts.items()):
        print(f"live: {count:,} {what}")
    if findings.found:
        path = folder / "live.txt"
        path.write_text("\n\n".join(findings.found) + "\n", "utf-8")
        print(*(f"live: {text[:500]}" for text in findings.found[:5]), sep="\n")
        print(f"live: {len(findings.found)} findings, all in {path}; log in {folder}/server.log")
    return not findings.found
