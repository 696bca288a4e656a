"""Connecting to names and addresses: the first that answers wins, and the dead cost little."""

from __future__ import annotations

import contextlib
import gc
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import gevent
import pytest

from chp_gevent.names.addresses import Address
from chp_gevent.names.resolver import Resolver
from chp_gevent.proxy.upstream import connecting
from chp_gevent.proxy.upstream.connecting import (
    ATTEMPT_DELAY,
    LONGEST_PAUSE,
    Connector,
    Race,
    connect_to_unix,
)
from chp_gevent.proxy.upstream.failures import Stage
from tests.kit.peers.dead_address import swallowing

LATER = 5.0
"""Seconds that nothing here may take, however slow the machine."""


def address(number: int) -> Address:
    """One of the many loopback addresses."""
    return Address(socket.AF_INET, f"127.0.0.{number}")


class Service:
    """A port on which some addresses answer, some are dead, and all others refuse."""

    def __init__(self, stack: ExitStack, *, good: tuple[int, ...], dead: tuple[int, ...]) -> None:
        self.listeners: dict[int, socket.socket] = {}
        self.port = 0
        for number in good:
            listener = stack.enter_context(socket.socket())
            listener.bind((address(number).host, self.port))
            listener.listen(16)
            self.port = listener.getsockname()[1]
            self.listeners[number] = listener
        for number in dead:
            listener = stack.enter_context(swallowing((address(number).host, self.port)))
            listener.setblocking(False)
            self.port = listener.getsockname()[1]
            self.listeners[number] = listener


@pytest.fixture
def service() -> Iterator[Callable[..., Service]]:
    """Makes services that last until the test ends."""
    with ExitStack() as stack, gevent.Timeout(20):

        def make(*, good: tuple[int, ...] = (), dead: tuple[int, ...] = ()) -> Service:
            for _ in range(20):
                # Somebody else may have the port on one of the addresses.
                with contextlib.suppress(OSError):
                    return Service(stack, good=good, dead=dead)
            raise AssertionError("no port that is free on all addresses")

        yield make


def raced(numbers: list[int], port: int) -> tuple[int, float]:
    """Return the last number of the address that won, and how long it took."""
    begun = time.monotonic()
    sock, won = Race([address(number) for number in numbers], port).run()
    elapsed = time.monotonic() - begun
    assert sock.getpeername() == (won.host, port)
    sock.close()
    return int(won.host.rpartition(".")[2]), elapsed


def descriptors() -> int:
    """How many descriptors this process has open, without what is garbage."""
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


def test_the_first_address_wins_if_it_answers(service: Callable[..., Service]) -> None:
    port = service(good=(2, 3)).port
    assert [raced([2, 3], port)[0] for _ in range(5)] == [2] * 5
    assert [raced([3, 2], port)[0] for _ in range(5)] == [3] * 5


def test_after_a_refusal_the_next_address_is_tried_at_once(
    service: Callable[..., Service],
) -> None:
    port = service(good=(5,)).port
    results = [raced([2, 3, 4, 5], port) for _ in range(5)]
    assert {number for number, _ in results} == {5}
    assert min(elapsed for _, elapsed in results) < ATTEMPT_DELAY


def test_a_dead_address_costs_a_quarter_of_a_second(service: Callable[..., Service]) -> None:
    port = service(good=(3,), dead=(2,)).port
    raced([3], port)  # gevent opens its own descriptors
    before = descriptors()
    results = [raced([2, 3], port) for _ in range(3)]
    assert {number for number, _ in results} == {3}
    assert ATTEMPT_DELAY <= min(elapsed for _, elapsed in results) < 2 * ATTEMPT_DELAY
    assert descriptors() == before, "the loser has been closed"


def test_a_slow_address_may_still_win(service: Callable[..., Service]) -> None:
    slow = service(dead=(2,))
    racing = gevent.spawn(raced, [2, 3], slow.port)
    gevent.sleep(ATTEMPT_DELAY * 2)
    assert not racing.ready(), "the second one refused, the first is waited for"
    while not racing.ready():
        # The kernel tries again after a second, and then there is room.
        with contextlib.suppress(BlockingIOError):
            slow.listeners[2].accept()[0].close()
        gevent.sleep(0.05)
    assert racing.get(timeout=0)[0] == 2


def test_the_error_that_tells_most_is_raised(service: Callable[..., Service]) -> None:
    port = service(good=(9,)).port
    nowhere = Address(socket.AF_INET6, "fe80::1")  # without its interface: EINVAL
    for order in ([address(2), nowhere], [nowhere, address(2)]):
        with pytest.raises(ConnectionRefusedError):
            Race(order, port).run()


