"""What is counted: the management process's own row, and the sums over all rows.

The management process counts in the last row of the segment, so its counters outlive it as
those of workers do.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Final

from chp_gevent.shared.segment import (
    ACTIVITY_COUNT,
    ACTIVITY_NS,
    FIND_TARGET_COUNT,
    FIND_TARGET_NS,
    PID,
    REQUESTS_WEB,
    REQUESTS_WS,
    STARTS,
    STATUS,
    STATUS_CODES,
    Segment,
    reset_gauges,
)

# Words that only the management process's row has. In that row, ``STATUS + code`` counts the API's
# own answers, and there are none with a status of one digit.
API_ROUTE_GET: Final = STATUS + 1
API_ROUTE_ADD: Final = STATUS + 2
API_ROUTE_DELETE: Final = STATUS + 3


def management_row(segment: Segment) -> memoryview[int]:
    """Return the row of the management process: the last one. Workers have those before."""
    return segment.row(segment.rows - 1)


def take_management_row(segment: Segment) -> memoryview[int]:
    """Return the same, after noting that a management process has started."""
    row = management_row(segment)
    row[STARTS] += 1
    row[PID] = os.getpid()
    reset_gauges(row)
    return row


def worker_rows(segment: Segment) -> list[tuple[int, memoryview[int]]]:
    """Return number and row of each worker that ever started."""
    rows = ((number, segment.row(number)) for number in range(segment.rows - 1))
    return [(number, row) for number, row in rows if row[STARTS]]


def statuses(row: memoryview[int]) -> dict[int, int]:
    """Return how many answers of each status a row has, those without any left out."""
    counts = row[STATUS : STATUS + len(STATUS_CODES)].tolist()
    return {status: count for status, count in enumerate(counts) if count and status > 99}


@dataclass
class Totals:
    """The counters that CHP has, over all workers and the API. Durations are in nanoseconds."""

    requests_web: int = 0
    requests_ws: int = 0
    requests_proxy: dict[int, int] = field(default_factory=dict)
    requests_api: dict[int, int] = field(default_factory=dict)
    api_route_get: int = 0
    api_route_add: int = 0
    api_route_delete: int = 0
    find_target_ns: int = 0
    find_target_count: int = 0
    activity_ns: int = 0
    activity_count: int = 0


def read_totals(segment: Segment) -> Totals:
    """Add up what has been counted since the server started."""
    own = management_row(segment)
    totals = Totals(
        requests_api=statuses(own),
        api_route_get=own[API_ROUTE_GET],
        api_route_add=own[API_ROUTE_ADD],
        api_route_delete=own[API_ROUTE_DELETE],
    )
    for _, row in worker_rows(segment):
        totals.requests_web += row[REQUESTS_WEB]
        totals.requests_ws += row[REQUESTS_WS]
        totals.find_target_ns += row[FIND_TARGET_NS]
        totals.find_target_count += row[FIND_TARGET_COUNT]
        totals.activity_ns += row[ACTIVITY_NS]
        totals.activity_count += row[ACTIVITY_COUNT]
        for status, count in statuses(row).items():
            totals.requests_proxy[status] = totals.requests_proxy.get(status, 0) + count
    return totals
