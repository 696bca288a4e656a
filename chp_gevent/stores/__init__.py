"""Storage backends: where routes are kept besides the shared memory of the server."""

from __future__ import annotations

from chp_gevent.stores.base import (
    RouteData,
    Store,
    StoreSetupError,
    load_store_class,
    open_store,
)

__all__ = ["RouteData", "Store", "StoreSetupError", "load_store_class", "open_store"]
