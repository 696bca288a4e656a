"""Routes and a storage backend: validate, store, publish, answer."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import gevent
import pytest

from chp_gevent.config.options import Options, TcpAddress
from chp_gevent.management.routes import Routes, StoreWriteError
from chp_gevent.routing.route_options import RouteOptions
from chp_gevent.shared.publisher import Publisher
from chp_gevent.shared.segment import Segment
from chp_gevent.stores import Store, StoreSetupError, open_store
from tests.kit.api_calls import Call
from tests.management.conftest import Clock

OPTIONS = Options(listen=TcpAddress("", 8000), api=TcpAddress("127.0.0.1", 8001))
TARGET = b'{"target": "http://127.0.0.1:9"}'
OTHER_TARGET = b'{"target": "http://127.0.0.1:10"}'

MakeCall = Callable[[Routes], Call]


class DictStore(Store):
    """Keeps routes in a dictionary, and raises ``failure`` when that is set."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.routes: dict[str, dict[str, Any]] = {}
        self.activity: list[Mapping[str, str]] = []
        self.failure: Exception | None = None
        self.closed = False

    def load(self) -> Iterable[tuple[str, dict[str, Any]]]:
        self._fail()
        return self.routes.items()

    def add(self, path: str, data: dict[str, Any]) -> None:
        self._fail()
        self.routes[path] = data

    def remove(self, path: str) -> None:
        self._fail()
        self.routes.pop(path, None)

    def save_activity(self, activity: Mapping[str, str]) -> None:
        self._fail()
        self.activity.append(activity)

    def close(self) -> None:
        self._fail()
        self.closed = True

    def _fail(self) -> None:
        if self.failure is not None:
            raise self.failure


class PlainStore(DictStore):
    """Does not want to know about activity."""

    save_activity = Store.save_activity


class FailingStore(DictStore):
    """Can't be made."""

    def __init__(self, options: Options) -> None:
        raise ConnectionRefusedError("nobody\nthere")


@pytest.fixture
def store() -> DictStore:
    """An empty store."""
    return DictStore(OPTIONS)


@pytest.fixture
def stored_routes(
    publisher: Publisher, segment: Segment, log: logging.Logger, store: DictStore
) -> Routes:
    """An empty table with that store."""
    return Routes(publisher, segment.activity, log, store=store)


@pytest.fixture
def stored_call(make_call: MakeCall, stored_routes: Routes) -> Call:
    """Calls the API over that table."""
    return make_call(stored_routes)


# -- opening


def test_a_backend_is_found_by_its_dotted_path() -> None:
    store = open_store(f"{__name__}.DictStore", OPTIONS)
    assert isinstance(store, DictStore)
    assert store.options == OPTIONS


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("no.such.module.Class", "can't be imported: ModuleNotFoundError: No module named 'no'"),
        (f"{__name__}.Missing", "can't be imported: AttributeError: "),
        ("Class", "can't be imported: ValueError: Empty module name"),
        (f"{__name__}.TARGET", "is not a subclass of chp_gevent.stores.Store"),
        ("builtins.dict", "is not a subclass of chp_gevent.stores.Store"),
        (f"{__name__}.FailingStore", ": ConnectionRefusedError: nobody there"),
    ],
)
def test_a_backend_that_cannot_be_used_is_one_line_naming_the_flag(path: str, reason: str) -> None:
    with pytest.raises(StoreSetupError) as caught:
        open_store(path, OPTIONS)
    message = str(caught.value)
    assert message.startswith(f"--storage-backend: '{path}'")
    assert reason in message
    assert "\n" not in message


# -- changes


def test_what_is_answered_is_stored_and_published(
    stored_call: Call, store: DictStore, publisher: Publisher
) -> None:
    body = b'{"user": "x", "target": "http://127.0.0.1:9", "last_activity": "old"}'
    assert stored_call("POST", "/api/routes/a/", body).status == 201
    assert store.routes == {"/a": {"user": "x", "target": "http://127.0.0.1:9"}}
    assert list(publisher.routes) == ["/a"]
    assert stored_call("DELETE", "/api/routes/a").status == 204
    assert store.routes == {}
    assert not publisher.routes


def test_what_is_refused_is_not_stored(stored_call: Call, store: DictStore) -> None:
    assert stored_call("POST", "/api/routes/a", b'{"target": "ftp://h"}').status == 400
    assert stored_call("DELETE", "/api/routes/a").status == 404
    assert store.routes == {}


