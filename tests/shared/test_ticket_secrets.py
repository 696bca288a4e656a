"""The secrets of session tickets: shared, replaced, and forgotten."""

from __future__ import annotations

import os

from chp_gevent.shared.ticket_secrets import LIFETIME, TicketSecrets


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_the_next_one_is_known_before_it_is_used_and_the_previous_one_after() -> None:
    clock = Clock()
    secrets = TicketSecrets(clock=clock)
    first = secrets.read()
    assert len(set(first)) == 3
    assert {len(secret) for secret in first} == {32}
    clock.now += LIFETIME - 1
    secrets.replace_if_due()
    assert (secrets.number, secrets.read()) == (0, first)
    clock.now += 2
    secrets.replace_if_due()
    second = secrets.read()
    assert secrets.number == 1
    assert (second.present, second.previous) == (first.next, first.present)
    assert second.next not in first


def test_what_is_not_needed_any_more_is_nowhere() -> None:
    clock = Clock()
    secrets = TicketSecrets(clock=clock)
    seen: set[bytes] = set()
    for _ in range(12):
        present = secrets.read().present
        assert present not in seen
        seen.add(present)
        clock.now += LIFETIME
        secrets.replace_if_due()
        clock.now += LIFETIME
        secrets.replace_if_due()
        assert present not in os.pread(secrets.fd, 4096, 0)


def test_other_processes_and_later_versions_have_the_same() -> None:
    clock = Clock()
    secrets = TicketSecrets(clock=clock)
    before = secrets.read()
    child = os.fork()
    if child == 0:
        clock.now += LIFETIME
        secrets.replace_if_due()
        os._exit(0)
    os.waitpid(child, 0)
    assert secrets.number == 1
    assert secrets.read().previous == before.present
    assert TicketSecrets(os.dup(secrets.fd), clock).read() == secrets.read()
