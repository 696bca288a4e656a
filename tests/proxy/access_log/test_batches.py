"""The access log is written in batches, and never waited for."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
import pytest

from chp_gevent.http.access_entry import AccessEntry
from chp_gevent.http.peer import Peer
from chp_gevent.proxy.access_log import batches as module
from chp_gevent.proxy.access_log.batches import BATCH, AccessLog, OutputSink
from chp_gevent.proxy.access_log.files import FileSink, check_file
from chp_gevent.runtime.log_output import Output


class Timer:
    """A timer of an event loop that the test lets ring."""

    def __init__(self) -> None:
        self.callback: Callable[[], None] | None = None

    def again(self, callback: Callable[[], None]) -> None:
        self.callback = callback

    def stop(self) -> None:
        self.callback = None

    def ring(self) -> None:
        """Let the time pass, if anybody waits for it."""
        if self.callback is not None:
            self.callback()


class Numbers:
    """Lines that are numbers."""

    def __init__(self) -> None:
        self.number = 0

    def line(self, entry: AccessEntry, most: int) -> str:
        self.number += 1
        return f"{self.number}\n"


class Sink:
    """Keeps batches; ``ready`` is the test's to change."""

    longest = 100

    def __init__(self) -> None:
        self.ready = True
        self.batches: list[list[str]] = []
        self.lost = 0

    def write(self, lines: list[str]) -> None:
        self.batches.append(lines)

    def reopen(self) -> None:
        pass

    def losses(self) -> tuple[int, str]:
        lost, self.lost = self.lost, 0
        return lost, "No space left on device" if lost else ""


ENTRY = AccessEntry(Peer("192.0.2.1", False, True), 0.0)


@pytest.fixture
def sink() -> Sink:
    """What takes the batches of ``access``."""
    return Sink()


@pytest.fixture
def timer() -> Timer:
    """The timer of ``access``."""
    return Timer()


@pytest.fixture
def access(sink: Sink, timer: Timer) -> AccessLog:
    """An access log of numbers."""
    lines: Any = Numbers()
    return AccessLog(lines, sink, timer)


def count(access: AccessLog, requests: int) -> None:
    """Tell of so many requests."""
    for _ in range(requests):
        access(ENTRY)


def test_lines_wait_for_others_but_not_for_long(
    access: AccessLog, sink: Sink, timer: Timer
) -> None:
    count(access, 3)
    assert sink.batches == []
    timer.ring()
    assert sink.batches == [["1\n", "2\n", "3\n"]]
    assert timer.callback is None, "nobody wakes up for nothing"


def test_each_batch_waits_for_as_long(sink: Sink) -> None:
    """With a timer of the event loop, which has its own ideas of being started again."""
    lines: Any = Numbers()
    timer: Any = gevent.get_hub().loop.timer(0.1, 0.1)
    access = AccessLog(lines, sink, timer)
    for number in range(1, 4):
        count(access, 1)
        begun = time.monotonic()
        while len(sink.batches) < number:
            assert time.monotonic() - begun < 10
            gevent.sleep(0.001)
        assert time.monotonic() - begun > 0.08
        assert not timer.active
    timer.close()


def test_many_lines_do_not_wait(access: AccessLog, sink: Sink, timer: Timer) -> None:
    count(access, BATCH)
    assert [len(batch) for batch in sink.batches] == [BATCH]
    assert timer.callback is None


def test_lines_wait_while_the_file_takes_its_time(
    access: AccessLog, sink: Sink, timer: Timer
) -> None:
    sink.ready = False
    count(access, 2 * BATCH)
    timer.ring()
    assert sink.batches == []
    sink.ready = True
    timer.ring()
    assert [len(batch) for batch in sink.batches] == [2 * BATCH]


def test_too_many_that_wait_are_dropped_and_told(
    access: AccessLog,
    sink: Sink,
    monkeypatch: pytest.MonkeyPatch,
    log: logging.Logger,
    lines: list[str],
) -> None:
    monkeypatch.setattr(module, "log", log)
    monkeypatch.setattr(module, "MOST_WAITING", 10)
    sink.ready = False
    count(access, 13)
    access.look_after(0.0)
    assert lines == ["warn: 3 lines of the access log were dropped: it is written too slowly"]
    count(access, 4)
    access.look_after(1.0)
    assert len(lines) == 1, "not once a second"
    sink.lost = 5
    access.look_after(20.0)
    assert lines[1:] == ["warn: 9 lines of the access log were dropped: No space left on device"]
    access.look_after(40.0)
    assert len(lines) == 2


def test_the_last_lines_are_written_at_the_end(access: AccessLog, sink: Sink, timer: Timer) -> None:
    count(access, 2)
    access.close()
    assert sink.batches == [["1\n", "2\n"]]
    assert timer.callback is None


