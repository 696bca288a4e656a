"""What happened in a run: each disturbance with its time, each failure, and who explains it."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

# Seconds that a break-off needs from one process to another on a busy machine.
_TRAVEL = 0.25
# Seconds that a request may take when nothing that was stopped or is gone holds it up. With one
# or two tenths on a calm machine it is much for a busy one; hostile traffic goes on for longer.
PATIENCE = 3.0
# Shorter waits are not looked at.
_LONG = 0.2
# What is left of a delay when it is over: those who waited are served, or a successor starts.
_CATCHING_UP = 1.0


@dataclass(frozen=True)
class Kill:
    """A process of the server was killed while it held connections from these client ports."""

    when: float
    what: str
    ports: frozenset[int]


@dataclass
class Outage:
    """A target that was gone, or broke its connections off, in this time."""

    target: str
    what: str
    begin: float
    end: float = float("inf")


@dataclass
class Delay:
    """Something that lets requests wait, and not fail."""

    what: str
    begin: float
    end: float = float("inf")


def not_held_up(begin: float, end: float, delays: Iterable[tuple[float, float]]) -> float:
    """Return for how many seconds from ``begin`` to ``end`` none of the delays went on."""
    left, position = 0.0, begin
    for start, stop in sorted(delays):
        if start > end:
            break
        left += max(0.0, start - position)
        position = max(position, stop)
    return left + max(0.0, end - position)


@dataclass(frozen=True)
class Attempt:
    """A request or tunnel. ``port`` is the client's, open since ``connected``."""

    kind: str
    what: str
    target: str
    port: int
    connected: float
    begin: float


@dataclass
class Record:
    """Collects from all threads; read it when they have ended."""

    sent: Counter[str] = field(default_factory=Counter)
    done: Counter[str] = field(default_factory=Counter)
    explained: Counter[str] = field(default_factory=Counter)
    disturbed: Counter[str] = field(default_factory=Counter)
    aborted: int = 0
    unexplained: list[str] = field(default_factory=list)
    wrong_target: list[str] = field(default_factory=list)
    stale: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    kills: list[Kill] = field(default_factory=list)
    outages: list[Outage] = field(default_factory=list)
    delays: list[Delay] = field(default_factory=list)
    others: list[tuple[float, str]] = field(default_factory=list)
    slow: list[str] = field(default_factory=list)
    not_kept: list[str] = field(default_factory=list)
    longest_wait: float = 0.0
    ended: float | None = None
    started: float = field(default_factory=time.monotonic)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _failures: list[tuple[Attempt, float, str, bool]] = field(default_factory=list)
    _waits: list[tuple[Attempt, float]] = field(default_factory=list)

    def began(self, kind: str) -> None:
        """Count a request that is sent."""
        with self._lock:
            self.sent[kind] += 1

    def succeeded(self, kind: str) -> None:
        """Count a request that was answered as it should."""
        with self._lock:
            self.done[kind] += 1

    def took(self, attempt: Attempt) -> None:
        """Note when a request was answered."""
        end = time.monotonic()
        with self._lock:
            if end - attempt.begin > _LONG:
                self._waits.append((attempt, end))

    def was_aborted(self) -> None:
        """Count a request that its client broke off on purpose."""
        with self._lock:
            self.aborted += 1

    def failed(self, attempt: Attempt, why: str, *, answered: bool = False) -> None:
        """Note a failure; ``answered``: the server answered 503, so no process of it died."""
        with self._lock:
            self._failures.append((attempt, time.monotonic(), why, answered))

    def wrong(self, kind: list[str], what: str) -> None:
        """Note one of what must never happen, e.g. in ``stale``."""
        with self._lock:
            kind.append(f"{time.monotonic() - self.started:.2f} s: {what}")

    def begin_outage(self, target: str, what: str) -> Outage:
        """Note that a target is about to go."""
        outage = Outage(target, what, time.monotonic())
        with self._lock:
            self.outages.append(outage)
        return outage

    @contextmanager
    def delay(self, what: str, *, doubled: bool = False) -> Iterator[None]:
        """Note that requests may wait; ``doubled``: for as long again after that."""
        delay = Delay(what, time.monotonic())
        with self._lock:
            self.delays.append(delay)
        try:
            yield
        finally:
            now = time.monotonic()
            delay.end = now + (now - delay.begin if doubled else 0.0)

    def disturb(self, what: str) -> None:
        """Note a disturbance that explains no failure."""
        self.others.append((time.monotonic(), what))
        self.disturbed[what] += 1

    def judge(self) -> None:
        """Find what explains each failure and each long wait; call once, at the end."""
        self._judge_waits()
        for attempt, end, why, answered in self._failures:
            cause = None if answered else self._killed(attempt, end)
            cause = cause or self._outage(attempt, end) or self._end_of_all(end)
            if cause is not None:
                self.explained[cause] += 1
                continue
            self.unexplained.append(
                f"{end - self.started:.2f} s: {attempt.kind} {attempt.what} to {attempt.target}"
                f" from port {attempt.port} after {end - attempt.begin:.3f} s"
                f" (connected for {end - attempt.connected:.3f} s): {why};"
                f" before that: {self._latest(end)}"
            )

    def _judge_waits(self) -> None:
        delays = [(delay.begin, delay.end) for delay in self.delays]
        delays += [(outage.begin, outage.end) for outage in self.outages]
        delays += [(kill.when, kill.when) for kill in self.kills]
        delays = [(begin, end + _CATCHING_UP) for begin, end in delays]
        for attempt, end in self._waits:
            waited = not_held_up(attempt.begin, end, delays)
            self.longest_wait = max(self.longest_wait, waited)
            if waited > PATIENCE:
                self.slow.append(
                    f"{end - self.started:.2f} s: {attempt.kind} {attempt.what[:80]} took"
                    f" {end - attempt.begin:.2f} s, {waited:.2f} of them for no reason;"
                    f" before that: {self._latest(end)}"
                )

    def _end_of_all(self, end: float) -> str | None:
        """It is a fault of its own, and makes hundreds of failures."""
        gone = self.ended is not None and end > self.ended - PATIENCE
        return "when the server had ended" if gone else None

    def _latest(self, end: float) -> str:
        """Return what was done to the server or its targets last."""
        done = [(kill.when, f"{kill.what} killed") for kill in self.kills if kill.when <= end]
        done += [(when, what) for when, what in self.others if when <= end]
        return ", ".join(f"{what} {end - when:.3f} s" for when, what in sorted(done)[-3:])

    def _killed(self, attempt: Attempt, end: float) -> str | None:
        for kill in self.kills:
            if attempt.port in kill.ports and attempt.connected <= kill.when <= end:
                return f"in flight on a killed {kill.what}"
        return None

    def _outage(self, attempt: Attempt, end: float) -> str | None:
        for outage in self.outages:
            overlaps = outage.begin <= end and attempt.begin <= outage.end + _TRAVEL
            if outage.target == attempt.target and overlaps:
                return outage.what
        return None
