"""What metrics say of the shared table."""

from __future__ import annotations

from collections.abc import Iterator

from chp_gevent.stores.base import Figure
from chp_gevent.stores.redis.replica import Replica


def figures(replica: Replica) -> Iterator[Figure]:
    """Yield them."""
    counts, position = replica.counts, replica.position
    behind = max(0, replica.seen - position.change)
    gauges = {
        "current": ("Whether the table has all that was confirmed", replica.is_current),
        "connected": ("Whether the server is connected to Redis", replica.session is not None),
        "replicas": ("Servers that share the table, at the last look", replica.servers),
        "change": ("Number of the last change that the table has", position.change),
        "epoch": ("Number of the epoch of that change", position.epoch_number),
        "behind": ("Changes that it lacked at the last look", behind),
        "clock_offset_seconds": ("By how much the clock of Redis is ahead", replica.clock_offset),
    }
    for name, (text, value) in gauges.items():
        yield Figure(f"chp_store_{name}", text, float(value))
    for outcome in ("confirmed", "absent", "failed", "unknown"):
        yield Figure(
            "chp_store_changes",
            "Changes of the shared table that were made here, by what became of them",
            getattr(counts, outcome),
            is_counter=True,
            label=("outcome", outcome),
        )
    for reason in ("start", "gap", "epoch"):
        yield Figure(
            "chp_store_loads",
            "Times that the table was loaded, by why",
            getattr(counts, f"loads_{reason}"),
            is_counter=True,
            label=("reason", reason),
        )
    counters = {
        "confirm_seconds": ("Seconds that confirmed changes took together", counts.confirm_seconds),
        "waited_for_lease": ("Servers that were gone on without", counts.waited_for_lease),
        "elections": ("Losses of Redis that were repaired", counts.elections),
        "uploads": ("Times that this server has provided its table", counts.uploads),
        "sessions": ("Times that it has connected to Redis", counts.sessions),
        "activity_pushed": ("Routes whose activity was told", counts.activity_pushed),
    }
    for name, (text, value) in counters.items():
        yield Figure(f"chp_store_{name}", text, float(value), is_counter=True)
