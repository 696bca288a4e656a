"""Storage backends: where routes are kept besides the shared memory of the server."""

from __future__ import annotations

from chp_gevent.stores.base import RouteData, Store, StoreSetupError
from chp_gevent.stores.opening import check_store, open_store

__all__ = ["RouteData", "Store", "StoreSetupError", "check_store", "open_store"]
