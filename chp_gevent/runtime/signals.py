"""Signals around a fork: those that stop, and the death of the parent.

A child inherits the arbiter's handlers, which only put the signal into the arbiter's queue.
Until it has its own, a stop signal would be lost on it, and the server would wait for it to
the end of the drain timeout.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager

_PR_SET_PDEATHSIG = 1

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)


@contextmanager
def held_signals(numbers: Iterable[int]) -> Iterator[None]:
    """Hold signals back until the end of the block; what it executes finds them held back."""
    held = tuple(numbers)
    signal.pthread_sigmask(signal.SIG_BLOCK, held)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, held)


def held_stop_signals() -> AbstractContextManager[None]:
    """Hold stop signals back; in the parent, until the end of the block."""
    return held_signals(STOP_SIGNALS)


def stop_by_default() -> None:
    """Let stop signals end this child, from now on and those held back, until it handles them."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)


def ignore_stop_signals() -> None:
    """Ignore stop signals from now on: this process is leaving already."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent, with this pid, dies (Linux).

    A child that runs would notice by itself within a second; one that is stopped would not.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
