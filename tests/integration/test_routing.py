"""Which target a path leads to."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.kit.peers import EchoTarget, RawTarget, get, response
from tests.kit.server import Proxy, start_proxy

ROUTES = [
    "/a",
    "/a/b",
    "/a/b/c/d",
    "/user/a@b",
    "/user/秀樹",
    "/has space",
    "/per%cent",
    "/trailing",
    "/__proto__/x",
    "/constructor",
]


@pytest.fixture(scope="module")
def routed() -> Iterator[Proxy]:
    """A server in which every one of ROUTES leads to a target of that name."""
    with ExitStack() as stack:
        proxy = stack.enter_context(start_proxy(workers=2))
        for path in ROUTES:
            target = stack.enter_context(EchoTarget(path))
            proxy.api.add(path + "/" if path == "/trailing" else path, target.url)
        yield proxy


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/a", "/a"),
        ("/a/", "/a"),
        ("/a?x=/b", "/a"),
        ("/a?", "/a"),
        ("/ab", None),
        ("/A", None),
        ("/", None),
        ("/other", None),
        ("/a/bc", "/a"),
        ("/a/b", "/a/b"),
        ("/a/b/", "/a/b"),
        ("/a/b/c", "/a/b"),
        ("/a/b/c/", "/a/b"),
        ("/a/b/c/d", "/a/b/c/d"),
        ("/a/b/c/d/e/f/g", "/a/b/c/d"),
        ("/%61", "/a"),
        ("/a%2Fb", "/a/b"),
        ("/a%2fb%2Fc%2fd/x", "/a/b/c/d"),
        ("/a//b", "/a"),
        ("/x/../a", "/a"),
        ("/a/./b", "/a/b"),
        ("/a/b/..", "/a"),
        ("/a/b/../../user/a@b", "/user/a@b"),
        ("/a/%2e%2E/a/b", "/a/b"),
        ("/a/%2e/b", "/a/b"),
        ("/../../a", "/a"),
        ("/a\\b", "/a/b"),
        ("//host/a", "/a"),
        ("//a", None),
        ("/a;v=1", None),
        ("/user/a@b", "/user/a@b"),
        ("/user/a%40b/tree", "/user/a@b"),
        ("/user/%E7%A7%80%E6%A8%B9", "/user/秀樹"),
        ("/user/%e7%a7%80%e6%a8%b9/lab?x", "/user/秀樹"),
        ("/user/%E7%A7%80", None),
        ("/has%20space", "/has space"),
        ("/has%20space/x%20y", "/has space"),
        ("/has+space", None),
        ("/per%25cent", "/per%cent"),
        ("/trailing", "/trailing"),
        ("/trailing/x", "/trailing"),
        ("/__proto__", None),
        ("/__proto__/x", "/__proto__/x"),
        ("/constructor/x", "/constructor"),
        pytest.param("/toString", None, marks=pytest.mark.ours),
    ],
)
def test_a_path_leads_to_the_longest_route_that_is_a_prefix_of_it(
    routed: Proxy, path: str, route: str | None
) -> None:
    answer = routed.get(path)
    if route is None:
        assert answer.status == 404
    else:
        assert json.loads(answer.body)["name"] == route


@pytest.mark.ours
@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/a/%zz", "/a"),
        ("/a/caf%E9.txt", "/a"),
        ("/a/caf\xe9.txt", "/a"),
        ("/a/100%.txt?100%", "/a"),
        ("/a/%PUBLIC_URL%/favicon.ico", "/a"),
        ("/a/b/%C0%AE%C0%AE/x", "/a/b"),
        ("/user/\xe7\xa7\x80\xe6\xa8\xb9/lab", "/user/秀樹"),
        ("/user/\xe7%A7%80\xe6%a8\xb9/caf%E9", "/user/秀樹"),
        ("/per%cent/%", None),
        ("/per%25cent/%", "/per%cent"),
        ("/%", None),
        ("/%E7%A7", None),
        ("/user/%E7", None),
        ("//[/a", "/a"),
        (f"//host:{'9' * 5000}/a", "/a"),
        (f"//host:{'0' * 5000}/a", "/a"),
    ],
)
def test_bytes_of_any_kind_are_routed_and_forwarded_as_they_are(
    routed: Proxy, path: str, route: str | None
) -> None:
    answer = routed.get(path)
    if route is None:
        assert answer.status == 404
    else:
        told = json.loads(answer.body)
        assert (told["name"], told["target"]) == (route, path)


def test_the_default_target_gets_what_no_route_matches(proxy: Proxy) -> None:
    with RawTarget(response(b"default")) as default, RawTarget(response(b"own")) as own:
        proxy.api.add("/", default.url)
        proxy.api.add("/own", own.url)
        assert proxy.get("/own/x").body == b"own"
        for path in ("/", "/ow", "/other/own"):
            assert proxy.get(path).body == b"default"
        proxy.api.remove("/own")
        assert proxy.get("/own/x").body == b"default"
        proxy.api.remove("/")
        assert proxy.get("/own/x").status == 404


def test_a_route_added_again_leads_to_its_new_target_at_once(proxy: Proxy) -> None:
    replies = [response(b"1"), response(b"2")]
    with RawTarget(replies[0]) as first, RawTarget(replies[1]) as second, proxy.client() as client:
        for _ in range(20):
            proxy.api.add("/again", first.url)
            assert client.request(get("/again")).body == b"1"
            proxy.api.add("/again", second.url)
            assert client.request(get("/again")).body == b"2"
    proxy.api.remove("/again")


def test_removing_a_route_leaves_those_below_and_above_it(proxy: Proxy) -> None:
    with ExitStack() as stack:
        for path in ("/x", "/x/y", "/x/y/z"):
            target = stack.enter_context(RawTarget(response(path.encode())))
            proxy.api.add(path, target.url)
        proxy.api.remove("/x/y")
        assert proxy.get("/x/y/z/1").body == b"/x/y/z"
        assert proxy.get("/x/y/1").body == b"/x"
        proxy.api.remove("/x")
        assert proxy.get("/x/y/1").status == 404
        assert proxy.get("/x/y/z").body == b"/x/y/z"
        proxy.api.remove("/x/y/z")


def test_a_target_with_a_path_gets_that_path_first(proxy: Proxy) -> None:
    with RawTarget() as target:
        proxy.api.add("/sub", target.url + "/base/")
        assert proxy.get("/sub/page?x=1").status == 200
        assert target.request.target == "/base/sub/page?x=1"
        proxy.api.remove("/sub")
