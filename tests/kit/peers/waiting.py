"""Waiting for a condition, with a deadline: what tests use in place of sleeping."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

# Seconds between two looks: at first, and at the most. Whoever waits for long looks seldom: other
# tests need the processor.
POLL_INTERVAL = 0.005
_LONGEST_INTERVAL = 0.05
_SHARE = 0.05  # of the time waited so far


def wait_until(
    condition: Callable[[], T | None], timeout: float, what: str | Callable[[], str]
) -> T:
    """Call ``condition`` until it returns something true, and return that.

    Raises AssertionError naming ``what`` (or what that returns, if it is a function) when
    ``timeout`` seconds have passed.
    """
    begin = time.monotonic()
    while True:
        outcome = condition()
        if outcome:
            return outcome
        waited = time.monotonic() - begin
        if waited > timeout:
            named = what() if callable(what) else what
            raise AssertionError(f"not within {timeout:g} s: {named}")
        time.sleep(min(_LONGEST_INTERVAL, max(POLL_INTERVAL, waited * _SHARE)))
