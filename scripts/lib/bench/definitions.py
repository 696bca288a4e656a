"""What a case is, and what a measurement of it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from scripts.lib.bench.proxies import Contender
from scripts.lib.bench.targets import Targets
from scripts.lib.bench.toolbox import Toolbox


@dataclass(frozen=True)
class Timing:
    """How long things are measured; seconds and counts.

    Attributes:
        warm_up: CPU time that a proxy spends before a measurement begins.
        measure: length of a measurement.
        settle: quiet before memory is read.
        tunnels: idle WebSockets that are opened.
        tables: sizes of the routing table.
        api_calls: adds and deletes that are timed at each size.
        steady: length of a measurement of requests on a schedule: of 500, the 99th percentile
            leaves five out, not a single odd one.
    """

    warm_up: float = 1.5
    measure: float = 4.0
    settle: float = 3.0
    tunnels: int = 5000
    tables: tuple[int, ...] = (1_000, 10_000, 100_000)
    api_calls: int = 2000
    steady: float = 10.0

    @property
    def big_table(self) -> int:
        """Routes in the big table."""
        return self.tables[-1]


QUICK = Timing(0.5, 1.5, 1.5, 1000, (1_000, 10_000), 500, 4.0)


@dataclass(frozen=True)
class Surroundings:
    """What every case needs: the tools, the targets, a folder, the timing."""

    tools: Toolbox
    targets: Targets
    folder: Path
    timing: Timing


@dataclass(frozen=True)
class Measurement:
    """One row of one contender in one round.

    Attributes:
        row: identity of the row.
        cpu_us: microseconds of CPU of the whole process tree for a unit, or None.
        memory: bytes: of the whole tree after the work, or for one unit (idle tunnels).
        p50_ms, p99_ms: latency; infinite where fewer units than that were done.
        broke: what did not hold, in words: units that failed, a proxy that ended.
        extra: further figures by name, already in words.
    """

    row: str
    cpu_us: float | None = None
    per_second: float | None = None
    p50_ms: float | None = None
    p99_ms: float | None = None
    memory: float | None = None
    note: str = ""
    broke: str = ""
    extra: dict[str, str] = field(default_factory=dict)


# Where the latency of a row stands in the report: what it means depends on how it was loaded.
FULL_LOAD = "full load"
BESIDE = "beside"
RESTARTS = "restarts"


@dataclass(frozen=True)
class Row:
    """A line of the report: its identity, its title, what its unit is, what its latency is."""

    key: str
    title: str
    unit: str
    latency: str = FULL_LOAD


@dataclass(frozen=True)
class Case:
    """A case by the name that ``--cases`` takes.

    Attributes:
        seconds: bound for one contender.
        rows: the rows that it yields, for the default timing.
        suits: whether a contender can take part.
    """

    name: str
    rows: tuple[Row, ...]
    run: Callable[[Surroundings, Contender], Iterator[Measurement]]
    suits: Callable[[Contender], bool] = lambda contender: True
    seconds: float = 120.0
