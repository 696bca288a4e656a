"""What happened in a run: each disturbance with its time, each failure, and who explains it."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass, field

# Seconds that a break-off needs from one process to another on a busy machine.
_TRAVEL = 0.25


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
    others: list[tuple[float, str]] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _failures: list[tuple[Attempt, float, str, bool]] = field(default_factory=list)

    def began(self, kind: str) -> None:
        """Count a request that is sent."""
        with self._lock:
            self.sent[kind] += 1

    def succeeded(self, kind: str) -> None:
        """Count a request that was answered as it should."""
        with self._lock:
            self.done[kind] += 1

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

    def disturb(self, what: str) -> None:
        """Note a disturbance that explains no failure."""
        self.others.append((time.monotonic(), what))
        self.disturbed[what] += 1

    def judge(self) -> None:
        """Find what explains each failure; call once, at the end."""
        for attempt, end, why, answered in self._failures:
            cause = None if answered else self._killed(attempt, end)
            cause = cause or self._outage(attempt, end)
            if cause is not None:
                self.explained[cause] += 1
                continue
            self.unexplained.append(
                f"{end - self.started:.2f} s: {attempt.kind} {attempt.what} to {attempt.target}"
                f" from port {attempt.port} after {end - attempt.begin:.3f} s"
                f" (connected for {end - attempt.connected:.3f} s): {why};"
                f" before that: {self._latest(end)}"
            )

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
