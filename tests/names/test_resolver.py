"""Names that are not answered for hold nobody else; errors are those of the system."""

from __future__ import annotations

import errno
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import gevent
import pytest

from chp_gevent.names import resolver as module
from chp_gevent.names.addresses import Address
from chp_gevent.names.lookups import PLACES
from chp_gevent.names.resolver import NameUnanswered, Resolver, system_addresses

FOUND = [Address(socket.AF_INET6, "::1"), Address(socket.AF_INET, "127.0.0.1")]
PATIENCE = 0.2


class Names:
    """Looks names up: ``silent…`` hang until ``answered`` is set, ``missing…`` do not exist."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answered = threading.Event()

    def __call__(self, name: str) -> list[Address]:
        self.asked.append(name)
        if name.startswith("silent"):
            self.answered.wait(20)
        if name.startswith("missing"):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        if name == "no descriptors" and self.asked.count(name) == 1:
            raise OSError(errno.EMFILE, "Too many open files")
        return FOUND


@pytest.fixture
def names() -> Iterator[Names]:
    """Answers as the name says; nothing hangs when the test is over."""
    names = Names()
    yield names
    names.answered.set()


@pytest.fixture(autouse=True)
def limit() -> Iterator[None]:
    """Nothing here may take long."""
    with gevent.Timeout(15):
        yield


def results(*greenlets: Any) -> list[Any]:
    """Wait for greenlets and return what each brought, or the exception."""
    gevent.joinall(greenlets)
    return [
        greenlet.value if greenlet.successful() else greenlet.exception for greenlet in greenlets
    ]


def test_many_who_ask_at_once_cause_one_look_up(names: Names) -> None:
    resolver = Resolver(10, names)
    answers = results(*(gevent.spawn(resolver.addresses, "hub") for _ in range(20)))
    assert answers == [tuple(FOUND)] * 20
    assert resolver.addresses("hub") == tuple(FOUND)
    assert names.asked == ["hub"]


def test_names_without_an_answer_do_not_hold_others(names: Names) -> None:
    resolver = Resolver(10, names)
    assert resolver.addresses("hub")
    resolver._lookups._known["hub"].until = 0.0
    silent = [gevent.spawn(resolver.addresses, f"silent{n}") for n in range(2 * PLACES)]
    gevent.sleep(0)
    begun = time.monotonic()
    assert resolver.addresses("hub") == tuple(FOUND)
    assert names.asked.count("hub") == 2
    assert time.monotonic() - begun < 5
    assert not any(greenlet.ready() for greenlet in silent)
    names.answered.set()
    assert results(*silent) == [tuple(FOUND)] * (2 * PLACES)


def test_who_waits_can_be_interrupted_and_the_look_up_serves_the_next(names: Names) -> None:
    resolver = Resolver(10, names)
    with gevent.Timeout(0.05, False):  # type: ignore[arg-type]
        resolver.addresses("silent")
        pytest.fail("it is silent")
    names.answered.set()
    assert resolver.addresses("silent") == tuple(FOUND)
    assert names.asked == ["silent"]


def test_who_asks_for_a_name_that_others_waited_for_in_vain_is_told_at_once(names: Names) -> None:
    resolver = Resolver(PATIENCE, names)
    with gevent.Timeout(PATIENCE + 0.05, False):  # type: ignore[arg-type]
        resolver.addresses("silent")
    begun = time.monotonic()
    with pytest.raises(NameUnanswered):
        resolver.addresses("silent")
    assert time.monotonic() - begun < PATIENCE
    names.answered.set()
    gevent.sleep(0)
    lookup = resolver._lookups._pending.get("silent")
    if lookup is not None:
        lookup.finished.wait()
    assert resolver.addresses("silent") == tuple(FOUND), "its answer counts when it comes"


def test_each_who_asks_gets_an_error_of_its_own(names: Names) -> None:
    resolver = Resolver(10, names)
    caught = results(*(gevent.spawn(resolver.addresses, "missing") for _ in range(2)))
    assert [type(error) for error in caught] == [socket.gaierror] * 2
    assert caught[0] is not caught[1]
    assert caught[0].strerror == "Name or service not known"
    assert names.asked == ["missing"]


def test_that_descriptors_have_run_out_is_not_remembered(names: Names) -> None:
    resolver = Resolver(10, names)
    with pytest.raises(OSError, match="Too many open files") as caught:
        resolver.addresses("no descriptors")
    assert caught.value.errno == errno.EMFILE
    assert resolver.addresses("no descriptors") == tuple(FOUND)


def test_without_a_thread_there_is_an_error_and_the_next_one_tries_again(
    names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolver = Resolver(10, names)

    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(module, "get_original", lambda *_: refuse)
        with pytest.raises(OSError, match="can't start new thread") as caught:
            resolver.addresses("hub")
    assert caught.value.errno == errno.EAGAIN
    assert resolver.addresses("hub") == tuple(FOUND)


def test_the_system_is_asked_and_its_errors_are_passed_on() -> None:
    resolver = Resolver(10)
    assert {address.host for address in resolver.addresses("localhost")} & {"127.0.0.1", "::1"}
    with pytest.raises(UnicodeError):
        resolver.addresses("a" * 64 + ".invalid")
    assert len(system_addresses("localhost")) == len(set(system_addresses("localhost")))
