"""Changes that this server makes: sent together, and confirmed by all servers."""

from __future__ import annotations

import time
from collections import deque
from typing import Final

import gevent
from gevent.event import Event
from gevent.queue import Queue
from redis.exceptions import NoScriptError, ReadOnlyError

from chp_gevent.runtime.tracebacks import log_traceback
from chp_gevent.stores.base import StoreUnavailable, TableFull
from chp_gevent.stores.redis.answers import pairs_of, reason_of
from chp_gevent.stores.redis.link import FAILURES, NotSent
from chp_gevent.stores.redis.position import random_tag
from chp_gevent.stores.redis.replica import Replica, boot_time, unix_ms
from chp_gevent.stores.redis.session import Session

LOG_LENGTH: Final = 10_000
"""So many changes a server may have missed, and need not load the table."""

# Seconds for which a change waits for a server that has just ceased to be current.
_PATIENCE: Final = 2.0
# Seconds after which a change that is on its way must not be made any more: less than the time
# that its sender waits for the answer.
_DEADLINE: Final = 1.9
# Seconds beyond a lease after which a change is not confirmed at all.
_CONFIRM_PATIENCE: Final = 2.0
_LOOK_INTERVAL: Final = 0.25
_MOST_AT_ONCE: Final = 64
_REMEMBERED: Final = 10_000
# What is named in the place of servers before anything may be confirmed.
_FENCE: Final = "?"


class Change:
    """A change on its way.

    Attributes:
        what: ``a`` add, ``n`` add unless there is one, ``d`` delete.
        answered: set when the engine has answered, or will not.
        status: the engine's word; empty if there is none.
        number: of the change, in ``epoch``.
        missing: servers that have not applied it, as far as is known.
        failure: why there is no answer.
        is_unknown: whether it may have been made though there is none.
        was_sent: whether the engine may have it.
    """

    __slots__ = (
        "answered",
        "data",
        "epoch",
        "failure",
        "is_unknown",
        "missing",
        "number",
        "path",
        "status",
        "tag",
        "was_sent",
        "what",
    )

    def __init__(self, what: str, path: str, data: bytes) -> None:
        self.what = what
        self.path = path
        self.data = data
        self.tag = random_tag()
        self.answered = Event()
        self.status = ""
        self.number = 0
        self.epoch = ""
        self.missing: set[str] = set()
        self.failure = ""
        self.is_unknown = False
        self.was_sent = False


