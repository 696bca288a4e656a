"""Look-ups of names by the system's resolver, in threads of our own.

The system's, because operators mean what it says: /etc/nsswitch.conf with all its modules,
/etc/hosts, search domains, a changed /etc/resolv.conf. gevent's c-ares resolver needs no
threads and a third less CPU for a look-up, but it reads no module of nsswitch, kept to
DNS servers that /etc/resolv.conf had lost, left out an address of a name that /etc/hosts had
two of, and gave another one ::1. Threads of our own, because gevent's ten are for everybody,
and one silent DNS server holds them all.

Imported after monkey patching only.
"""

from __future__ import annotations

import _socket
import encodings.idna  # noqa: F401  (getaddrinfo's, which a thread must not be the first to import)
import errno
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any

import gevent
from gevent.event import Event
from gevent.monkey import get_original

from chp_gevent.names.addresses import Address
from chp_gevent.names.lookups import Answer, Lookup, Lookups
from chp_gevent.runtime.descriptors import NO_DESCRIPTORS

FindAddresses = Callable[[str], Sequence[Address]]


class NameUnanswered(TimeoutError):
    """A name that the resolver does not answer for; ``seconds`` is for how long it has not."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"name look-up timed out after {seconds:.0f} s")
        self.seconds = seconds


def system_addresses(name: str) -> list[Address]:
    """Return the addresses of a name, blocking. Raises ``OSError`` and ``UnicodeError``."""
    found = _socket.getaddrinfo(name, None, 0, socket.SOCK_STREAM)
    sockaddrs: list[tuple[int, Any]] = [(family, sockaddr) for family, *_, sockaddr in found]
    addresses = (
        Address(family, sockaddr[0], sockaddr[3] if family == socket.AF_INET6 else 0)
        for family, sockaddr in sockaddrs
    )
    return list(dict.fromkeys(addresses))


class Resolver:
    """The look-ups of a process; its methods are called in greenlets of one thread.

    Args:
        patience: seconds after which a look-up that is still under way counts as failed for
            whoever asks next.
        find: what looks a name up, in a thread, with the errors of ``getaddrinfo``.
    """

    def __init__(self, patience: float, find: FindAddresses = system_addresses) -> None:
        self._patience = patience
        self._find = find
        self._lookups: Lookups[Any] = Lookups(self._start, Event, time.monotonic)
        self._loop = gevent.get_hub().loop

    def addresses(self, name: str) -> Sequence[Address]:
        """Return the addresses of a name, waiting for them if they are not remembered.

        It waits until the look-up ends, or the caller's ``gevent.Timeout``. Raises what
        ``getaddrinfo`` does, ``OSError`` (``gaierror``) and ``UnicodeError``; ``OSError`` with
        ``EAGAIN`` when there can be no thread; ``NameUnanswered`` when others waited in vain.
        """
        answer = self._lookups.remembered(name) or self._wait(name)
        error = answer.error
        if error is not None:
            # One for each who asks: its traceback would keep their frames while it is remembered.
            raise type(error)(*error.args)
        return answer.addresses

    def _wait(self, name: str) -> Answer:
        lookup = self._lookups.join(name)
        try:
            if lookup.answer is None:
                age = self._lookups.age(lookup)
                if age >= self._patience:
                    raise NameUnanswered(age)
                lookup.finished.wait()
        finally:
            self._lookups.leave(lookup)
        assert lookup.answer is not None
        return lookup.answer

    def _start(self, lookup: Lookup[Any]) -> None:
        ended = self._loop.async_()
        outcome: list[tuple[Answer, float]] = []
        ended.start(self._take, lookup, outcome, ended)
        try:
            start_thread = get_original("_thread", "start_new_thread")
            start_thread(self._run, (lookup.name, outcome, ended.send))
        except RuntimeError as error:
            ended.stop()
            ended.close()
            raise OSError(errno.EAGAIN, str(error)) from error

    def _run(
        self, name: str, outcome: list[tuple[Answer, float]], tell: Callable[[], None]
    ) -> None:
        """Runs in a thread; nothing may be raised here."""
        started = time.monotonic()
        try:
            answer = Answer(tuple(self._find(name)))
        except Exception as error:
            # OSError itself too: without a descriptor, or a module that nsswitch.conf names.
            lasting = getattr(error, "errno", None) not in NO_DESCRIPTORS
            answer = Answer(error=error.with_traceback(None), lasting=lasting)
        outcome.append((answer, time.monotonic() - started))
        tell()

    def _take(self, lookup: Lookup[Any], outcome: list[tuple[Answer, float]], ended: Any) -> None:
        ended.stop()
        ended.close()
        self._lookups.finish(lookup, *outcome[0])
