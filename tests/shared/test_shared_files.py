"""Contents of files that the arbiter shows its children."""

from __future__ import annotations

import os

import pytest

from chp_gevent.shared.shared_files import MOST_BYTES, SharedFiles


def test_a_child_reads_what_was_written_before_and_after_the_fork() -> None:
    files = SharedFiles("test")
    assert files.read() == (0, {})
    files.write({"/a": b"one", "/b": b""})
    child = os.fork()
    if child == 0:
        os._exit(0 if files.read() == (1, {"/a": b"one", "/b": b""}) else 1)
    assert os.waitpid(child, 0)[1] == 0
    reading, done = os.pipe()
    child = os.fork()
    if child == 0:
        os.read(reading, 1)
        os._exit(0 if files.read() == (2, {"/a": b"two" * 100}) else 1)
    files.write({"/a": b"two" * 100})
    os.write(done, b"x")
    assert os.waitpid(child, 0)[1] == 0
    os.close(reading)
    os.close(done)


def test_contents_that_are_too_long_change_nothing() -> None:
    files = SharedFiles("test")
    files.write({"/a": b"one"})
    with pytest.raises(OSError, match="bytes together"):
        files.write({"/a": bytes(MOST_BYTES)})
    assert files.read() == (1, {"/a": b"one"})


def test_each_write_is_another_number() -> None:
    files = SharedFiles("test")
    for number in range(1, 6):
        files.write({"/a": bytes([number]) * (7 - number)})
        assert files.read() == (number, {"/a": bytes([number]) * (7 - number)})
