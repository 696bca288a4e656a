"""The journal: every change of the routing table, in memory that the arbiter keeps alive.

Two memory files without a name, inherited over ``fork``, of which one is active. They are
read and written, never mapped, so that they don't count as memory of any process. The
writer appends records (``messages.py``) to the active file. When too much of it is
garbage, it compacts: it writes the table, the *snapshot*, into the other file and makes
that one the active file. The number of compactions is the *epoch*; file ``epoch & 1`` is
active.

The truth is in these words of the segment (those with * exist once per file):

=================  ====================================================================
generation         the number of changes since the server started
epoch              the number of compactions
oldest_epoch       epochs before this one can't be read: their file is, or is about to
                   be, overwritten
base_generation*   the generation of the file's snapshot
base_offset*       where the snapshot ends; after it, each record is one change
end*               the end of what is committed: bytes behind it don't exist
=================  ====================================================================

The writer may be killed between any two of its steps, in the middle of a write too:

- *append*: write the record at ``end``; raise ``end``, which commits it; raise
  ``generation``, which tells the readers. Killed before ``end``: nothing happened. Killed
  after it: the change is made, and who recovers raises ``generation``.
- *compact*: raise ``oldest_epoch`` to the present epoch, which takes the other file from
  its readers; write the snapshot into it; set its three words; raise ``epoch``. Killed
  before ``epoch``: the active file is still the whole truth.

A reader follows the active file from where it stands. After a compaction it reads the
old file to its end and goes on behind the new file's snapshot, which tells it nothing
new. If it is so late that its file may have been overwritten, it starts over with the
snapshot of the active file. What it read counts only if ``oldest_epoch`` shows,
*afterwards*, that the file was its own all the time.

This relies on stores becoming visible in the order in which they were made: so on x86-64.
ARM64 does not promise it, but there are a system call and thousands of instructions
between any two stores here whose order matters.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from typing import Final, NamedTuple

from chp_gevent.shared import records as messages
from chp_gevent.shared.memory_file import memory_file
from chp_gevent.shared.segment import (
    BASE_GENERATION,
    BASE_OFFSET,
    END,
    EPOCH,
    GENERATION,
    OLDEST_EPOCH,
    Segment,
)

BLOCK_BYTES: Final = 1024 * 1024
_NAME: Final = "chp-gevent-journal"


class JournalDamaged(RuntimeError):
    """The journal breaks its own rules: a bug, or someone else wrote into its memory."""


class Journal:
    """The two files and the words that belong to them; make it before forking.

    Args:
        segment: the segment with the words.
        files: descriptors of files that there are already, with what is in them.

    Attributes:
        words: the header of the segment.
        files: descriptors of the two files.
    """

    def __init__(self, segment: Segment, files: tuple[int, int] | None = None) -> None:
        self.words = segment.words
        self.files = files or (memory_file(_NAME), memory_file(_NAME))

    def give_up_writing(self) -> None:
        """Keep the files in this process for reading only.

        That protects the journal from mistakes: a write to a wrong descriptor, in whatever code
        a worker runs, fails. Against intent nothing of this kind would help: whoever may open a
        file may open it again. Where there is no ``/proc`` the files stay as they are.
        """
        for file in self.files:
            with contextlib.suppress(OSError):
                reading = os.open(f"/proc/self/fd/{file}", os.O_RDONLY | os.O_CLOEXEC)
                os.dup2(reading, file, inheritable=False)
                os.close(reading)

    def close(self) -> None:
        """Close the files in this process; the memory goes with the last process's."""
        for file in self.files:
            os.close(file)


class JournalWriter:
    """Appends changes; there must be one process at a time that has one.

    Attributes:
        generation: the number of the last change.
        size: bytes in the active file, live ones and garbage.
    """

    def __init__(self, journal: Journal) -> None:
        self._words = journal.words
        self._files = journal.files
        self.generation = self._words[GENERATION]
        self._open_active_file()

    def _open_active_file(self) -> None:
        active = self._words[EPOCH] & 1
        self._file = self._files[active]
        self._end_word = END + active
        self.size = self._words[self._end_word]

    def resume_at(self, generation: int) -> None:
        """Go on behind a writer that died, perhaps before it had raised ``generation``."""
        self.generation = self._words[GENERATION] = generation

    def append(self, record: bytes) -> None:
        """Publish one change.

        Raises:
            OSError: the file can't grow; nothing has changed.
        """
        end = self.size
        _write_all(self._file, record, end)
        self.size = self._words[self._end_word] = end + len(record)
        self.generation = self._words[GENERATION] = self.generation + 1

    def compact(self, snapshot: Iterable[bytes]) -> None:
        """Go on in the other file, which begins with ``snapshot``.

        Args:
            snapshot: an ``Add`` record for each route there is now.

        Raises:
            OSError: the file can't grow; nothing has changed.
        """
        words = self._words
        epoch = words[EPOCH]
        other = (epoch + 1) & 1
        file = self._files[other]
        words[OLDEST_EPOCH] = epoch
        os.ftruncate(file, 0)
        end = 0
        try:
            for block in _blocks(snapshot):
                _write_all(file, block, end)
                end += len(block)
        except OSError:
            os.ftruncate(file, 0)
            raise
        words[BASE_GENERATION + other] = self.generation
        words[BASE_OFFSET + other] = end
        words[END + other] = end
        words[EPOCH] = epoch + 1
        self._open_active_file()


