"""One of the servers that share their routes is cut off from the engine, without a word."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.kit.engine import running_engine
from tests.kit.network import Host, another_host, why_skipped
from tests.kit.peers import EchoTarget, wait_until
from tests.kit.server import Proxy, start_proxy
from tests.kit.shared_servers import is_current, needs_redis, paths, post, ready

_WHY_SKIPPED = why_skipped()

pytestmark = [
    pytest.mark.ours,
    pytest.mark.calm,
    needs_redis,
    pytest.mark.skipif(_WHY_SKIPPED is not None, reason=str(_WHY_SKIPPED)),
]

# Seconds. The lease that servers have unless they are told otherwise, and for how long each calls
# itself current by it.
LEASE = 5.0
CURRENT = 3.0
PARTITION = 12.0


class Watch:
    """Asks a server all the time whether it is current, and for routes that another one adds."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look)
        # Paths whose change has been confirmed.
        self.confirmed: list[str] = []
        self.stale: list[str] = []
        self.checks = 0
        self.not_current_at = float("inf")

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def pause(self) -> bool:
        """Wait for a moment; return whether there is nothing to look at any more."""
        return self._ended.wait(0.02)

    def _look(self) -> None:
        while not self.pause():
            wanted = list(self.confirmed)[-1:]
            was_current = is_current(self._proxy)
            found = [self._proxy.get(path).status for path in wanted]
            if was_current and is_current(self._proxy):
                self.checks += len(found)
                self.stale += [path for path in wanted if 404 in found]
            elif not was_current:
                self.not_current_at = min(self.not_current_at, time.monotonic())


@pytest.fixture(name="host")
def host_fixture() -> Iterator[Host]:
    with another_host(links=2) as host:
        yield host


@pytest.fixture(name="servers")
def servers_fixture(tmp_path: Path, host: Host) -> Iterator[list[Proxy]]:
    """Three servers; the last one has a link of its own to the engine."""
    with ExitStack() as stack:
        engine = stack.enter_context(
            running_engine(tmp_path, host=host.addresses[0], prefix=host.prefix)
        )
        servers = []
        for name, address in zip("abc", (host.addresses[0], *host.addresses), strict=True):
            url = f"redis://{address}:{engine.port}"
            flags = ("--storage-backend", url, "--replica-name", name)
            servers.append(stack.enter_context(start_proxy(*flags)))
        for server in servers:
            wait_until(lambda s=server: is_current(s), 10, "it is current")  # type: ignore[misc]
        yield servers


def test_a_server_that_is_cut_off_says_so_and_nobody_waits_for_it(
    servers: list[Proxy], host: Host
) -> None:
    first, second, cut_off = servers
    with EchoTarget("t") as target, Watch(cut_off) as watch:
        first.api.add("/before", target.url)
        watch.confirmed.append("/before")
        wait_until(lambda: watch.checks > 5, 10, "it is looked at")
        host.cut(1)
        begin = time.monotonic()
        slowest, number = 0.0, 0
        while time.monotonic() < begin + PARTITION:
            asked = time.monotonic()
            assert post((first, second)[number % 2], f"/r{number}", target.url).status_code == 201
            slowest = max(slowest, time.monotonic() - asked)
            watch.confirmed.append(f"/r{number}")
            number += 1
            if number == 3:
                # It keeps its table, serves reads, and refuses changes at once.
                asked = time.monotonic()
                assert post(cut_off, "/refused").status_code == 503
                assert time.monotonic() < asked + 0.5
                assert paths(cut_off) == {"/before"}
                assert cut_off.get("/before").status == 200
                assert (ready(cut_off), ready(cut_off, "?current")) == (200, 503)
            watch.pause()
        host.mend(1)
        mended = time.monotonic()
        wait_until(lambda: is_current(cut_off), 10, "it is current again")
        again = time.monotonic() - mended
        assert paths(cut_off) == paths(first) == paths(second)
        print(
            f"not current after {watch.not_current_at - begin:.2f} s; "
            f"slowest change {slowest:.2f} s; {len(watch.stale)} stale in {watch.checks} checks; "
            f"current again after {again:.2f} s"
        )
        assert watch.stale == []
        assert watch.not_current_at < begin + CURRENT + 0.1
        assert slowest < LEASE + 0.3
        assert again < 1.5
