"""What the arbiter's children run is loaded before it forks them.

A worker that replaces a dead one then runs the code that the server was started with, whatever
has become of the files since; and it serves after 20 ms instead of 120, since it has nothing to
load.
"""

from __future__ import annotations

import gc
import importlib
import pkgutil
from collections.abc import Collection

import chp_gevent
from chp_gevent.runtime.patching import patch_before_loading

# What gevent loads only when it patches a child, or first looks up a name there.
_LOADED_LATE = (
    "encodings.idna",
    "gevent.resolver.thread",
    "gevent.select",
    "gevent.signal",
    "gevent.subprocess",
    "gevent.threadpool",
    "gevent.time",
)

# What does something when it is imported, rather than define it.
_COMMANDS = ("chp_gevent.__main__", "chp_gevent.gunicorn_conf")

# The modules that need an extra.
_EXTRAS = {"acme": "chp_gevent.acme.", "redis": "chp_gevent.stores.redis."}


def load_code(extras: Collection[str]) -> None:
    """Load every module of the package, in the state of patching that the children need.

    ``extras`` are those whose modules are among them: ``acme``, ``redis``.
    """
    left_out = tuple(prefix for extra, prefix in _EXTRAS.items() if extra not in extras)
    patch_before_loading()
    for module in pkgutil.walk_packages(chp_gevent.__path__, f"{chp_gevent.__name__}."):
        if module.name not in _COMMANDS and not module.name.startswith(left_out):
            importlib.import_module(module.name)
    for name in _LOADED_LATE:
        importlib.import_module(name)
    _forget_event_loop()


def keep_shared() -> None:
    """Leave what exists now out of garbage collection: children would copy each page of it."""
    gc.collect()
    gc.freeze()


def _forget_event_loop() -> None:
    """End the event loop that a library made by opening a socket when it was loaded (urllib3).

    Each child makes its own.
    """
    from gevent import get_hub

    get_hub().destroy(destroy_loop=True)
