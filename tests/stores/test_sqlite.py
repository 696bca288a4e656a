"""The store in an SQLite file: transactions, order, failures."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import gevent
import pytest

from chp_gevent.stores import StoreSetupError
from chp_gevent.stores.sqlite import FORMAT, SqliteStore


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "routes.sqlite"


def loaded(store: SqliteStore) -> dict[str, object]:
    return dict(store.load())


def test_what_is_stored_is_loaded(path: Path) -> None:
    store = SqliteStore(str(path))
    store.add("/a", {"target": "http://x", "user": "ü", "n": [1, {"b": None}]})
    store.add("/b", {"target": "http://y"})
    store.add("/b", {"target": "http://z"})
    store.add("/c", {"target": "http://y"})
    store.remove("/c")
    store.remove("/c")
    store.save_activity({"/a": "2026-01-01T00:00:00.000Z", "/gone": "2026-01-01T00:00:00.000Z"})
    wanted = {
        "/a": {
            "target": "http://x",
            "user": "ü",
            "n": [1, {"b": None}],
            "last_activity": "2026-01-01T00:00:00.000Z",
        },
        "/b": {"target": "http://z"},
    }
    assert loaded(store) == wanted
    store.close()
    again = SqliteStore(str(path))
    assert loaded(again) == wanted
    again.close()


def test_changes_that_wait_share_a_transaction(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commits: list[int] = []
    commit = SqliteStore._commit

    def counted(store: SqliteStore, changes: list[object]) -> None:
        commits.append(len(changes))
        commit(store, changes)  # type: ignore[arg-type]

    monkeypatch.setattr(SqliteStore, "_commit", counted)
    store = SqliteStore(str(path))
    gevent.joinall(
        [gevent.spawn(store.add, f"/{number}", {"target": "x"}) for number in range(100)],
        raise_error=True,
    )
    assert sum(commits) == 100
    assert len(commits) < 20
    assert len(loaded(store)) == 100
    store.close()


def test_a_change_that_fails_is_told_to_who_asked_and_nothing_of_it_stays(path: Path) -> None:
    store = SqliteStore(str(path))
    store.add("/a", {"target": "x"})
    refusing = "BEFORE INSERT ON routes BEGIN SELECT RAISE(FAIL, 'full'); END"
    store._db.execute(f"CREATE TRIGGER no {refusing}")
    with pytest.raises(sqlite3.Error, match="full"):
        store.add("/b", {"target": "x"})
    store._db.execute("DROP TRIGGER no")
    store.add("/c", {"target": "x"})
    assert set(loaded(store)) == {"/a", "/c"}
    store.close()


def test_another_server_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chp_gevent.stores.sqlite._BUSY_TIMEOUT", 0.1)
    store = SqliteStore(str(path))
    with pytest.raises(StoreSetupError, match="is in use by another server"):
        SqliteStore(str(path))
    store.close()
    SqliteStore(str(path)).close()


@pytest.mark.parametrize("damage", ["header", "page"])
def test_a_damaged_file_is_moved_aside(path: Path, damage: str) -> None:
    store = SqliteStore(str(path))
    gevent.joinall([gevent.spawn(store.add, f"/u/{n}", {"target": "x" * 50}) for n in range(2000)])
    store.close()
    data = bytearray(path.read_bytes())
    if damage == "header":
        data[:16] = b"\0" * 16
    else:
        data[4096:12288] = b"\xff" * 8192
    path.write_bytes(data)
    store = SqliteStore(str(path))
    assert loaded(store) == {}
    store.add("/a", {"target": "x"})
    store.close()
    assert [each.read_bytes() == bytes(data) for each in path.parent.glob("*.damaged-*")] == [True]


def test_a_file_of_a_later_version_is_left_alone(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute(f"PRAGMA user_version = {FORMAT + 1}")
    db.close()
    with pytest.raises(StoreSetupError, match=f"has format {FORMAT + 1}, of a later version"):
        SqliteStore(str(path))
    assert list(path.parent.glob("*.damaged-*")) == []


def test_a_folder_that_is_missing_or_a_folder_in_its_place(path: Path) -> None:
    with pytest.raises(StoreSetupError, match="there is no folder"):
        SqliteStore(str(path / "more" / "routes"))
    path.mkdir()
    with pytest.raises(StoreSetupError, match="unable to open"):
        SqliteStore(str(path))