class Changes:
    """Makes changes, and waits until they hold everywhere.

    Args:
        replica: this server.
    """

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._queue: Queue[Change] = Queue()
        self._waiting: set[Change] = set()
        self._is_awaited = Event()
        # What each server has told us to have applied of ours, in this epoch.
        self._acks: dict[str, int] = {}
        self._confirmed: deque[tuple[int, str]] = deque(maxlen=_REMEMBERED)

    # -- what the API asks for

    def make(self, what: str, path: str, data: bytes = b"", *, confirm: bool = True) -> bool:
        """Make a change; return False if there was nothing to change.

        Raises ``StoreUnavailable``.
        """
        counts = self._replica.counts
        began = time.monotonic()
        change = Change(what, path, data)
        try:
            while not change.was_sent and not change.failure:
                self._wait_until_current(began)
                change.answered.clear()
                self._queue.put(change)
                change.answered.wait()
            if change.failure:
                raise StoreUnavailable(change.failure)
            if change.status in ("ABSENT", "PRESENT"):
                counts.absent += 1
                return False
            if change.status != "OK":
                raise StoreUnavailable(_refused(change.status))
            if confirm:
                self._confirm(change, began)
        except StoreUnavailable:
            if change.is_unknown:
                counts.unknown += 1
            else:
                counts.failed += 1
            raise
        counts.confirmed += 1
        counts.confirm_seconds += time.monotonic() - began
        self._confirmed.append((change.number, path))
        return True

    def confirmed_after(self, number: int) -> list[str]:
        """Return the paths whose changes, later than that one, were confirmed here."""
        return [path for change, path in self._confirmed if change > number]

    def _wait_until_current(self, now: float) -> None:
        """Wait a moment if this server has been current just now. Raises ``StoreUnavailable``."""
        replica = self._replica
        if not replica.wait_for(
            lambda: replica.session is not None and replica.is_current,
            lambda: (replica.cut_off_at if replica.session is None else now) + _PATIENCE,
        ):
            raise StoreUnavailable(f"this server is not current: {replica.state}")

    def _confirm(self, change: Change, began: float) -> None:
        """Wait until all servers with a lease have a change. Raises ``StoreUnavailable``."""
        replica = self._replica
        deadline = began + replica.options.lease + _CONFIRM_PATIENCE
        self._waiting.add(change)
        self._is_awaited.set()
        try:
            if not replica.wait_for(lambda: self._is_confirmed(change), lambda: deadline):
                change.is_unknown = True
                raise StoreUnavailable(
                    "not confirmed in time, and may hold later; waiting for "
                    + (", ".join(sorted(change.missing)) or replica.state)
                )
        finally:
            self._waiting.discard(change)

    def _is_confirmed(self, change: Change) -> bool:
        """Whether a change holds everywhere. Raises ``StoreUnavailable`` if it never will."""
        replica = self._replica
        if replica.position.epoch != change.epoch:
            if replica.session is None:
                return False
            # The state was provided anew: is the change in it?
            wanted = None if change.what == "d" else change.data
            if replica.table.get(change.path) != wanted:
                change.is_unknown = True
                raise StoreUnavailable("the engine has lost it, or another one has replaced it")
            change.epoch, change.number = replica.position.epoch, replica.position.change
            change.missing = {_FENCE}
            self._is_awaited.set()
        acks = self._acks
        change.missing = {each for each in change.missing if acks.get(each, -1) < change.number}
        return not change.missing and replica.position.change >= change.number

    # -- who has applied what

    def take_ack(self, server: str, number: int) -> None:
        """Take note that a server has applied all changes up to that one."""
        if number > self._acks.get(server, -1):
            self._acks[server] = number

    def forget_acks(self) -> None:
        """Begin anew, in another epoch or with another process of the engine's."""
        self._acks.clear()

    def look(self) -> None:
        """Ask the engine now and then who has a lease, while anybody waits; one look for all."""
        while True:
            self._is_awaited.wait()
            gevent.sleep(_LOOK_INTERVAL)
            if not self._waiting:
                self._is_awaited.clear()
                continue
            session = self._replica.session
            if session is None:
                continue
            epoch = self._replica.position.epoch
            try:
                answer = self._replica.run(session.write, "pending")
            except FAILURES:
                session.close()  # the follower makes another one
                continue
            if answer[0] == b"OK" and epoch == self._replica.position.epoch:
                self._take_look(_servers(answer[1]), epoch)

    def _take_look(self, known: dict[str, int], epoch: str) -> None:
        for server, number in known.items():
            if server != _FENCE:
                self.take_ack(server, number)
        gone: set[str] = set()
        for change in self._waiting:
            if change.epoch != epoch:
                continue
            missing = self._missing(known, change.number)
            gone |= change.missing - missing - known.keys() - {_FENCE}
            change.missing = missing
        for server in sorted(gone):
            self._replica.counts.waited_for_lease += 1
            self._replica.log.warning(
                "Server %s did not answer within its lease of %g s; going on without it",
                server,
                self._replica.options.lease,
            )
        self._replica.tell_watchers()

    def _missing(self, known: dict[str, int], number: int) -> set[str]:
        own = self._replica.id
        return {server for server, have in known.items() if have < number and server != own}

    # -- the sender: changes that wait are sent together

    def send(self) -> None:
        """Send changes as they come."""
        while True:
            batch = [self._queue.get()]
            while len(batch) < _MOST_AT_ONCE and not self._queue.empty():
                batch.append(self._queue.get())
            session = self._replica.session
            try:
                if session is not None:  # else they wait for the next one
                    self._send(session, batch)
            except Exception as error:
                log_traceback(self._replica.log, error)
                _fail(batch, f"{reason_of(error)}; the outcome is unknown", unknown=True)
            for change in batch:
                change.answered.set()

    def _send(self, session: Session, batch: list[Change]) -> None:
        replica = self._replica
        wait = replica.options.replicas_to_wait_for
        epoch = replica.position.epoch
        now = unix_ms()
        # What the engine's clock says when we give up, at the earliest.
        heard_at, engine_ms = replica.clock
        deadline = engine_ms + int((boot_time() + _DEADLINE - heard_at) * 1000)
        commands = [
            replica.command(
                "change", each.what, each.path, each.data, now, each.tag, LOG_LENGTH, deadline
            )
            for each in batch
        ]
        if wait:
            commands.append(("WAIT", wait, 1000))
        try:
            answers = session.write.pipeline(commands)
        except NotSent:
            # They wait for the next session: the follower makes it when it finds this one closed.
            session.close()
            if replica.session is session:
                replica.cut_off()
            return
        except FAILURES as error:
            session.close()
            _fail(batch, f"{reason_of(error)}; the outcome is unknown", unknown=True)
            return
        for change, answer in zip(batch, answers, strict=False):
            change.was_sent, change.epoch = True, epoch
            self._take_answer(session, change, answer)
        if wait and not (isinstance(answers[-1], int) and answers[-1] >= wait):
            have = answers[-1] if isinstance(answers[-1], int) else "no"
            _fail(
                [each for each in batch if each.status == "OK"],
                f"{have} replicas of the engine have it, of {wait} (--storage-wait)",
                unknown=True,
            )

    def _take_answer(self, session: Session, change: Change, answer: object) -> None:
        replica = self._replica
        if isinstance(answer, Exception):
            change.failure = reason_of(answer)
            if isinstance(answer, NoScriptError | ReadOnlyError):
                session.close()
            return
        assert isinstance(answer, list)
        change.status = answer[0].decode()
        if change.status != "OK":
            return
        change.number = int(answer[1])
        change.missing = self._missing(_servers(answer[2]), change.number)
        is_next = change.number == replica.position.change + 1
        if is_next and replica.position.epoch == change.epoch and replica.session is session:
            try:
                replica.apply(
                    change.what != "d", change.path, change.data, change.number, change.tag
                )
            except TableFull:
                # The reader comes to it, too, and says so.
                replica.tell_watchers()


def _servers(flat: list[bytes]) -> dict[str, int]:
    """Return what servers have applied; the fence has applied nothing."""
    if flat == [_FENCE.encode()]:
        return {_FENCE: -1}
    return {server.decode(): int(number) for server, number in pairs_of(flat)}


def _fail(batch: list[Change], why: str, *, unknown: bool = False) -> None:
    for change in batch:
        change.failure = why
        change.is_unknown = unknown


def _refused(status: str) -> str:
    if status == "LATE":
        return "it came to the engine too late"
    return f"the engine's state is not what this server knows ({status})"
