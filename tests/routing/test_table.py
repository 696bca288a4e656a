"""The routing table finds what CHP's trie finds."""

from __future__ import annotations

from typing import Any

import pytest

from chp_gevent.routing.table import Route, RouteTable


@pytest.mark.parametrize(
    ("path", "prefix"),
    [
        ("/", "/"),
        ("", "/"),
        ("/other", "/"),
        ("/user", "/"),
        ("/user/", "/"),
        ("/user/name", "/user/name"),
        ("/user/name/", "/user/name"),
        ("/user/name//", "/user/name"),
        ("//user/name", "/user/name"),
        ("/user/name/x/y/z", "/user/name"),
        ("/user/name/lab", "/user/name/lab"),
        ("/user/name/lab/tree", "/user/name/lab"),
        ("/user/name/laboratory", "/user/name"),
        ("/user/names", "/"),
        ("/user//name", "/"),
        ("/User/name", "/"),
    ],
)
def test_a_route_matches_whole_segments(path: str, prefix: str) -> None:
    table = RouteTable()
    for number, known in enumerate(["/", "/user/name", "/user/name/lab"]):
        table.add(Route(known, "http://127.0.0.1", number))
    found = table.find(path)
    assert found is not None
    assert found.prefix == prefix


def test_without_a_default_route_an_unknown_path_has_no_route() -> None:
    table = RouteTable()
    assert table.find("/") is None
    table.add(Route("/user", "http://127.0.0.1", 0))
    assert table.find("/") is None
    assert table.find("/hub") is None


class CountingDict(dict[str, Route]):
    """Counts look-ups: the cost of ``find`` in something else than time."""

    lookups = 0

    def get(self, key: str, default: Any = None) -> Any:
        self.lookups += 1
        return super().get(key, default)


@pytest.mark.parametrize("path", ["/a" * 4000, "/user/name/" + "/" * 8000 + "x", "/user/x" * 1000])
@pytest.mark.parametrize("routes", [10, 10_000])
def test_a_hostile_path_costs_no_more_than_the_table_is_deep(path: str, routes: int) -> None:
    table = RouteTable()
    table.add(Route("/a/b/c/d/e", "http://127.0.0.1", 0))
    for number in range(routes):
        table.add(Route(f"/user/{number}", "http://127.0.0.1", number))
    table.remove("/a/b/c/d/e")
    counting = table._routes = CountingDict(table._routes)
    assert table.find(path) is None
    assert counting.lookups <= 3
