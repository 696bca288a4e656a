"""gevent's monkey patching, which every process but the arbiter begins with."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from importlib import metadata
from typing import Any


@contextlib.contextmanager
def plugins_read_once() -> Iterator[None]:
    """Have ``gevent.monkey.patch_all`` find its plugins with one look at what is installed.

    Of its own it looks 25 times, at the metadata of every package: with 130 packages that is
    60 of the 150 ms in which the management process is replaced.
    """
    everything: Any = metadata.entry_points()
    look = metadata.entry_points
    metadata.entry_points = everything.select
    try:
        yield
    finally:
        metadata.entry_points = look
