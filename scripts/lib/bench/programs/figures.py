"""What a client program prints of the work that it timed."""

from __future__ import annotations

import json
from collections.abc import Iterable


def print_figures(times: Iterable[float], spent: float, errors: list[str]) -> None:
    """Print one line of JSON: how much was done in which time, and how long a unit took.

    Args:
        times: seconds that each unit of work took, in any order.
        spent: seconds that all took together.
        errors: what went wrong.
    """
    times = sorted(times)
    figures = {
        "units": len(times),
        "seconds": spent,
        "p50_ms": times[len(times) // 2] * 1000 if times else None,
        "p99_ms": times[len(times) * 99 // 100] * 1000 if times else None,
        "errors": errors,
    }
    print(json.dumps(figures))
