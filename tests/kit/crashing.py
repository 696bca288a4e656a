"""Writers that are killed with SIGKILL at a chosen step, and what must be left of them."""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from chp_gevent.shared.journal import Journal
from chp_gevent.shared.publisher import Publisher
from chp_gevent.shared.segment import Segment

# ("add", path, target) or ("remove", path)
Operation = tuple[str, ...]

# Path -> target: the table as a sequential program would have it.
Model = dict[str, str]


def apply_to_model(model: Model, operation: Operation) -> Model:
    """Return the table after the operation."""
    changed = dict(model)
    if operation[0] == "add":
        changed[operation[1]] = operation[2]
    else:
        changed.pop(operation[1], None)
    return changed


def apply_to_publisher(publisher: Publisher, operation: Operation) -> None:
    """Publish the operation."""
    if operation[0] == "add":
        publisher.add(operation[1], operation[2], data_of(operation[2]))
    else:
        publisher.remove(operation[1])


def data_of(target: str) -> bytes:
    """What the routes of these tests have as data; of varying length."""
    return f'{{"target":"{target}","x":"{"x" * (hash_of(target) % 50)}"}}'.encode()


def hash_of(text: str) -> int:
    """A hash that is the same in every process."""
    return sum(text.encode())


class _Countdown:
    def __init__(self, steps: int) -> None:
        self.steps = steps

    def step(self, dying_act: Callable[[], Any] = lambda: None) -> None:
        self.steps -= 1
        if self.steps < 0:
            dying_act()
            os.kill(os.getpid(), signal.SIGKILL)


class _CountedWords:
    """Stands in for the header of the segment: each store is a step."""

    def __init__(self, words: memoryview[int], countdown: _Countdown) -> None:
        self._words = words
        self._countdown = countdown

    def __getitem__(self, index: int) -> int:
        return self._words[index]

    def __setitem__(self, index: int, value: int) -> None:
        self._countdown.step()
        self._words[index] = value


def _die_after(steps: int, segment: Segment, journal: Journal) -> None:
    """Make this process kill itself when it has changed shared memory ``steps`` times.

    If the next change is a write to the journal, half of it still happens.
    """
    countdown = _Countdown(steps)
    pwrite, ftruncate = os.pwrite, os.ftruncate

    def counted_pwrite(file: int, data: bytes, offset: int) -> int:
        countdown.step(lambda: pwrite(file, data[: len(data) // 2], offset))
        return pwrite(file, data, offset)

    def counted_ftruncate(file: int, length: int) -> None:
        countdown.step()
        ftruncate(file, length)

    os.pwrite, os.ftruncate = counted_pwrite, counted_ftruncate  # type: ignore[assignment]
    words: Any = _CountedWords(segment.words, countdown)
    segment.words = journal.words = words


@dataclass(frozen=True)
class Life:
    """How a writer's life went.

    Attributes:
        answered: the number of operations that returned.
        killed: it died before it had done them all.
    """

    answered: int
    killed: bool


class Writer:
    """A forked process that recovers the table and then carries out operations."""

    def __init__(
        self,
        segment: Segment,
        journal: Journal,
        operations: Callable[[Publisher], Iterable[Operation]],
        die_after: int | None = None,
        compact_at: int = 200,
        clock: Callable[[], float] = lambda: 1.0,
    ) -> None:
        self._answers, answer = os.pipe()
        self.pid = os.fork()
        if self.pid:
            os.close(answer)
            return
        status = 70
        try:
            if die_after is not None:
                _die_after(die_after, segment, journal)
            publisher = Publisher(segment, journal, clock=clock, compact_at=compact_at)
            publisher.recover()
            for operation in operations(publisher):
                apply_to_publisher(publisher, operation)
                os.write(answer, b".")
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)

    def kill(self) -> None:
        """Kill the writer wherever it is."""
        os.kill(self.pid, signal.SIGKILL)

    def end(self) -> Life:
        """Wait for the end of the writer."""
        answered = 0
        while dots := os.read(self._answers, 65536):
            answered += len(dots)
        os.close(self._answers)
        status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        assert status in (0, -signal.SIGKILL), f"the writer failed with status {status}"
        return Life(answered, killed=status != 0)
