"""Routes in an SQLite file, for one server: ``--storage-backend sqlite:PATH``.

The API answers a change when it is on the disk, whatever happens to the machine then. One thread
has the only connection, so that a disk that is slow holds up nobody but those who wait for it, and
changes that have come meanwhile share the next transaction. The file is locked for as long as the
server has it open: two servers would each overwrite what the other one has stored.

Imported after monkey patching only.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import gevent
import msgspec
from gevent.event import AsyncResult, Event
from gevent.threadpool import ThreadPool

from chp_gevent.stores.base import RouteData, Store, StoreSetupError

log = logging.getLogger("chp_gevent.management")

FORMAT: Final = 1
"""``user_version`` of the file. Additions that an older version may ignore don't change it."""

# Seconds that another server has to let go of the file: a predecessor that is just ending.
_BUSY_TIMEOUT = 2.0
_TABLE = """
CREATE TABLE IF NOT EXISTS routes (
  path TEXT PRIMARY KEY,
  data BLOB NOT NULL,
  activity TEXT
) WITHOUT ROWID
"""
_ADD = "INSERT OR REPLACE INTO routes (path, data) VALUES (?, ?)"
_SIDE_FILES = ("", "-wal", "-shm")

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(dict[str, Any]).decode

_T = TypeVar("_T")
Statement = tuple[str, Sequence[Any]]


class SqliteStore(Store):
    """The store on one file.

    Args:
        path: the file; made if it is not there. One that is damaged is moved aside.

    Raises StoreSetupError when it can't be used: no such folder, no permission, another server.
    """

    is_concurrent = True

    def __init__(self, path: str) -> None:
        self._path = path
        self._pool = ThreadPool(1)
        self._waiting: list[tuple[Statement, AsyncResult[None]]] = []
        self._has_waiting = Event()
        self._db = self._in_thread(self._open_or_begin_anew)
        self._writer = gevent.spawn(self._write)

    # -- the interface

    def load(self) -> Iterable[tuple[str, RouteData]]:
        """See ``Store``."""
        rows = self._in_thread(
            lambda: self._db.execute("SELECT path, data, activity FROM routes").fetchall()
        )
        for path, data, activity in rows:
            route = _decode(data)
            if activity is not None:
                route["last_activity"] = activity
            yield path, route

    def add(self, path: str, data: RouteData) -> None:
        """See ``Store``."""
        self._change(_ADD, (path, _encode(data)))

    def remove(self, path: str) -> None:
        """See ``Store``."""
        self._change("DELETE FROM routes WHERE path = ?", (path,))

    def begin_with(self, routes: Mapping[str, RouteData]) -> None:
        """See ``Store``."""
        changes = [(_ADD, (path, _encode(data))) for path, data in routes.items()]
        self._in_thread(lambda: self._commit(changes))

    def save_activity(self, activity: Mapping[str, str]) -> None:
        """See ``Store``."""
        rows = [(when, path) for path, when in activity.items()]
        self._in_thread(lambda: self._save_activity(rows))

    def close(self) -> None:
        """See ``Store``."""
        self._writer.kill()
        self._in_thread(self._db.close)

    # -- changes, a transaction for all that wait

    def _change(self, statement: str, values: Sequence[Any]) -> None:
        done: AsyncResult[None] = AsyncResult()
        self._waiting.append(((statement, values), done))
        self._has_waiting.set()
        done.get()

    def _write(self) -> None:
        while True:
            self._has_waiting.wait()
            self._has_waiting.clear()
            waiting, self._waiting = self._waiting, []
            changes = [change for change, _ in waiting]
            try:
                self._in_thread(lambda changes=changes: self._commit(changes))  # type: ignore[misc]
            except Exception as error:
                for _, done in waiting:
                    done.set_exception(error)
            else:
                for _, done in waiting:
                    done.set(None)

    def _commit(self, changes: Iterable[Statement]) -> None:
        with self._transaction():
            for statement, values in changes:
                self._db.execute(statement, values)
            if not os.path.exists(self._path):
                # What is written to it now is nowhere after the end of the server.
                raise FileNotFoundError(
                    f"{self._path!r} was removed; reload the server (SIGHUP) to make it again"
                )

    def _save_activity(self, rows: Iterable[tuple[str, str]]) -> None:
        with self._transaction():
            self._db.executemany("UPDATE routes SET activity = ? WHERE path = ?", rows)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def _in_thread(self, call: Callable[[], _T]) -> _T:
        # What is raised in the thread itself would be in the log as a fault of the event loop.
        outcome: tuple[_T, None] | tuple[None, Exception] = self._pool.apply(_outcome, (call,))
        result, error = outcome
        if error is not None:
            raise error
        return result  # type: ignore[return-value]

    # -- the file

    def _open_or_begin_anew(self) -> sqlite3.Connection:
        try:
            return self._open()
        except sqlite3.OperationalError as error:
            raise StoreSetupError(f"{self._flag}: {self._reason(error)}") from None
        except sqlite3.DatabaseError as error:
            self._move_aside(error)
        try:
            return self._open()
        except sqlite3.Error as error:
            raise StoreSetupError(f"{self._flag}: {error}") from None

    @property
    def _flag(self) -> str:
        return f"--storage-backend: 'sqlite:{self._path}'"

    def _open(self) -> sqlite3.Connection:
        """Open the file and lock it. Raises ``sqlite3.Error``."""
        db = sqlite3.connect(
            self._path, timeout=_BUSY_TIMEOUT, isolation_level=None, check_same_thread=False
        )
        try:
            db.execute("PRAGMA locking_mode = EXCLUSIVE")
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            db.execute("BEGIN IMMEDIATE")
            (number,) = db.execute("PRAGMA user_version").fetchone()
            if number > FORMAT:
                raise StoreSetupError(
                    f"{self._flag}: has format {number}, of a later version, and not {FORMAT}"
                )
            (sound,) = db.execute("PRAGMA quick_check(1)").fetchone()
            if sound != "ok":
                raise sqlite3.DatabaseError(sound)
            db.execute(_TABLE)
            db.execute(f"PRAGMA user_version = {FORMAT}")
            db.execute("COMMIT")
        except BaseException:
            db.close()
            raise
        return db

    def _reason(self, error: sqlite3.OperationalError) -> str:
        if "locked" in str(error):
            return "is in use by another server"
        folder = os.path.dirname(self._path) or "."
        if not os.path.isdir(folder):
            return f"there is no folder {folder!r}"
        if not os.access(folder, os.W_OK):
            return f"cannot write into the folder {folder!r}"
        return str(error)

    def _move_aside(self, error: sqlite3.Error) -> None:
        """Move a damaged file away: who can serve without it should."""
        aside = f"{self._path}.damaged-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
        try:
            for side in _SIDE_FILES:
                if os.path.exists(self._path + side):
                    os.rename(self._path + side, aside + side)
        except OSError as failure:
            raise StoreSetupError(
                f"{self._flag}: is damaged ({error}), and can't be moved: {failure.strerror}"
            ) from None
        log.error(
            "%s is damaged (%s): moved to %s, beginning with an empty one", self._path, error, aside
        )


def _outcome(call: Callable[[], _T]) -> tuple[_T, None] | tuple[None, Exception]:
    try:
        return call(), None
    except Exception as error:
        return None, error
