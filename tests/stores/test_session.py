"""The connections to Redis, and what its user may do."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from redis.exceptions import RedisError

from chp_gevent.config.storage_options import EnginePlace, SharedStoreOptions
from chp_gevent.stores.redis import engine as places
from chp_gevent.stores.redis.session import Session
from tests.kit.engine import Engine, running_engine
from tests.kit.pages import DOCS
from tests.kit.shared_servers import needs_redis

pytestmark = needs_redis

(RULE,) = re.findall(r"^user chp on >PASSWORD (.*)$", (DOCS / "storage.md").read_text(), re.M)
RIGHTS = [word for word in RULE.split() if word.startswith("+")]


@pytest.fixture(name="engine", scope="module")
def engine_fixture(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with running_engine(tmp_path_factory.mktemp("engine")) as engine:
        yield engine


def session_of_a_user(engine: Engine, *rights: str, waits: bool = False) -> Session:
    engine.client.execute_command("ACL", "DELUSER", "chp")
    rest = [word for word in RULE.split() if word not in RIGHTS]
    engine.client.execute_command("ACL", "SETUSER", "chp", "on", ">secret", *rest, *rights)
    place = EnginePlace("redis", (("127.0.0.1", engine.port),))
    options = SharedStoreOptions(place, username="chp", password="secret")
    return Session(places.Engine(options, "{chp}:meta"), "{chp}:unused", waits=waits)


def test_the_documented_rights_are_enough(engine: Engine) -> None:
    session_of_a_user(engine, *RIGHTS).close()
    assert engine.client.keys("*") == []


@pytest.mark.parametrize("right", [*RIGHTS, "~{chp}:*"])
def test_each_is_needed_and_missed_from_the_start(engine: Engine, right: str) -> None:
    rights = [each for each in RIGHTS if each != right]
    words = ["resetkeys"] if right.startswith("~") else []
    with pytest.raises(RedisError) as caught:
        session_of_a_user(engine, *rights, *words)
    assert (right.removeprefix("+") if right in RIGHTS else "keys") in str(caught.value)


def test_waiting_for_replicas_needs_a_right_of_its_own(engine: Engine) -> None:
    session_of_a_user(engine, *RIGHTS, "+wait", waits=True).close()
    with pytest.raises(RedisError, match="wait"):
        session_of_a_user(engine, *RIGHTS, waits=True)


def test_several_that_are_missing_are_said_at_once(engine: Engine) -> None:
    rights = [each for each in RIGHTS if each not in ("+hscan", "+rename", "+xadd")]
    with pytest.raises(RedisError, match=r"^the user lacks these rights: \+rename \+hscan \+xadd$"):
        session_of_a_user(engine, *rights)
