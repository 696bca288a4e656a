"""What has to hold after a soak, and the table of what was read after each slice.

*Memory* is what the server's processes have of their own: anonymous and shared memory, what is
swapped out included, as PSS, so that pages that several of them share count once. Left out are
pages of files (the code of Python and libraries): the kernel keeps them for every process of the
machine and takes them back when it likes, so that they move with what else runs there. They would
only make the percentage smaller. What the allocator keeps and does not give back counts as memory.

The *warm-up* is the first tenth of the slices: caches fill up. Memory is flat when the median of
the last slices, a fifth of all, is at most 5% above the median of as many slices right after the
warm-up. The journal of route changes is memory of the kernel's, in no process. It is compacted
when 8 MiB of it are garbage, into a second file, so that it goes up and down; it must not pass the
limit that follows from that.

At the end each process has the descriptors that it had after the warm-up, of each kind as many.
All answers are right, and no process has ended or begun since the start.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from scripts.lib.soak.reading import MB, Reading

TOLERANCE = 0.05
WARM_UP_SHARE = 0.1
WINDOW_SHARE = 0.2
# Two files of 8 MiB garbage with the table, of less than 2 MB here.
JOURNAL_LIMIT = 20 * MB
SHOWN = 20


@dataclass(frozen=True)
class Row:
    """What has been done until the end of a slice, and what the processes have then."""

    requests: int
    tunnels: int
    changes: int
    reading: Reading


@dataclass
class Run:
    """Everything that was seen.

    Attributes:
        rows: one for each slice.
        before: the reading before the first slice.
        wrong: answers that are not what they have to be, and other things that went wrong.
    """

    before: Reading
    rows: list[Row] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


def warm_up(count: int) -> int:
    """How many of ``count`` slices are the warm-up."""
    return max(1, round(count * WARM_UP_SHARE))


def windows(count: int) -> tuple[range, range]:
    """The slices that are compared: those behind the warm-up and the last ones."""
    length = max(1, round(count * WINDOW_SHARE))
    start = warm_up(count)
    if count < start + 2 * length:
        raise ValueError(f"{count} slices are too few")
    return range(start, start + length), range(count - length, count)


def _figure(role: str, name: str) -> Callable[[Reading], float]:
    """An attribute of a process's reading, as a function of the whole reading."""
    return lambda reading: float(getattr(reading.processes[role], name))


def growth(rows: Sequence[Row], figure: Callable[[Reading], float]) -> tuple[float, float]:
    """A figure's median after the warm-up and at the end."""
    early, late = (
        statistics.median(figure(rows[number].reading) for number in window)
        for window in windows(len(rows))
    )
    return early, late


def failures(run: Run) -> list[str]:
    """What does not hold, in words."""
    rows, found = run.rows, []
    early, late = growth(rows, lambda reading: reading.memory)
    if late > early * (1 + TOLERANCE):
        found.append(f"memory grew by {late / early - 1:.1%}:")
        found += _what_grew(rows)
    journal = max(row.reading.journal for row in rows)
    if journal > JOURNAL_LIMIT:
        found.append(f"the journal had {journal / MB:.1f} MB")
    last, warm = rows[-1].reading, rows[warm_up(len(rows)) - 1].reading
    for role, process in last.processes.items():
        now, before = process.descriptors, warm.processes[role].descriptors
        if now != before:
            found.append(
                f"{role}: descriptors {dict(now - before)} more, {dict(before - now)} less"
            )
    return found + run.wrong[:SHOWN]


def _what_grew(rows: Sequence[Row]) -> list[str]:
    lines = []
    for role in rows[-1].reading.processes:
        kinds = {
            "heap": growth(rows, _figure(role, "heap")),
            "mappings": growth(rows, _figure(role, "other")),
        }
        words = (
            f"{kind} {early / MB:.2f} -> {late / MB:.2f}" for kind, (early, late) in kinds.items()
        )
        lines.append(f"  {role}, MB: {', '.join(words)}")
    return lines


# -- the table


def table(run: Run) -> list[str]:
    """Markdown: a line for each slice."""
    roles = list(run.before.processes)
    head = ["", "requests", "tunnels", "changes", *(f"{role}, MB" for role in roles)]
    head += ["total, MB", "journal, MB", "descriptors", "threads"]
    lines = ["| " + " | ".join(head) + " |", "| --- |" + " ---: |" * (len(head) - 1)]
    lines.append(line("before", Row(0, 0, 0, run.before)))
    numbers = range(1, len(run.rows) + 1)
    lines += [line(str(number), row) for number, row in zip(numbers, run.rows, strict=True)]
    return lines


def line(name: str, row: Row) -> str:
    """A line of the table."""
    reading = row.reading
    each = reading.processes.values()
    cells = [name, f"{row.requests:,}", f"{row.tunnels:,}", f"{row.changes:,}"]
    cells += [f"{process.memory / MB:.2f}" for process in each]
    cells += [f"{reading.memory / MB:.2f}", f"{reading.journal / MB:.1f}"]
    cells.append(" + ".join(str(process.descriptors.total()) for process in each))
    cells.append(" + ".join(str(process.threads) for process in each))
    return "| " + " | ".join(cells) + " |"


def summary(run: Run) -> list[str]:
    """The medians that are compared, a line for each process and one for all."""
    early, late = windows(len(run.rows))
    lines = [
        f"Median memory after slices {early[0] + 1}-{early[-1] + 1} "
        f"and {late[0] + 1}-{late[-1] + 1}:",
        "",
        "| | MB | MB | change |",
        "| --- | ---: | ---: | ---: |",
    ]
    figures: dict[str, Callable[[Reading], float]] = {
        role: _figure(role, "memory") for role in run.before.processes
    }
    figures["all processes"] = lambda reading: reading.memory
    figures["all processes, pages of files included"] = lambda reading: reading.pss
    for name, figure in figures.items():
        first, last = growth(run.rows, figure)
        lines.append(
            f"| {name} | {first / MB:.2f} | {last / MB:.2f} | {100 * (last / first - 1):+.1f}% |"
        )
    return lines
