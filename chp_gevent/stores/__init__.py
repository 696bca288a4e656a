"""Storage backends: where routes are kept besides the shared memory of the server."""

from __future__ import annotations

from chp_gevent.stores.base import (
    Figure,
    RouteData,
    SharedStore,
    SharedTable,
    Store,
    StoreSetupError,
    StoreUnavailable,
    TableFull,
)
from chp_gevent.stores.opening import check_store, open_shared_store, open_store

__all__ = [
    "Figure",
    "RouteData",
    "SharedStore",
    "SharedTable",
    "Store",
    "StoreSetupError",
    "StoreUnavailable",
    "TableFull",
    "check_store",
    "open_shared_store",
    "open_store",
]
