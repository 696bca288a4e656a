"""Lines are written whole and at once, or dropped and counted; nobody waits."""

from __future__ import annotations

import fcntl
import logging
import os
import re
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from chp_gevent.runtime import log_output
from chp_gevent.runtime.log_output import WHOLE, Output, whole_pieces
from chp_gevent.runtime.logs import LineHandler
from tests.kit.peers import wait_until

LINE = b"x" * 99 + b"\n"


@pytest.fixture(autouse=True)
def _no_hanging() -> Iterator[None]:
    """End a test that waits in a write: that is what must not be."""
    before = signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(params=["reopened", "spliced"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The ways to write to a pipe; the second is for those that can't be opened once more."""
    if request.param == "spliced":
        really_open = os.open

        def open_no_pipe(path: Any, *arguments: Any) -> int:
            if str(path).startswith("/proc/self/fd/"):
                raise PermissionError(13, "Permission denied")
            return really_open(path, *arguments)

        monkeypatch.setattr(os, "open", open_no_pipe)
    return str(request.param)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """The outlet and the inlet of a pipe that nobody reads."""
    ends = os.pipe()
    yield ends
    for end in ends:
        with suppress(OSError):
            os.close(end)


def fill(output: Output) -> int:
    """Write lines until one is lost; return how many were written."""
    written = 0
    while output.put(LINE):
        written += 1
    return written


def drain(outlet: int) -> bytes:
    """Return what is in a pipe now."""
    found = b""
    while select.select([outlet], [], [], 0)[0]:
        found += os.read(outlet, 65536)
    return found


# -- pipes


def test_a_full_pipe_loses_lines_until_somebody_reads(way: str, pipe: tuple[int, int]) -> None:
    outlet, inlet = pipe
    output = Output(inlet)
    written = fill(output)
    assert written >= 200, "a reader may be somewhat behind"
    assert not output.put(LINE)
    assert output.lost == 2
    assert output.losses() == "2 log lines were dropped: nobody read the log for 1 s"
    assert drain(outlet) == LINE * written
    assert output.put(b"again\n")
    assert drain(outlet) == b"again\n"


def test_what_others_share_stays_as_it_is(way: str, pipe: tuple[int, int]) -> None:
    output = Output(pipe[1])
    output.put(LINE)
    assert not fcntl.fcntl(pipe[1], fcntl.F_GETFL) & os.O_NONBLOCK


def test_a_pipe_without_a_reader_is_an_unread_one(way: str, pipe: tuple[int, int]) -> None:
    output = Output(pipe[1])
    os.close(pipe[0])
    assert not output.put(LINE)
    assert output.losses() == "1 log line was dropped: nobody read the log for 1 s"


def test_a_pipe_that_never_had_a_reader_is_one_too(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    both = os.open(tmp_path / "fifo", os.O_RDWR)
    inlet = os.open(tmp_path / "fifo", os.O_WRONLY)
    os.close(both)
    output = Output(inlet)
    assert not output.put(LINE)
    os.close(inlet)


def test_a_long_line_is_cut_and_says_so(way: str, pipe: tuple[int, int]) -> None:
    output = Output(pipe[1])
    assert output.put(b"y" * 10_000 + b"\n")
    line = drain(pipe[0])
    assert len(line) <= WHOLE
    kept, left = re.fullmatch(rb"(y+) \[(\d+) more bytes\]\n", line).groups()  # type: ignore[union-attr]
    assert len(kept) + int(left) == 10_000


@pytest.mark.parametrize(
    ("text", "most", "pieces"),
    [
        (b"ab\ncd\n", 100, [b"ab\ncd\n"]),
        (b"ab\ncd\nef\n", 6, [b"ab\ncd\n", b"ef\n"]),
        (b"ab\ncd", 4, [b"ab\n", b"cd"]),
        (b"a" * 60 + b"\nb\n", 50, [b"a" * 10 + b" [50 more bytes]\nb\n"]),
        ("é".encode() * 30 + b"\n", 51, ["é".encode() * 5 + b" [50 more bytes]\n"]),
    ],
)
def test_a_long_text_is_written_in_pieces_of_whole_lines(
    text: bytes, most: int, pieces: list[bytes]
) -> None:
    assert list(whole_pieces(text, most)) == pieces


RACERS = 8
RACED_LINES = 3000


@pytest.mark.parametrize("length", [100, 1500, WHOLE])
def test_processes_race_for_the_last_room_of_a_pipe(
    way: str, pipe: tuple[int, int], length: int
) -> None:
    """None waits, though somebody reads just enough for another one; no line is torn."""
    outlet, inlet = pipe
    output = Output(inlet)
    fcntl.fcntl(inlet, log_output._F_SETPIPE_SZ, 4 * WHOLE)
    reports_out, reports_in = os.pipe()
    racers = [forked(race, output, name, length, reports_in) for name in range(RACERS)]
    os.close(reports_in)
    seen = bytearray()
    running = set(racers)
    while running:
        # One page at a time: there is always room for one, and many who want it.
        if select.select([outlet], [], [], 0.01)[0]:
            seen += os.read(outlet, WHOLE)
        running -= {pid for pid in running if os.waitpid(pid, os.WNOHANG)[0]}
    seen += drain(outlet)
    lines = bytes(seen).splitlines(keepends=True)
    pattern = rb"(\d) (\d{4}) x{%d}\n" % (length - 8)
    assert [line for line in lines if not re.fullmatch(pattern, line)] == [], "torn lines"
    with os.fdopen(reports_out, "rb") as reports:
        lost = sum(map(int, reports))
    assert lost > 0, "there was no race"
    assert len(lines) + lost == RACERS * RACED_LINES


def race(output: Output, name: int, length: int, reports: int) -> None:
    """Write lines as fast as possible, then report how many were lost."""
    for number in range(RACED_LINES):
        head = b"%d %04d " % (name, number)
        output.put(head + b"x" * (length - len(head) - 1) + b"\n")
    os.write(reports, b"%d\n" % (output.lost if output.has_losses() else 0))


def forked(function: Callable[..., None], *arguments: Any) -> int:
    """Run a function in a process of its own; return its pid."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            function(*arguments)
            status = 0
        finally:
            os._exit(status)
    return pid


def test_a_forked_process_writes_for_itself_and_forgets_what_its_parent_lost(
    way: str, pipe: tuple[int, int]
) -> None:
    outlet, inlet = pipe
    output = Output(inlet)
    fill(output)
    drain(outlet)

    def child() -> None:
        assert not output.has_losses()
        assert output.put(b"child\n")

    assert os.waitpid(forked(child), 0)[1] == 0
    assert output.has_losses()
    assert output.put(b"parent\n")
    assert drain(outlet) == b"child\nparent\n"


# -- sockets


def test_a_full_socket_loses_lines_until_somebody_reads() -> None:
    theirs, ours = socket.socketpair()
    with theirs, ours:
        output = Output(ours.fileno())
        written = fill(output)
        assert written > 10
        assert ours.getblocking()
        received = b""
        while len(received) < written * len(LINE):
            received += theirs.recv(65536)
        assert received == LINE * written
        assert output.put(b"again\n")
        assert theirs.recv(100) == b"again\n"


@pytest.mark.parametrize("buffer", [1, 20_000])
def test_a_small_buffer_tears_no_line(buffer: int) -> None:
    theirs, ours = socket.socketpair()
    with theirs, ours:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
        output = Output(ours.fileno())
        line = b"z" * 3999 + b"\n"
        while output.put(line):
            pass
        theirs.setblocking(False)
        received = b""
        with suppress(BlockingIOError):
            while True:
                received += theirs.recv(65536)
        assert re.fullmatch(rb"(z+( \[\d+ more bytes\])?\n)+", received)


def test_a_line_that_tcp_takes_a_part_of_ends_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
    with theirs, ours:
        output = Output(ours.fileno())
        written = 0
        while output.put(b"z" * 999 + b"\n"):
            written += 1
        theirs.setblocking(False)
        received = bytearray()

        def taken() -> bool:
            with suppress(BlockingIOError):
                received.extend(theirs.recv(1 << 20))
            return output.put(b"again\n")

        wait_until(taken, 10, "there is room")
        ours.shutdown(socket.SHUT_WR)
        theirs.setblocking(True)
        while data := theirs.recv(1 << 20):
            received += data
        lines = bytes(received).splitlines()
        assert lines[-1] == b"again"
        assert lines[:written] == [b"z" * 999] * written


# -- what is neither


def test_files_take_lines_of_any_length(tmp_path: Path) -> None:
    with open(tmp_path / "log", "wb") as file:
        assert Output(file.fileno()).put(b"y" * 100_000 + b"\n")
    assert (tmp_path / "log").stat().st_size == 100_001


def test_a_full_disk_is_the_reason_that_is_told() -> None:
    with open("/dev/full", "wb") as full:
        output = Output(full.fileno())
        assert not output.put(LINE)
        assert output.losses() == "1 log line was dropped: No space left on device for 1 s"


def test_a_descriptor_that_is_not_open_is_no_error() -> None:
    assert not Output(-1).put(LINE)


# -- the log


def logger_to(descriptor: int) -> logging.Logger:
    """Return a logger that writes to a descriptor."""
    logger = logging.Logger("test", logging.INFO)
    logger.addHandler(LineHandler(descriptor))
    return logger


def messages(data: bytes) -> list[str]:
    """Return logged lines without their time."""
    return [line.split("[ConfigProxy] ")[1] for line in data.decode().splitlines()]


def unread(log: logging.Logger) -> None:
    """Log until lines are lost, and three more."""
    output = log.handlers[0]._output  # type: ignore[attr-defined]
    while not output.lost:
        log.info("x" * 100)
    for _ in range(3):
        log.info("lost")


def test_the_number_of_dropped_lines_comes_before_the_next_one(
    way: str, pipe: tuple[int, int]
) -> None:
    log = logger_to(pipe[1])
    unread(log)
    drain(pipe[0])
    log.info("again")
    log.info("and again")
    count, *others = messages(drain(pipe[0]))
    assert count == "warn: 4 log lines were dropped: nobody read the log for 1 s"
    assert others == ["info: again", "info: and again"]


def test_the_number_of_dropped_lines_does_not_need_another_line(pipe: tuple[int, int]) -> None:
    log = logger_to(pipe[1])
    unread(log)
    log.handlers[0].flush()
    drain(pipe[0])
    log.handlers[0].flush()
    log.handlers[0].flush()
    (count,) = messages(drain(pipe[0]))
    assert count == "warn: 4 log lines were dropped: nobody read the log for 1 s"


def there(left: int) -> None:
    """Fail, behind so many calls."""
    back(left)


def back(left: int) -> float:
    """Be every second of them: of one that repeats itself a traceback shows three."""
    if left == 0:
        return 1 / 0
    there(left - 1)
    return 0.0


def test_a_traceback_is_written_whole(pipe: tuple[int, int]) -> None:
    log = logger_to(pipe[1])
    try:
        there(100)
    except ZeroDivisionError:
        log.exception("it failed")
    text = drain(pipe[0]).decode()
    assert len(text) > 2 * WHOLE
    lines = text.splitlines()
    assert lines[0].endswith("error: it failed")
    assert lines[-1] == "ZeroDivisionError: division by zero"


# -- whatever else is printed

PRINTS = """
import os, sys
from chp_gevent.runtime.log_output import secure_standard_streams
secure_standard_streams()
secure_standard_streams()
for _ in range(30000):
    print("x" * 99)
    print("y" * 99, file=sys.stderr)
import gevent
def fails(): raise RuntimeError("z" * 99)
gevent.joinall([gevent.spawn(fails) for _ in range(50)])
os.write(3, b"came to its end")
"""


@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_what_is_printed_waits_for_nobody(kind: str) -> None:
    if kind == "pipe":
        theirs, ours = os.pipe()
    else:
        theirs, ours = (end.detach() for end in socket.socketpair())
    outlet, inlet = os.pipe()
    command = f"exec 3>&{inlet}; exec {sys.executable} -c '{PRINTS}'"
    done = subprocess.run(
        ["bash", "-c", command], stdout=ours, stderr=ours, pass_fds=[inlet], timeout=50, check=False
    )
    assert done.returncode == 0
    assert os.read(outlet, 100) == b"came to its end"
    assert os.read(theirs, 100).startswith(b"x" * 99)
    for descriptor in (theirs, ours, outlet, inlet):
        os.close(descriptor)


CLOSED = """
import os, sys
from chp_gevent.runtime.log_output import secure_standard_streams
secure_standard_streams()
opened = os.open("/dev/zero", os.O_RDONLY)
print("lost"); print("lost", file=sys.stderr); sys.stdout.flush()
sys.exit(opened if opened > 2 else 1)
"""


def test_closed_standard_descriptors_become_nobody_elses() -> None:
    done = subprocess.run(
        ["bash", "-c", f"exec {sys.executable} -c '{CLOSED}' <&- >&- 2>&-"], timeout=50, check=False
    )
    assert done.returncode > 2
