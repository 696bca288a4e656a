"""The routing table finds what the most naive search finds, whatever was added and removed."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from chp_gevent.routing.paths import route_path
from chp_gevent.routing.table import Route, RouteTable

# Few segments, so that routes are prefixes of each other; an empty one gives "//".
SEGMENTS = st.sampled_from(["a", "b", "user", "秀樹", "has space", "", "constructor", "%2F", "."])
PATHS = st.lists(SEGMENTS, max_size=5).map(lambda segments: "/" + "/".join(segments))
PREFIXES = PATHS.map(route_path)


def segments_of(path: str) -> list[str]:
    """Split as CHP's trie does: slashes at both ends don't count."""
    path = path.strip("/")
    return path.split("/") if path else []


def find_by_looking_at_all(routes: dict[str, Route], path: str) -> Route | None:
    """What a trie finds, said in the most naive way: of all prefixes, the longest."""
    wanted = segments_of(path)
    best: Route | None = None
    best_length = -1
    for prefix, route in routes.items():
        segments = segments_of(prefix)
        if wanted[: len(segments)] == segments and len(segments) > best_length:
            best, best_length = route, len(segments)
    return best


class TableAgainstModel(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.table = RouteTable()
        self.model: dict[str, Route] = {}
        self.added = 0

    @rule(prefix=PREFIXES)
    def add(self, prefix: str) -> None:
        route = Route(prefix, f"http://127.0.0.1:{self.added % 7}", self.added)
        self.added += 1
        assert self.table.add(route) is self.model.get(prefix)
        self.model[prefix] = route

    @rule(prefix=PREFIXES)
    def remove(self, prefix: str) -> None:
        assert self.table.remove(prefix) is self.model.pop(prefix, None)

    @rule(path=PATHS, prefix=PREFIXES)
    def find(self, path: str, prefix: str) -> None:
        for tried in (path, prefix + path, path + "/", "/" + path):
            assert self.table.find(tried) is find_by_looking_at_all(self.model, tried)

    @invariant()
    def holds_the_same_routes(self) -> None:
        assert len(self.table) == len(self.model)
        assert {route.prefix: route for route in self.table} == self.model
        assert all(self.table.get(prefix) is route for prefix, route in self.model.items())

    @invariant()
    def knows_the_targets_that_routes_lead_to(self) -> None:
        targets = {route.target for route in self.model.values()}
        found = [f"http://127.0.0.1:{number}" for number in range(7)]
        assert {target for target in found if self.table.leads_to(target)} == targets


TableAgainstModel.TestCase.settings = settings(max_examples=200, stateful_step_count=40)
TestTableAgainstModel = TableAgainstModel.TestCase


@given(st.dictionaries(PREFIXES, st.integers(0, 9), max_size=20), st.lists(PATHS, max_size=20))
def test_finds_the_longest_prefix(targets: dict[str, int], paths: list[str]) -> None:
    routes = {prefix: Route(prefix, f"http://t:{n}", n) for prefix, n in targets.items()}
    table = RouteTable()
    for route in routes.values():
        table.add(route)
    for path in paths:
        assert table.find(path) is find_by_looking_at_all(routes, path)
