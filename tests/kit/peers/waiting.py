"""Waiting for a condition, with a deadline: what tests use in place of sleeping."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

POLL_INTERVAL = 0.005


def wait_until(
    condition: Callable[[], T | None], timeout: float, what: str | Callable[[], str]
) -> T:
    """Call ``condition`` until it returns something true, and return that.

    Raises AssertionError naming ``what`` (or what that returns, if it is a function) when
    ``timeout`` seconds have passed.
    """
    deadline = time.monotonic() + timeout
    while True:
        outcome = condition()
        if outcome:
            return outcome
        if time.monotonic() > deadline:
            named = what() if callable(what) else what
            raise AssertionError(f"not within {timeout:g} s: {named}")
        time.sleep(POLL_INTERVAL)
