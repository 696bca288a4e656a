"""The journal by itself: batches of records, snapshots, and what a reader may count on."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator

import pytest

from chp_gevent.shared import journal as journal_module
from chp_gevent.shared import records as messages
from chp_gevent.shared.journal import Journal, JournalDamaged, JournalReader, JournalWriter
from chp_gevent.shared.records import Add, Remove
from chp_gevent.shared.segment import END, EPOCH, OLDEST_EPOCH, Segment


@pytest.fixture
def journal() -> Iterator[Journal]:
    journal = Journal(Segment(rows=1, routes=1))
    yield journal
    journal.close()


def record(number: int) -> bytes:
    return messages.encode(Add(f"/{number}", "http://t", number, b"{}"))


def numbers(reader: JournalReader) -> list[int]:
    """Everything that is new to the reader, by the numbers given to ``record``."""
    read: list[int] = []
    while (batch := reader.read()) is not None:
        if batch.starts_over:
            read.clear()
        for change in map(messages.decode, batch.records):
            assert isinstance(change, Add)
            read.append(change.slot)
    return read


def test_readers_read_each_record_once_and_independently(journal: Journal) -> None:
    writer, first, second = JournalWriter(journal), JournalReader(journal), JournalReader(journal)
    assert numbers(first) == []
    writer.append(record(1))
    assert numbers(first) == [1]
    writer.append(record(2))
    writer.append(record(3))
    assert numbers(first) == [2, 3]
    assert numbers(second) == [1, 2, 3]
    assert first.generation == second.generation == writer.generation == 3


def test_the_first_batch_of_a_reader_starts_over_and_no_other(journal: Journal) -> None:
    writer, reader = JournalWriter(journal), JournalReader(journal)
    for number in range(3):
        writer.append(record(number))
        batch = reader.read()
        assert batch is not None
        assert batch.starts_over is (number == 0)


def test_what_is_not_committed_is_not_read(journal: Journal) -> None:
    writer, reader = JournalWriter(journal), JournalReader(journal)
    writer.append(record(1))
    os.pwrite(journal.files[0], record(2), writer.size)
    assert numbers(reader) == [1]


def test_a_late_reader_of_the_old_file_reads_it_to_its_end(journal: Journal) -> None:
    writer, reader = JournalWriter(journal), JournalReader(journal)
    writer.append(record(1))
    assert numbers(reader) == [1]
    writer.append(record(2))
    writer.compact([record(1), record(2)])
    writer.append(record(3))
    assert numbers(reader) == [2, 3]


def test_a_reader_whose_file_is_overwritten_starts_over(journal: Journal) -> None:
    writer, reader = JournalWriter(journal), JournalReader(journal)
    writer.append(record(1))
    assert numbers(reader) == [1]
    writer.compact([record(1)])
    writer.append(record(2))
    writer.compact([record(1), record(2)])
    writer.append(record(3))
    assert journal.words[OLDEST_EPOCH] == 1
    assert numbers(reader) == [1, 2, 3]


def test_a_snapshot_counts_as_read_only_when_it_is_read_to_its_end(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "BLOCK_BYTES", 2 * len(record(0)))
    writer = JournalWriter(journal)
    for number in range(6):
        writer.append(record(number))
    writer.compact(map(record, range(6)))
    writer.append(record(6))
    reader = JournalReader(journal)
    generations = []
    while reader.read() is not None:
        generations.append(reader.generation)
    assert generations == [0, 0, 6, 7]


def test_a_record_longer_than_a_block_is_read_whole(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "BLOCK_BYTES", 10)
    writer, reader = JournalWriter(journal), JournalReader(journal)
    for number in range(4):
        writer.append(messages.encode(Add("/x" * number * 20, "", number, b"")))
    assert numbers(reader) == [0, 1, 2, 3]


def test_a_batch_is_about_a_block(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "BLOCK_BYTES", 100)
    writer, reader = JournalWriter(journal), JournalReader(journal)
    for number in range(50):
        writer.append(record(number))
    sizes = []
    while (batch := reader.read()) is not None:
        sizes.append(sum(map(len, batch.records)))
    assert sum(sizes) > 100
    assert max(sizes) <= 100


def test_a_new_writer_goes_on_where_the_old_one_was(journal: Journal) -> None:
    reader = JournalReader(journal)
    for number in range(4):
        writer = JournalWriter(journal)
        writer.append(record(number))
        if number == 1:
            writer.compact([record(0), record(1)])
    assert numbers(reader) == [0, 1, 2, 3]


def test_the_old_file_keeps_its_content_until_the_next_compaction(journal: Journal) -> None:
    writer = JournalWriter(journal)
    writer.append(record(1))
    writer.compact([record(1)])
    assert os.pread(journal.files[0], 1000, 0) == record(1)
    writer.compact([])
    assert os.pread(journal.files[0], 1000, 0) == b""
    assert journal.words[EPOCH] == 2


@pytest.mark.parametrize("wrong_end", [1, 3, 5, 10_000])
def test_an_end_that_is_not_the_end_of_a_record_is_an_error(
    journal: Journal, wrong_end: int
) -> None:
    JournalWriter(journal).append(record(1))
    journal.words[END] = wrong_end
    reader = JournalReader(journal)
    with pytest.raises(JournalDamaged):
        numbers(reader)


def test_overwritten_records_are_an_error_and_no_endless_loop(journal: Journal) -> None:
    writer = JournalWriter(journal)
    for number in range(3):
        writer.append(record(number))
    os.ftruncate(journal.files[0], len(record(0)))
    reader = JournalReader(journal)
    assert reader.read() is not None
    with pytest.raises(JournalDamaged):
        reader.read()


def test_the_files_have_no_name(journal: Journal) -> None:
    for file in journal.files:
        assert os.fstat(file).st_nlink == 0
        assert not os.get_inheritable(file)


def test_a_system_without_memory_files_gets_unlinked_ones(
    monkeypatch: pytest.MonkeyPatch, tmp_path: os.PathLike[str]
) -> None:
    monkeypatch.delattr(os, "memfd_create")
    monkeypatch.setattr(tempfile, "tempdir", os.fspath(tmp_path))
    journal = Journal(Segment(rows=1, routes=1))
    assert os.listdir(tmp_path) == []
    writer, reader = JournalWriter(journal), JournalReader(journal)
    writer.append(record(1))
    writer.compact([record(1)])
    writer.append(record(2))
    assert numbers(reader) == [1, 2]
    journal.close()


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_the_journal_is_no_resident_memory_of_its_readers(journal: Journal) -> None:
    writer = JournalWriter(journal)
    big = messages.encode(Add("/big", "http://t", 0, b"x" * 1_000_000))
    for _ in range(30):
        writer.append(big)

    def resident() -> int:
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    before = resident()
    reader = JournalReader(journal)
    while reader.read() is not None:
        pass
    assert resident() - before < 10_000_000


def test_a_removal_is_a_record_too(journal: Journal) -> None:
    JournalWriter(journal).append(messages.encode(Remove("/a")))
    batch = JournalReader(journal).read()
    assert batch is not None
    assert [messages.decode(record) for record in batch.records] == [Remove("/a")]


@pytest.mark.parametrize("memory_files", [True, False])
def test_who_gives_up_writing_still_reads_what_others_write(
    monkeypatch: pytest.MonkeyPatch, memory_files: bool
) -> None:
    if not memory_files:
        monkeypatch.delattr(os, "memfd_create", raising=False)
    journal = Journal(Segment(rows=1, routes=1))
    writer = JournalWriter(journal)
    writer.append(record(1))
    # A worker has descriptors of its own, with the same numbers.
    kept = [os.dup(file) for file in journal.files]
    journal.give_up_writing()
    for file in journal.files:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.write(file, b"x")
        assert not os.get_inheritable(file)
    writer._files, writer._file = tuple(kept), kept[0]  # type: ignore[assignment]
    reader = JournalReader(journal)
    writer.append(record(2))
    batch = reader.read()
    assert batch is not None
    assert len(batch.records) == 2
    for file in kept:
        os.close(file)
    journal.close()
