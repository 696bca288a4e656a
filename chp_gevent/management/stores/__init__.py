"""Storage backends: where routes are kept besides the shared memory of the server."""

from __future__ import annotations

from chp_gevent.management.stores.base import RouteData, Store, StoreError, open_store

__all__ = ["RouteData", "Store", "StoreError", "open_store"]
