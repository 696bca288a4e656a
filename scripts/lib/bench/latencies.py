"""Latencies of single requests, those included that were never answered: pure arithmetic."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Latencies:
    """What became of the requests of one measurement.

    Attributes:
        milliseconds: of those that were answered, in any order.
        failed: how many were not, by the reason.
        late_ms: 99th percentile of how late they were sent; that much of a latency is the
            client's own.
    """

    milliseconds: Sequence[float]
    failed: Mapping[str, int] = field(default_factory=dict)
    late_ms: float = 0.0

    @property
    def total(self) -> int:
        """All requests."""
        return len(self.milliseconds) + sum(self.failed.values())

    def percentile(self, share: int) -> float:
        """Milliseconds within which ``share`` percent were answered; infinite if fewer were."""
        position = self.total * share // 100
        answered = sorted(self.milliseconds)
        return answered[position] if position < len(answered) else math.inf

    def failures(self) -> str:
        """The failed ones in words, or nothing."""
        if not self.failed:
            return ""
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(self.failed.items()))
        return f"{sum(self.failed.values())} of {self.total} requests failed ({reasons})"
