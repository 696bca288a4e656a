"""What servers that share their routes must not do is found, if they do it.

Each case is tried with a server as it is, and with one that makes the mistake
(scripts/lib/replicas/mistakes.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from scripts.lib.replicas.mistakes import MISTAKES, command
from tests.kit.engine import Engine, running_engine
from tests.kit.peers import EchoTarget, wait_until
from tests.kit.processes import stopped
from tests.kit.server import Proxy, start_proxy
from tests.kit.shared_servers import (
    CURRENT,
    LEASE,
    added_again,
    is_current,
    needs_redis,
    paths,
    post,
)

pytestmark = [pytest.mark.ours, needs_redis]


class Servers:
    """An engine, and servers on it that make a mistake, or none."""

    def __init__(self, stack: ExitStack, folder: Path, mistake: str | None) -> None:
        self._stack = stack
        self._mistake = mistake
        self.engine: Engine = stack.enter_context(running_engine(folder))

    def start(self, name: str, lease: float = LEASE) -> Proxy:
        proxy: Proxy = self._stack.enter_context(
            start_proxy(
                *("--storage-backend", self.engine.url, "--storage-lease", str(lease)),
                *("--replica-name", name, "--workers", "1"),
                workers=None,
                command=command(self._mistake) if self._mistake else None,
            )
        )
        wait_until(lambda: is_current(proxy), 10, f"{name} is current")
        return proxy


def confirms_too_early(servers: Servers) -> bool:
    """Whether a change is confirmed that a current server does not have."""
    first, second = servers.start("a", lease=6), servers.start("b", lease=6)
    with EchoTarget("t") as target, stopped([second.management_pid()]):
        first.api.add("/new", target.url)
        return is_current(second) and second.get("/new").status == 404


def changes_too_late(servers: Servers) -> bool:
    """Whether a change is made whose sender has given it up."""
    first = servers.start("a")
    first.api.add("/route", "http://127.0.0.1:10")
    servers.engine.freeze()
    begin = time.monotonic()
    assert post(first, "/route", "http://127.0.0.1:11").status_code == 503
    wait_until(lambda: time.monotonic() > begin + 3, 6, "three seconds")
    servers.engine.thaw()
    added_again(first, "/other")
    return bool(first.api.routes()["/route"]["target"] == "http://127.0.0.1:11")


def is_current_for_too_long(servers: Servers) -> bool:
    """Whether a server calls itself current when others may have gone on without it."""
    first = servers.start("a")
    servers.engine.kill()
    begin = time.monotonic()
    wait_until(
        lambda: not is_current(first) or time.monotonic() > begin + LEASE, LEASE + 1, "its end"
    )
    servers.engine.start()
    return time.monotonic() > begin + CURRENT + 0.5


def confirms_before_all_have_noticed(servers: Servers) -> bool:
    """Whether a change is confirmed after a loss that a current server has not noticed yet."""
    first, second = servers.start("a", lease=10), servers.start("b", lease=10)
    with EchoTarget("t") as target:
        first.api.add("/before", target.url)
        with stopped([second.management_pid()]):
            assert is_current(second)
            servers.engine.client.flushall()
            added_again(first, "/new")
            return is_current(second) and second.get("/new").status != 503


def loses_what_it_has_confirmed(servers: Servers) -> bool:
    """Whether a change is lost that was confirmed on an engine which came back with older data."""
    first, second = servers.start("a"), servers.start("b")
    first.api.add("/old", "http://127.0.0.1:9")
    servers.engine.client.save()
    # One server makes changes that nobody else has; the engine forgets them; the other one, which
    # has never had them, makes another.
    with ExitStack() as held:
        with stopped(first.tree()):
            # Not even what lies in its sockets. The other one has to connect again, too.
            servers.engine.client.client_kill_filter(_type="normal", skipme=True)
            for number in range(10):
                added_again(second, f"/r{number}")
            held.enter_context(stopped(second.tree()))
            servers.engine.kill()
            servers.engine.start()
        added_again(first, "/new")
    wait_until(lambda: is_current(second) and is_current(first), 20, "both are current")
    wait_until(lambda: paths(first) == paths(second), 10, "both have the same")
    return "/new" not in paths(first)


CASES: dict[str, Callable[[Servers], bool]] = {
    "no-ack": confirms_too_early,
    "no-deadline": changes_too_late,
    "long-current": is_current_for_too_long,
    "no-fence": confirms_before_all_have_noticed,
    "no-run-id": loses_what_it_has_confirmed,
}


def test_there_is_a_case_for_each_mistake() -> None:
    assert CASES.keys() == MISTAKES.keys()


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("is_made", [False, True], ids=["as it is", "with the mistake"])
def test_a_mistake_is_found(tmp_path: Path, name: str, is_made: bool) -> None:
    with ExitStack() as stack:
        servers = Servers(stack, tmp_path, name if is_made else None)
        assert CASES[name](servers) == is_made
