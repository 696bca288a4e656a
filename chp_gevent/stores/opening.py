"""From ``--storage-backend`` to the store that it names."""

from __future__ import annotations

import logging
import os
from importlib import import_module

from chp_gevent.config.options import Options
from chp_gevent.config.privileges import without_secrets
from chp_gevent.config.storage_options import SharedStoreOptions, is_engine_url
from chp_gevent.stores.base import SharedStore, Store, StoreSetupError

_SQLITE = "sqlite:"


def load_store_class(dotted_path: str) -> type[Store]:
    """Import the class ``package.module.Class``.

    Raises:
        StoreSetupError: there is no such class, or it is no store.
    """
    module_name, _, class_name = dotted_path.rpartition(".")
    try:
        store_class = getattr(import_module(module_name), class_name)
    except Exception as error:
        raise StoreSetupError(
            f"--storage-backend: {dotted_path!r} can't be imported: {_reason(error)}"
        ) from error
    if not (isinstance(store_class, type) and issubclass(store_class, Store)):
        raise StoreSetupError(
            f"--storage-backend: {dotted_path!r} is not a subclass of "
            f"{Store.__module__.rpartition('.')[0]}.{Store.__name__}"
        )
    return store_class


def check_store(backend: str) -> None:
    """Check what can be known of ``--storage-backend`` while another process may have it open.

    Raises:
        StoreSetupError: there is no such class, or no such folder.
    """
    if is_engine_url(backend):
        return
    if not backend.startswith(_SQLITE):
        load_store_class(backend)
        return
    folder = os.path.dirname(backend.removeprefix(_SQLITE)) or "."
    if not os.access(folder, os.W_OK | os.X_OK):
        raise StoreSetupError(
            f"--storage-backend: {backend!r}: cannot write into the folder {folder!r}"
        )


def open_store(backend: str, options: Options) -> Store:
    """Make the server's store: that of ``sqlite:PATH``, or of the class ``package.module.Class``.

    Raises:
        StoreSetupError: there is no such class, or it can't be made.
    """
    if backend.startswith(_SQLITE):
        from chp_gevent.stores.sqlite import SqliteStore

        return SqliteStore(backend.removeprefix(_SQLITE))
    store_class = load_store_class(backend)
    try:
        return store_class(without_secrets(options))
    except Exception as error:
        raise StoreSetupError(f"--storage-backend: {backend!r}: {_reason(error)}") from error


def open_shared_store(
    options: SharedStoreOptions, words: memoryview[int], log: logging.Logger
) -> SharedStore:
    """Make the store of a table that servers share.

    Args:
        options: the store's.
        words: the header of the segment.
        log: the server's logger.
    """
    from chp_gevent.stores.redis.store import RedisStore

    return RedisStore(options, words, log)


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