def _blocks(records: Iterable[bytes]) -> Iterable[bytes]:
    """Join records to blocks that are worth a system call."""
    waiting: list[bytes] = []
    size = 0
    for record in records:
        waiting.append(record)
        size += len(record)
        if size >= BLOCK_BYTES:
            yield b"".join(waiting)
            waiting.clear()
            size = 0
    yield b"".join(waiting)


def _write_all(file: int, data: bytes, offset: int) -> None:
    written = os.pwrite(file, data, offset)
    while written < len(data):
        written += os.pwrite(file, data[written:], offset + written)


class Batch(NamedTuple):
    """Some records that follow each other.

    Attributes:
        records: without their lengths, for ``messages.decode``.
        starts_over: these are the first records of the whole table; what the reader
            knew before is void.
    """

    records: list[memoryview[int]]
    starts_over: bool


class JournalReader:
    """Reads what is new since it last did; any number of processes may have one.

    Attributes:
        generation: the number of the last change that was read; while the reader is in a
            snapshot, what it was before.
    """

    def __init__(self, journal: Journal) -> None:
        self._words = journal.words
        self._files = journal.files
        self.generation = 0
        self._start_over()

    def _start_over(self) -> None:
        """Stand at the beginning of the active file, whose snapshot is the whole table."""
        self._stand_behind_snapshot(self._words[EPOCH])
        self._offset = 0
        self._starts_over = True

    def _stand_behind_snapshot(self, epoch: int) -> None:
        file = epoch & 1
        self._epoch = epoch
        self._file = self._files[file]
        self._end_word = END + file
        # The generation at ``_offset``, if that is behind the snapshot.
        self._generation_here = self._words[BASE_GENERATION + file]
        self._offset = self._snapshot_end = self._words[BASE_OFFSET + file]
        self._read_size = BLOCK_BYTES

    def read(self) -> Batch | None:
        """Return the next records, about 1 MiB of them at most, or None if there are none.

        Raises:
            JournalDamaged: there is no whole record where one must be.
        """
        words = self._words
        while True:
            # The epoch is read first: if it is not ours any more, then the end, read
            # after it, is where our file ends for good.
            epoch = words[EPOCH]
            end = words[self._end_word]
            if self._offset < self._snapshot_end:
                end = self._snapshot_end
            size = min(end - self._offset, self._read_size)
            data = os.pread(self._file, size, self._offset) if size > 0 else b""
            if words[OLDEST_EPOCH] > self._epoch:
                self._start_over()
            elif size > 0:
                records = self._accept(data, size, end - self._offset)
                if records:
                    return self._batch(records)
            elif epoch != self._epoch:
                self._stand_behind_snapshot(self._epoch + 1)
            elif self._starts_over:
                return self._batch([])
            else:
                return None

    def _accept(self, data: bytes, size: int, available: int) -> list[memoryview[int]]:
        """Move behind the whole records in ``data``; if there are none, read more next.

        Args:
            data: what was read at the reader's place.
            size: how much was asked for.
            available: how much there must be.
        """
        records, taken = messages.split(data)
        if records:
            if self._offset >= self._snapshot_end:
                self._generation_here += len(records)
            self._offset += taken
            self._read_size = BLOCK_BYTES
        else:
            self._read_size = messages.needed(data)
            if len(data) < size or not size < self._read_size <= available:
                raise JournalDamaged(f"no record at offset {self._offset} of epoch {self._epoch}")
        return records

    def _batch(self, records: list[memoryview[int]]) -> Batch:
        batch = Batch(records, self._starts_over)
        self._starts_over = False
        if self._offset >= self._snapshot_end:
            self.generation = self._generation_here
        return batch
