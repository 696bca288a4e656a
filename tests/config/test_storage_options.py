"""What ``--storage-*`` say of a table that servers share."""

from __future__ import annotations

import pytest

from chp_gevent.cli import parse
from chp_gevent.config.storage_options import EnginePlace, SharedStoreOptions, engine_place


def shared(*arguments: str, **environ: str) -> SharedStoreOptions | None:
    return parse(arguments, {"CONFIGPROXY_AUTH_TOKEN": "secret", **environ}).shared_store


@pytest.mark.parametrize(
    ("url", "place", "shown"),
    [
        ("redis://h", EnginePlace("redis", (("h", 6379),)), "h:6379"),
        ("redis://h:1/15", EnginePlace("redis", (("h", 1),), database=15), "h:1"),
        (
            "rediss://[::1]:2",
            EnginePlace("redis", (("::1", 2),), is_encrypted=True),
            "[::1]:2",
        ),
        ("unix:///run/r.sock", EnginePlace("unix", path="/run/r.sock"), "/run/r.sock"),
        (
            "redis+sentinel://a,b:3/main",
            EnginePlace("redis+sentinel", (("a", 26379), ("b", 3)), master="main"),
            "a:26379, b:3",
        ),
        (
            "rediss+cluster://a:1,b",
            EnginePlace("redis+cluster", (("a", 1), ("b", 6379)), is_encrypted=True),
            "a:1, b:6379",
        ),
    ],
)
def test_urls(url: str, place: EnginePlace, shown: str) -> None:
    assert engine_place(url) == place
    assert str(place) == shown


@pytest.mark.parametrize(
    "url",
    ["redis://", "redis://:1", "redis://h:0", "redis://h:65536", "redis://h:1:2", "redis://a b"],
)
def test_urls_without_a_host(url: str) -> None:
    with pytest.raises(ValueError, match="names no host"):
        engine_place(url)


def test_there_is_a_shared_store_with_a_url_of_redis_only() -> None:
    assert shared() is None
    assert shared("--storage-backend", "sqlite:/x") is None
    assert shared("--storage-backend", "package.Class") is None
    assert shared("--storage-backend", "redis://h") == SharedStoreOptions(
        EnginePlace("redis", (("h", 6379),))
    )


def test_secrets_come_from_the_environment() -> None:
    found = shared(
        *("--storage-backend", "redis://h"),
        CONFIGPROXY_STORAGE_USERNAME="u",
        CONFIGPROXY_STORAGE_PASSWORD="p",
        CONFIGPROXY_STORAGE_SENTINEL_PASSWORD="s",
    )
    assert found is not None
    assert (found.username, found.password, found.sentinel_password) == ("u", "p", "s")


def test_all_options() -> None:
    found = shared(
        *("--storage-backend", "rediss://h", "--storage-prefix", "hub-2"),
        *("--storage-lease", "10", "--storage-wait", "2", "--storage-start-timeout", "3"),
        *("--storage-ssl-ca", "ca", "--storage-ssl-cert", "cert", "--storage-ssl-key", "key"),
        *("--replica-name", "one"),
    )
    assert found == SharedStoreOptions(
        EnginePlace("redis", (("h", 6379),), is_encrypted=True),
        prefix="hub-2",
        lease=10.0,
        replicas_to_wait_for=2,
        start_timeout=3.0,
        name="one",
        ca="ca",
        cert="cert",
        key="key",
    )