def test_an_interrupted_race_leaves_nothing_open(service: Callable[..., Service]) -> None:
    port = service(dead=(2, 3, 4)).port
    before = descriptors()
    with gevent.Timeout(2.5 * ATTEMPT_DELAY, False):  # type: ignore[arg-type]
        raced([2, 3, 4], port)
        pytest.fail("nobody answers")
    assert descriptors() == before


class Name:
    """A connector to one name, ``a.name``."""

    def __init__(self, *numbers: int) -> None:
        self.found = [address(number) for number in numbers]
        self.connector = Connector(10, Resolver(10, lambda name: self.found))
        self.stages: list[Stage] = []

    def connect(self, port: int, host: str = "a.name") -> tuple[str, float]:
        """Connect; return the address that was connected to, and how long it took."""
        begun = time.monotonic()
        sock = self.connector.connect(host, port, self.stages.append)
        with contextlib.closing(sock):
            return sock.getpeername()[0], time.monotonic() - begun


def test_the_address_that_worked_is_tried_first_while_it_works(
    service: Callable[..., Service],
) -> None:
    both = service(good=(3, 4), dead=(2,))
    name = Name(2, 3, 4)
    host, elapsed = name.connect(both.port)
    assert (host, elapsed >= ATTEMPT_DELAY) == ("127.0.0.3", True)
    again = [name.connect(both.port) for _ in range(5)]
    assert {host for host, _ in again} == {"127.0.0.3"}
    assert min(elapsed for _, elapsed in again) < ATTEMPT_DELAY
    both.listeners[3].close()
    assert name.connect(both.port)[0] == "127.0.0.4"


def test_it_is_forgotten_when_no_address_works(service: Callable[..., Service]) -> None:
    first, second = service(good=(3,)), service(good=(3,))
    name = Name(2, 3)
    for each in (first, second):
        assert name.connect(each.port)[0] == "127.0.0.3"
    assert len(name.connector._working) == 2, "each port is a service of its own"
    first.listeners[3].close()
    with pytest.raises(ConnectionRefusedError):
        name.connect(first.port)
    assert len(name.connector._working) == 1


def test_it_is_forgotten_when_connecting_takes_too_long(service: Callable[..., Service]) -> None:
    both = service(good=(3,), dead=(4,))
    name = Name(2, 3)
    assert name.connect(both.port)[0] == "127.0.0.3"
    name.connector._working.in_order = lambda *_: [address(4)]  # type: ignore[method-assign]
    with gevent.Timeout(0.1, False):  # type: ignore[arg-type]
        name.connect(both.port)
        pytest.fail("nobody answers")
    assert len(name.connector._working) == 0


def test_one_address_is_connected_to_without_a_race(
    service: Callable[..., Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(connecting, "Race")
    port = service(good=(2,)).port
    name = Name(2)
    assert name.connect(port)[0] == "127.0.0.2"
    assert name.stages == [Stage.LOOK_UP, Stage.CONNECT]
    assert name.connect(port, "127.0.0.2")[0] == "127.0.0.2"
    assert len(name.stages) == 2, "an address is not looked up"


def test_sockets_do_not_block_nor_wait_to_send(service: Callable[..., Service]) -> None:
    port = service(good=(2, 3)).port
    for numbers in ((2,), (2, 3)):
        sock = Name(*numbers).connector.connect("a.name", port, lambda stage: None)
        with contextlib.closing(sock):
            assert sock.gettimeout() == 0.0
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert not os.get_inheritable(sock.fileno())


def test_a_full_queue_of_a_unix_socket_is_waited_for_without_spinning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "full")
    pauses: list[float] = []
    sleep = gevent.sleep

    def noted(seconds: float) -> None:
        pauses.append(seconds)
        sleep(seconds)

    monkeypatch.setattr(gevent, "sleep", noted)
    with swallowing(path) as listener:
        waiting = gevent.spawn(connect_to_unix, path)
        waiting.join(0.5)
        assert not waiting.ready(), "there is no room"
        assert pauses[:4] == [0.005, 0.01, 0.02, 0.04]
        assert max(pauses) == LONGEST_PAUSE
        listener.accept()[0].close()
        waiting.get(timeout=LATER).close()


def test_a_unix_socket_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        connect_to_unix(str(tmp_path / "nothing"))