def test_what_cannot_be_stored_is_a_503_and_changes_nothing(
    stored_call: Call, store: DictStore, publisher: Publisher, lines: list[str]
) -> None:
    stored_call("POST", "/api/routes/a", TARGET)
    lines.clear()
    generation = publisher.generation
    store.failure = ConnectionError("lost redis://:password@host\n")
    for method, path in [("POST", "/a"), ("POST", "/b"), ("DELETE", "/a")]:
        answer = stored_call(method, f"/api/routes{path}", OTHER_TARGET)
        assert answer == (503, [], b"The storage backend failed")
    assert publisher.generation == generation
    assert lines[-1] == (
        "error: 503 DELETE /api/routes/a The storage backend failed: "
        "ConnectionError: lost redis://:password@host\\n"
    )
    assert not any("Traceback" in line for line in lines)


def test_what_cannot_be_published_does_not_stay_stored(
    stored_call: Call, store: DictStore, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored_call("POST", "/api/routes/a", TARGET)

    def full(*args: Any) -> None:
        raise OSError("no memory")

    monkeypatch.setattr(publisher, "add", full)
    assert stored_call("POST", "/api/routes/a", OTHER_TARGET).status == 507
    assert stored_call("POST", "/api/routes/b", OTHER_TARGET).status == 507
    assert store.routes == {"/a": {"target": "http://127.0.0.1:9"}}
    assert publisher.routes["/a"].target == "http://127.0.0.1:9"


def test_changes_come_in_the_same_order_in_store_and_table(
    stored_call: Call, store: DictStore, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = store.add
    pauses = [gevent.sleep, lambda: None]

    def slow_first(path: str, data: dict[str, Any]) -> None:
        pauses.pop(0)()
        add(path, data)
        gevent.sleep()

    monkeypatch.setattr(store, "add", slow_first)
    bodies = [TARGET, OTHER_TARGET]
    calls = [gevent.spawn(stored_call, "POST", "/api/routes/a", body) for body in bodies]
    gevent.joinall(calls, raise_error=True)
    assert store.routes["/a"]["target"] == publisher.routes["/a"].target == "http://127.0.0.1:10"


# -- loading


def test_options_of_routes_go_through_the_store(
    stored_call: Call,
    stored_routes: Routes,
    store: DictStore,
    publisher: Publisher,
    lines: list[str],
) -> None:
    posted = {"target": "http://h:1", "strip_prefix": True, "headers": {"X-A": "1"}}
    assert stored_call("POST", "/api/routes/a", json.dumps(posted).encode()).status == 201
    assert store.routes == {"/a": posted}
    options = publisher.routes["/a"].options
    assert options == RouteOptions(strip_prefix=True, headers=(("X-A", "1"),))
    publisher.remove("/a")
    store.routes["/b"] = {"target": "http://h:1", "timeout": "soon"}
    lines.clear()
    stored_routes.load()
    assert list(publisher.routes) == ["/a"]
    assert publisher.routes["/a"].options == options
    (line,) = lines
    assert line.startswith("error: Stored route /b is left out: Invalid 'timeout': it is not ")


def test_the_table_becomes_what_is_stored(
    stored_routes: Routes, store: DictStore, publisher: Publisher, lines: list[str]
) -> None:
    publisher.add("/gone", "http://h", b'{"target":"http://h"}')
    publisher.add("/same", "http://h", b'{"target":"http://h"}')
    publisher.add("/other", "http://h", b'{"target":"http://h"}')
    store.routes = {
        "/same": {"target": "http://h"},
        "/other": {"target": "http://h2", "user": "x"},
        "new/": {"target": "http://h3", "last_activity": "2001-01-01T00:00:00.000Z"},
        "/bad": {"target": "ftp://h"},
        "/worse": {"user": 1},
        "/worst": {"target": "http://h", "object": object()},
    }
    stored_routes.load()
    shown = json.loads(stored_routes.all_as_json())
    now = "2026-01-01T00:00:00.000Z"
    assert shown == {
        "/same": {"target": "http://h", "last_activity": now},
        "/other": {"target": "http://h2", "user": "x", "last_activity": now},
        "/new": {"target": "http://h3", "last_activity": "2001-01-01T00:00:00.000Z"},
    }
    assert [line.split(" is left out: ")[0] for line in lines] == [
        "error: Stored route /bad",
        "error: Stored route /worse",
        "error: Stored route /worst",
    ]


def test_routes_that_are_stored_as_they_are_keep_their_activity(
    stored_routes: Routes, store: DictStore, publisher: Publisher, clock: Clock
) -> None:
    store.routes = {"/a": {"target": "http://h", "last_activity": "2001-01-01T00:00:00.000Z"}}
    publisher.add("/a", "http://h", b'{"target":"http://h"}')
    generation = publisher.generation
    clock.now += 60
    stored_routes.load()
    assert publisher.generation == generation
    assert publisher.last_activity("/a") == clock.now - 60


def test_a_store_that_cannot_be_read_changes_nothing(
    stored_routes: Routes, store: DictStore, publisher: Publisher
) -> None:
    publisher.add("/a", "http://h", b'{"target":"http://h"}')
    store.failure = ConnectionError("lost")
    with pytest.raises(StoreWriteError, match="The storage backend failed: ConnectionError: lost"):
        stored_routes.load()
    assert list(publisher.routes) == ["/a"]


# -- activity


def test_activity_is_saved_when_it_has_changed(
    stored_routes: Routes, store: DictStore, publisher: Publisher, segment: Segment, clock: Clock
) -> None:
    for path in ("/a", "/b"):
        publisher.add(path, "http://h", b'{"target":"http://h"}')
    then = "2026-01-01T00:00:00.000Z"
    stored_routes.save_activity()
    stored_routes.save_activity()
    assert store.activity == [{"/a": then, "/b": then}]
    segment.activity[publisher.routes["/b"].slot] = clock.now + 1.5
    store.failure = ConnectionError("lost")
    with pytest.raises(StoreWriteError):
        stored_routes.save_activity()
    store.failure = None
    stored_routes.save_activity()
    assert store.activity[1:] == [{"/b": "2026-01-01T00:00:01.500Z"}]


def test_a_store_that_does_not_care_about_activity_is_not_asked(
    publisher: Publisher, segment: Segment, log: logging.Logger
) -> None:
    routes = Routes(publisher, segment.activity, log, store=PlainStore(OPTIONS))
    assert not routes.saves_activity
    routes.save_activity()


def test_the_store_is_closed_at_the_end(stored_routes: Routes, store: DictStore) -> None:
    stored_routes.close_store(for_good=True)
    assert store.closed
    store.failure = ConnectionError("lost")
    with pytest.raises(StoreWriteError):
        stored_routes.close_store(for_good=True)


# -- host routing


def test_with_host_routing_the_host_of_a_route_is_stored(
    publisher: Publisher, segment: Segment, log: logging.Logger, make_call: MakeCall
) -> None:
    call = make_call(Routes(publisher, segment.activity, log, host_routing=True))
    call("POST", "/api/routes/", TARGET)
    call("POST", "/api/routes/example.com/user/x", TARGET)
    body = b'{"host": "forged", "target": "http://127.0.0.1:9", "q": 1}'
    call("POST", "/api/routes/example.org", body)
    table = json.loads(call("GET", "/api/routes").body)
    assert "host" not in table["/"]
    assert list(table["/example.com/user/x"]) == ["target", "host", "last_activity"]
    assert table["/example.com/user/x"]["host"] == "example.com"
    assert list(table["/example.org"]) == ["host", "target", "q", "last_activity"]
    assert table["/example.org"]["host"] == "example.org"


def test_with_host_routing_neither_case_nor_a_final_dot_make_another_route(
    publisher: Publisher, segment: Segment, log: logging.Logger, make_call: MakeCall
) -> None:
    store = DictStore(OPTIONS)
    routes = Routes(publisher, segment.activity, log, host_routing=True, store=store)
    call = make_call(routes)
    assert call("POST", "/api/routes/Example.COM./User/X.", TARGET).status == 201
    table = json.loads(call("GET", "/api/routes").body)
    assert list(table) == list(store.routes) == ["/example.com/User/X."]
    assert table["/example.com/User/X."]["host"] == "example.com"
    assert call("GET", "/api/routes/EXAMPLE.com/User/X.").status == 200
    assert call("DELETE", "/api/routes/example.com./User/X.").status == 204
    assert store.routes == {}
