"""Runs the cases over the contenders, interleaved, and keeps going when one fails."""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from scripts.lib.bench.definitions import Case, Measurement, Surroundings, Timing
from scripts.lib.bench.processes import deadline
from scripts.lib.bench.proxies import Contender
from scripts.lib.bench.targets import started_targets
from scripts.lib.bench.toolbox import Toolbox


@dataclass
class Results:
    """Everything that was measured.

    Attributes:
        measured: by row and contender, one entry a round.
        failed: by case and contender, why it has no figures.
        seconds: time of the whole run.
    """

    measured: dict[tuple[str, str], list[Measurement]] = field(default_factory=dict)
    failed: dict[tuple[str, str], str] = field(default_factory=dict)
    seconds: float = 0.0

    def value(self, row: str, contender: str, figure: str) -> float | None:
        """The median over the rounds of one figure (an attribute of Measurement)."""
        values = self.values(row, contender, figure)
        return statistics.median(values) if values else None

    def values(self, row: str, contender: str, figure: str) -> list[float]:
        """One figure of every round."""
        found = (getattr(entry, figure) for entry in self.measured.get((row, contender), ()))
        return [value for value in found if value is not None]


def run_all(
    cases: list[Case], contenders: list[Contender], rounds: int, timing: Timing, tools: Toolbox
) -> Results:
    """Every case, ``rounds`` times, the contenders in turn (and in turning order)."""
    results = Results()
    began = time.monotonic()
    for number in range(rounds):
        for case in cases:
            shift = number % len(contenders)
            for contender in contenders[shift:] + contenders[:shift]:
                key = (case.name, contender.name)
                if case.suits(contender) and key not in results.failed:
                    _run_one(case, contender, f"{number + 1}/{rounds}", timing, tools, results)
    results.seconds = time.monotonic() - began
    return results


def _run_one(
    case: Case, contender: Contender, label: str, timing: Timing, tools: Toolbox, results: Results
) -> None:
    """One case of one contender with targets of its own; a failure is noted, not raised."""
    try:
        with (
            tempfile.TemporaryDirectory(prefix="chp-bench-") as name,
            deadline(case.seconds, case.name),
            started_targets(tools, Path(name)) as targets,
        ):
            around = Surroundings(tools, targets, Path(name), timing)
            for done in case.run(around, contender):
                results.measured.setdefault((done.row, contender.name), []).append(done)
                _progress(f"round {label}  {contender.name:8} {_in_words(done)}")
    except Exception as error:  # whatever breaks one contender must not end the run
        reason = str(error) or type(error).__name__
        results.failed[case.name, contender.name] = reason
        _progress(f"round {label}  {contender.name:8} {case.name} FAILED: {reason}")


def _in_words(done: Measurement) -> str:
    parts = [f"{done.row:18}"]
    if done.cpu_us is not None:
        parts.append(f"{done.cpu_us:10,.1f} µs CPU")
    if done.per_second is not None:
        parts.append(f"{done.per_second:9,.0f}/s")
    if done.p50_ms is not None and done.p99_ms is not None:
        parts.append(f"p50 {done.p50_ms:.2f} p99 {done.p99_ms:.2f} ms")
    if done.memory is not None:
        parts.append(f"memory {done.memory / 1024:,.1f} KiB")
    parts.extend(f"{name}: {value}" for name, value in done.extra.items())
    return "  ".join(filter(None, [*parts, done.broke, done.note]))


def _progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
