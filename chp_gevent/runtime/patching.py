"""gevent's monkey patching, in two steps: before the forks, and in each child.

The arbiter loads what its children run, so that a child needs nothing from the disk any more:
``pip install -U`` under a running server changes nothing for it. What is loaded must find the
modules patched that it takes names from. The arbiter itself goes on with the system's own calls:
it has no event loop.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from importlib import metadata
from typing import Any

_plugins: Any = None


def patch_before_loading() -> None:
    """Patch, in the arbiter, the modules that others take classes and functions from."""
    from gevent import monkey

    with plugins_read_once():
        monkey.patch_all(os=False, time=False, select=False, signal=False, subprocess=False)


def patch_child() -> None:
    """Patch, in a child, what the arbiter needs as it is: how it waits, forks and reaps."""
    from gevent import monkey

    with plugins_read_once():
        monkey.patch_time()
        monkey.patch_select()
        monkey.patch_os()
        monkey.patch_subprocess()
        monkey.patch_signal()


@contextlib.contextmanager
def plugins_read_once() -> Iterator[None]:
    """Have gevent find its plugins with one look at what is installed, the arbiter's.

    Of its own it looks 35 times, at the metadata of every package: with 130 packages that takes
    60 ms of a start, and 15 of each fork.
    """
    global _plugins
    if _plugins is None:
        _plugins = metadata.entry_points()
    look = metadata.entry_points
    metadata.entry_points = _plugins.select
    try:
        yield
    finally:
        metadata.entry_points = look