def test_the_end_does_not_wait_for_a_file_that_hangs(
    access: AccessLog, sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LAST_WRITE", 0.05)
    sink.ready = False
    count(access, 2)
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        if threading.Event().wait(seconds):
            slept.append(seconds)

    access.close(sleep=sleep)
    assert sink.batches == []


# -- standard output


def test_each_line_that_standard_output_does_not_take_is_counted() -> None:
    outlet, inlet = os.pipe()
    try:
        output = Output(inlet)
        while output.put(b"x" * 4096):
            pass
        output.lost = 0
        OutputSink(output).write(["y" * 1000 + "\n"] * 10)
        assert output.lost == 10
    finally:
        os.close(outlet)
        os.close(inlet)


# -- files


def at_once(function: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    """Run what would run in a thread."""
    function(*arguments)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The file of the access log."""
    return tmp_path / "access.log"


@pytest.fixture
def file(path: Path) -> FileSink:
    """What writes to it, without a thread."""
    return FileSink(str(path), at_once)


def test_a_file_is_appended_to_and_not_everybody_s_to_read(file: FileSink, path: Path) -> None:
    path.touch(0o600)
    path.write_text("before\n")
    file.write(["one\n", "two\n"])
    assert path.read_text() == "before\none\ntwo\n"
    path.unlink()
    check_file(str(path))
    assert path.stat().st_mode & 0o137 == 0


def test_a_renamed_file_gets_no_more_lines(file: FileSink, path: Path) -> None:
    file.write(["old\n"])
    path.rename(f"{path}.1")
    path.touch()  # as logrotate's "create" does
    file.write(["new\n"])
    assert path.read_text() == "new\n"
    assert Path(f"{path}.1").read_text() == "old\n"


def test_a_missing_file_is_made_anew_but_not_at_once(
    file: FileSink, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the renaming and the making of a new file by logrotate, it must not be made."""
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    file.write(["1\n"])
    path.rename(f"{path}.1")
    file.write(["2\n"])
    assert not path.exists()
    now = 101.5
    file.write(["3\n"])
    assert path.read_text() == "3\n"
    assert Path(f"{path}.1").read_text() == "1\n2\n"


def test_a_file_is_opened_anew_when_told_so_even_if_there_is_nothing_to_write(
    file: FileSink, path: Path
) -> None:
    file.write(["1\n"])
    path.rename(f"{path}.1")
    file.reopen()
    assert not path.exists()
    assert file.losses() == (0, "")
    assert path.read_text() == ""
    file.write(["2\n"])
    assert path.read_text() == "2\n"


def test_lines_that_can_not_be_written_are_counted(file: FileSink, path: Path) -> None:
    path.mkdir()
    file.write(["1\n", "2\n"])
    assert file.losses() == (2, "Is a directory")
    assert file.losses()[0] == 0
    path.rmdir()
    file.write(["3\n"])
    assert path.read_text() == "3\n"


def test_a_full_disk_tears_no_line(
    file: FileSink, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write
    room = 6

    def limited(descriptor: int, data: bytes) -> int:
        nonlocal room
        if not room:
            raise OSError(28, "No space left on device")
        written = write(descriptor, data[:room])
        room -= written
        return written

    monkeypatch.setattr(os, "write", limited)
    file.write(["abc\n", "def\n", "ghi\n"])
    assert file.losses() == (2, "No space left on device")
    file.write(["jkl\n"])
    assert file.losses() == (1, "No space left on device")
    room = 100
    file.write(["mno\n"])
    assert path.read_text() == "abc\nde\nmno\n"


@pytest.fixture
def fifo(path: Path) -> Path:
    """A named pipe in the place of the file."""
    os.mkfifo(path)
    return path


def test_a_named_pipe_is_not_waited_for(file: FileSink, fifo: Path) -> None:
    check_file(str(fifo))
    file.write(["1\n"])
    assert file.losses()[0] == 1
    outlet = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        file.write(["2\n"])
        assert os.read(outlet, 100) == b"2\n"
        file.write(["x" * 999 + "\n"] * 1000)  # more than it takes
        lost, reason = file.losses()
        assert 0 < lost <= 1000
        assert reason == os.strerror(11)
    finally:
        os.close(outlet)


def test_a_thread_writes_while_the_process_goes_on(path: Path) -> None:
    begun, may_end, ended = threading.Event(), threading.Event(), threading.Event()

    def start(function: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        def run() -> None:
            begun.set()
            assert may_end.wait(10)
            function(*arguments)
            ended.set()

        threading.Thread(target=run).start()

    file = FileSink(str(path), start)
    file.write(["1\n"])
    assert begun.wait(10)
    assert not file.ready
    may_end.set()
    assert ended.wait(10)
    assert file.ready
    assert path.read_text() == "1\n"


def test_no_thread_means_that_lines_are_lost_and_told(path: Path) -> None:
    def fail(function: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        raise RuntimeError("can't start new thread")

    file = FileSink(str(path), fail)
    file.write(["1\n", "2\n"])
    assert file.ready
    assert file.losses() == (2, "can't start new thread")


@pytest.mark.parametrize(
    ("name", "reason"), [("missing/access.log", "No such file or directory"), (".", "Is a dir")]
)
def test_a_file_that_can_not_be_written_is_found_at_start(
    tmp_path: Path, name: str, reason: str
) -> None:
    with pytest.raises(OSError, match=reason):
        check_file(str(tmp_path / name))
