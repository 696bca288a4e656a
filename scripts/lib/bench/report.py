"""docs/benchmarks.md: tables of the medians, the machine, the versions, the commands."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from scripts.lib.bench.budget import BUDGET, BUDGET_MS, BUDGET_TAIL, BUDGET_WITHIN
from scripts.lib.bench.definitions import BESIDE, FULL_LOAD, RESTARTS, Case, Row
from scripts.lib.bench.proxies import Contender
from scripts.lib.bench.restarts import KILLS
from scripts.lib.bench.runner import Results

BEGIN = "<!-- bench:begin (written by scripts/bench; edit outside of these marks) -->"
END = "<!-- bench:end -->"
MISSING = "–"
PROSE_AROUND = "# Benchmarks\n\n{begin}\n{end}\n"


@dataclass(frozen=True)
class Run:
    """One run of the benchmark, with what a reader needs to judge and repeat it."""

    cases: Sequence[Case]
    contenders: Sequence[Contender]
    results: Results
    rounds: int
    command: str
    machine: dict[str, str]
    versions: dict[str, str]

    @property
    def rows(self) -> list[Row]:
        """The rows of all cases, in order."""
        return [row for case in self.cases for row in case.rows]


def number(value: float) -> str:
    """Three significant figures, with thousands separated."""
    if math.isinf(value):
        return "∞"
    if value >= 100:
        digits = max(0, len(str(int(value))) - 3)
        return f"{round(value, -digits):,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def render(run: Run) -> str:
    """Everything between the marks."""
    return "\n".join(
        [
            *_preamble(run),
            *_cpu(run),
            *_ratios(run),
            *_ratios_within(run),
            *_throughput(run),
            *_latency(run),
            *_beside(run),
            *_restarts(run),
            *_milliseconds_allowed(run),
            *_memory(run),
            *_remarks(run),
            *_failures(run),
        ]
    )


def write(run: Run, folder: Path) -> Path:
    """Replace the measured part of ``benchmarks.md`` in a folder; keep the prose around it."""
    page = folder / "benchmarks.md"
    text = page.read_text("utf-8") if page.exists() else ""
    if BEGIN not in text or END not in text:
        text += PROSE_AROUND.format(begin=BEGIN, end=END)
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    page.write_text(f"{before}{BEGIN}\n\n{render(run)}\n\n{END}{after}", "utf-8")
    return page


def _preamble(run: Run) -> list[str]:
    day = time.strftime("%Y-%m-%d")
    minutes = run.results.seconds / 60
    times = f"{run.rounds} round{'s' * (run.rounds != 1)}"
    lines = [
        f"Measured on {day} with `{run.command}`: {times}, the contenders in turn within each "
        f"case, medians shown; {minutes:.0f} minutes.",
        "",
        "![CPU time per unit of work](benchmarks.svg)",
        "",
        "| | |",
        "| --- | --- |",
    ]
    lines += [f"| {name} | {text} |" for name, text in {**run.machine, **run.versions}.items()]
    return [*lines, ""]


def _table(
    run: Run,
    heading: str,
    cell: Callable[[Row, str], str],
    note: str = "",
    rows: Sequence[Row] | None = None,
) -> list[str]:
    """A section with a line for each row (of all, if none are given) that has a figure."""
    names = [contender.name for contender in run.contenders]
    titles = " | ".join(contender.title for contender in run.contenders)
    lines = []
    for row in run.rows if rows is None else rows:
        cells = [cell(row, name) for name in names]
        if any(text != MISSING for text in cells):
            lines.append(f"| {row.title} | {' | '.join(cells)} |")
    if not lines:
        return []
    head = [f"## {heading}", "", *([note, ""] if note else [])]
    return [*head, f"| | {titles} |", f"| --- |{' ---: |' * len(names)}", *lines, ""]


def _cpu(run: Run) -> list[str]:
    def cell(row: Row, name: str) -> str:
        values = sorted(run.results.values(row.key, name, "cpu_us"))
        middle = run.results.value(row.key, name, "cpu_us")
        if middle is None:
            return MISSING
        spread = f" ({number(values[0])}-{number(values[-1])})" if len(values) > 1 else ""
        return f"**{number(middle)}**{spread}"

    note = (
        "Microseconds of CPU, user and system, of the proxy's whole process tree for one unit of "
        "work (request, upload, message, API call); in parentheses the lowest and highest round."
    )
    return _table(run, "CPU per unit of work", cell, note)


def _ratios(run: Run) -> list[str]:
    ours = "ours"
    if ours not in [contender.name for contender in run.contenders]:
        return []

    def cell(row: Row, name: str) -> str:
        figure = "memory" if row.key == "idle" else "cpu_us"
        mine = run.results.value(row.key, ours, figure)
        theirs = run.results.value(row.key, name, figure)
        if name == ours or not mine or not theirs:
            return MISSING
        return _beside_budget(mine / theirs, BUDGET.get(row.key, {}).get(name))

    note = (
        "Ours divided by theirs (below 1: ours needs less); CPU, and memory for the idle tunnels. "
        "In parentheses our budget, **bold** where it is passed."
    )
    return _table(run, "Ratios", cell, note)


def _beside_budget(ratio: float, allowed: float | None) -> str:
    if allowed is None:
        return f"{ratio:.2f}"
    return f"{ratio:.2f} (≤ {allowed})" if ratio <= allowed else f"**{ratio:.2f} (> {allowed})**"


def _ratios_within(run: Run) -> list[str]:
    titles = {row.key: row.title for row in run.rows}
    rows = [
        Row(f"{of} {beside}", f"{titles[of]}, beside {titles[beside]}", "")
        for of, beside in BUDGET_WITHIN
        if of in titles and beside in titles
    ]

    def cell(row: Row, name: str) -> str:
        of, beside = row.key.split()
        pairs = zip(
            run.results.values(of, name, "cpu_us"),
            run.results.values(beside, name, "cpu_us"),
            strict=False,  # a contender may have only one of them
        )
        ratios = sorted(mine / other for mine, other in pairs if other)
        if not ratios:
            return MISSING
        allowed = BUDGET_WITHIN[of, beside] if name == "ours" else None
        text = _beside_budget(statistics.median(ratios), allowed)
        return text + (f" {ratios[0]:.2f}-{ratios[-1]:.2f}" if len(ratios) > 1 else "")

    note = (
        "CPU of one row divided by that of another one of the same contender in the same round: "
        "the median, with our budget, and the lowest and highest round."
    )
    return _table(run, "What a large table and a store cost", cell, note, rows)


def _throughput(run: Run) -> list[str]:
    def cell(row: Row, name: str) -> str:
        value = run.results.value(row.key, name, "per_second")
        return MISSING if value is None else number(value)

    note = (
        "Units a second with the load generator and the target on the same cores: good for a "
        "comparison within this table, not for more."
    )
    return _table(run, "Throughput", cell, note)


def _latency(run: Run) -> list[str]:
    def cell(row: Row, name: str) -> str:
        middle = run.results.value(row.key, name, "p50_ms")
        high = run.results.value(row.key, name, "p99_ms")
        if middle is None or high is None:
            return MISSING
        return f"{number(middle)} / {number(high)}"

    note = "Milliseconds at full load, p50 / p99, waiting in line included."
    return _table(run, "Latency", cell, note, _rows_of(run, FULL_LOAD))


def _rows_of(run: Run, latency: str) -> list[Row]:
    return [row for row in run.rows if row.latency == latency]


def _beside(run: Run) -> list[str]:
    def cell(row: Row, name: str) -> str:
        middle = run.results.value(row.key, name, "p50_ms")
        high = run.results.value(row.key, name, "p99_ms")
        if middle is None or high is None:
            return MISSING
        return f"{number(middle)} / {number(high)}{' **breaks**' * _broke(run, row, name)}"

    note = (
        "Milliseconds until a small request is answered, p50 / p99 of 50 a second, sent on "
        "schedule and counted from it, while one worker does other work. **breaks**: requests "
        "failed, or the other traffic was broken off; how, is in the details below (∞: so many "
        "failed)."
    )
    return _table(run, "Latency beside other traffic", cell, note, _rows_of(run, BESIDE))


def _broke(run: Run, row: Row, name: str) -> bool:
    """Whether something did not hold, in any round."""
    return any(entry.broke for entry in run.results.measured.get((row.key, name), ()))


def _restarts(run: Run) -> list[str]:
    def cell(row: Row, name: str) -> str:
        values = sorted(run.results.values(row.key, name, "p50_ms"))
        if not values:
            return MISSING
        spread = f" ({values[0]:.0f}-{values[-1]:.0f})" if len(values) > 1 else ""
        return f"**{statistics.median(values):.0f}**{spread}"

    note = (
        "Milliseconds from SIGKILL until a request on a new connection is answered: in each round "
        f"the median of {KILLS} kills; the lowest and highest round in parentheses."
    )
    return _table(run, "Restarts", cell, note, _rows_of(run, RESTARTS))


def _milliseconds_allowed(run: Run) -> list[str]:
    """What of the latencies and restarts has a budget, and whether it was kept."""
    titles = {contender.name: contender.title for contender in run.contenders}
    lines = []
    for row in run.rows:
        figure, bounds = "p99_ms", []
        if row.key in BUDGET_MS:
            figure, most = BUDGET_MS[row.key]
            bounds.append((most, f"{number(most)}"))
        for name, factor in BUDGET_TAIL.get(row.key, {}).items():
            theirs = run.results.value(row.key, name, "p99_ms")
            if theirs is not None:
                words = f"{factor} × {titles[name]}'s {number(theirs)} = {number(factor * theirs)}"
                bounds.append((factor * theirs, words))
        mine = run.results.value(row.key, "ours", figure)
        if mine is None:
            continue
        for most, words in bounds:
            kept = mine <= most and not _broke(run, row, "ours")
            what = "median" if figure == "p50_ms" else "p99"
            verdict = "kept" if kept else "**over**"
            lines.append(f"| {row.title}, {what} | {number(mine)} | {words} | {verdict} |")
    if not lines:
        return []
    head = ["## Milliseconds allowed", "", "| | ours | at most | |", "| --- | ---: | ---: | --- |"]
    return [*head, *lines, ""]


def _memory(run: Run) -> list[str]:
    def cell(row: Row, name: str) -> str:
        value = run.results.value(row.key, name, "memory")
        if value is None:
            return MISSING
        return (
            f"{number(value / 1024)} KiB each" if row.key == "idle" else f"{value / 2**20:.0f} MB"
        )

    note = (
        "Resident memory of the whole process tree after the work (PSS: pages shared within the "
        "tree count once); for idle tunnels the growth divided by their number. Memory that the "
        "kernel keeps for sockets is in none of these."
    )
    return _table(run, "Memory", cell, note)


def _remarks(run: Run) -> list[str]:
    """The further figures of single rows, of each round."""
    lines = []
    for row in run.rows:
        for contender in run.contenders:
            entries = run.results.measured.get((row.key, contender.name), [])
            if not entries:
                continue
            words = [
                f"{name} {', '.join(entry.extra[name] for entry in entries if name in entry.extra)}"
                for name in entries[-1].extra
            ]
            words += [entries[-1].note] if entries[-1].note else []
            words += [f"breaks: {entry.broke}" for entry in entries if entry.broke]
            if words:
                lines.append(f"- {row.title}, {contender.title}: {'; '.join(words)}.")
    return ["## Details", "", *lines, ""] if lines else []


def _failures(run: Run) -> list[str]:
    if not run.results.failed:
        return []
    titles = {contender.name: contender.title for contender in run.contenders}
    lines = [
        f"- {titles[name]}, case `{case}`: {reason}"
        for (case, name), reason in run.results.failed.items()
    ]
    return ["## Not measured", "", *lines, ""]
