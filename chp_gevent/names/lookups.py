"""Which look-ups of names run, which wait, and what is remembered of them. Pure.

A look-up can't be broken off: ``getaddrinfo`` holds its thread for as long as it likes, 10 s
and more where a DNS server is silent. So threads are few, each name has one look-up at a time,
and names that have not proved that they are answered promptly never take the last places.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from chp_gevent.names.addresses import Address

# Seconds for which an answer counts. Addresses change where containers come and go, and
# whoever asks more often than this should not pay for a look-up each time.
ANSWER_LIFETIME = 5.0
# The same for a failure: a name that has just been made is found, and a storm of requests to
# one that is missing makes one look-up a second.
FAILURE_LIFETIME = 1.0
# A look-up within so many seconds is a prompt one. glibc asks again after 5 s without an answer.
PROMPT = 1.0

# Look-ups that run at once, a thread each (some 20 KB resident while it lasts).
PLACES = 64
# How many of the places are left to names whose last look-up was prompt.
RESERVED_PLACES = 16
# Names that are remembered, if only for having been prompt; some 0.5 KB each.
MAX_NAMES = 4096


class Signal(Protocol):
    """What a look-up's waiters wait for, such as gevent's ``Event``."""

    def set(self) -> None:
        """Wake them all."""


S = TypeVar("S", bound=Signal)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a look-up brought: addresses in the system's order of preference, or an error.

    An answer that is not ``lasting`` is for those who waited for it only: no thread or no
    descriptor could be had, which says nothing about the name.
    """

    addresses: tuple[Address, ...] = ()
    error: Exception | None = None
    lasting: bool = True


@dataclass(slots=True, eq=False)
class Lookup(Generic[S]):
    """A look-up that waits for a place or runs; ``begun`` is when it was first asked for."""

    name: str
    begun: float
    finished: S
    proven: bool
    waiters: int = 0
    running: bool = False
    answer: Answer | None = None


@dataclass(slots=True)
class _Known:
    answer: Answer
    until: float
    prompt: bool


@dataclass(slots=True)
class _Queues(Generic[S]):
    """Look-ups without a place, the oldest first: of proven names, and of all others."""

    proven: deque[Lookup[S]] = field(default_factory=deque)
    others: deque[Lookup[S]] = field(default_factory=deque)


class Lookups(Generic[S]):
    """The look-ups of one process.

    Args:
        start: has a thread look a name up, which ends with a call of :meth:`finish`; it may
            raise ``OSError`` when there can be no thread.
        new_signal: makes what the waiters of one look-up wait for.
        clock: monotonic time in seconds.
    """

    def __init__(
        self,
        start: Callable[[Lookup[S]], None],
        new_signal: Callable[[], S],
        clock: Callable[[], float],
    ) -> None:
        self._start = start
        self._new_signal = new_signal
        self._clock = clock
        self._known: dict[str, _Known] = {}
        self._pending: dict[str, Lookup[S]] = {}
        self._queues: _Queues[S] = _Queues()
        self._running = 0
        self._unproven_running = 0

    @property
    def running(self) -> int:
        """How many look-ups run."""
        return self._running

    def remembered(self, name: str) -> Answer | None:
        """Return what is known about a name, None if it has to be looked up."""
        known = self._known.get(name)
        return known.answer if known is not None and self._clock() < known.until else None

    def join(self, name: str) -> Lookup[S]:
        """Return the look-up of a name, a new one if there is none, and wait with its others.

        Its ``answer`` is there when its signal has been set. Each call is paired with one of
        :meth:`leave`.
        """
        lookup = self._pending.get(name)
        if lookup is None:
            known = self._known.get(name)
            proven = known is not None and known.prompt
            lookup = Lookup(name, self._clock(), self._new_signal(), proven)
            self._pending[name] = lookup
            (self._queues.proven if proven else self._queues.others).append(lookup)
            self._fill_places()
        lookup.waiters += 1
        return lookup

    def leave(self, lookup: Lookup[S]) -> None:
        """Wait no longer. What nobody waits for is not begun; what runs goes on."""
        lookup.waiters -= 1
        if not lookup.waiters and not lookup.running and lookup.answer is None:
            del self._pending[lookup.name]
            (self._queues.proven if lookup.proven else self._queues.others).remove(lookup)

    def age(self, lookup: Lookup[S]) -> float:
        """Return for how many seconds a look-up has been under way."""
        return self._clock() - lookup.begun

    def finish(self, lookup: Lookup[S], answer: Answer, took: float) -> None:
        """Take the answer of a look-up that ran for ``took`` seconds, and start those in line."""
        lookup.running = False
        self._running -= 1
        self._unproven_running -= not lookup.proven
        self._conclude(lookup, answer, prompt=took <= PROMPT)
        self._fill_places()

    def _conclude(self, lookup: Lookup[S], answer: Answer, *, prompt: bool) -> None:
        name = lookup.name
        del self._pending[name]
        if answer.lasting:
            self._known.pop(name, None)
            if len(self._known) >= MAX_NAMES:
                del self._known[next(iter(self._known))]
            lifetime = FAILURE_LIFETIME if answer.error else ANSWER_LIFETIME
            self._known[name] = _Known(answer, self._clock() + lifetime, prompt)
        lookup.answer = answer
        lookup.finished.set()

    def _fill_places(self) -> None:
        queues = self._queues
        while self._running < PLACES:
            if queues.proven:
                self._run(queues.proven.popleft())
            elif queues.others and self._unproven_running < PLACES - RESERVED_PLACES:
                self._run(queues.others.popleft())
            else:
                return

    def _run(self, lookup: Lookup[S]) -> None:
        try:
            self._start(lookup)
        except OSError as error:
            self._conclude(lookup, Answer(error=error, lasting=False), prompt=False)
            return
        lookup.running = True
        self._running += 1
        self._unproven_running += not lookup.proven
