"""The pid file: whole when it is there, and nobody else's."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from chp_gevent.master.pid_file import PidFile


def test_it_holds_the_id_of_this_process_until_it_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "proxy.pid"
    file = PidFile(str(path))
    file.write()
    assert path.read_text() == str(os.getpid())
    file.remove()
    assert list(tmp_path.iterdir()) == []


def test_nobody_ever_finds_it_empty(tmp_path: Path) -> None:
    path = tmp_path / "proxy.pid"
    path.write_text("999999")
    found, done = set(), threading.Event()

    def look() -> None:
        while not done.is_set():
            found.add(path.read_text())

    watcher = threading.Thread(target=look)
    watcher.start()
    file = PidFile(str(path))
    for _ in range(300):
        file.write()
    done.set()
    watcher.join()
    assert found <= {"999999", str(os.getpid())}


@pytest.mark.parametrize("mask", [0, 0o007, 0o022, 0o077])
def test_others_may_read_it_unless_the_umask_says_no_and_never_write_to_it(
    tmp_path: Path, mask: int
) -> None:
    before = os.umask(mask)
    try:
        PidFile(str(tmp_path / "proxy.pid")).write()
        assert os.umask(mask) == mask
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "proxy.pid").stat().st_mode) == 0o644 & ~mask


def test_the_file_of_another_process_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "proxy.pid"
    file = PidFile(str(path))
    file.remove()
    file.write()
    for content in ("1", "", "not a number"):
        path.write_text(content)
        file.remove()
        assert path.read_text() == content


def test_the_link_to_it_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "real")
    PidFile(str(tmp_path / "link")).write()
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == str(os.getpid())


def test_what_is_no_regular_file_is_written_to(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        file = PidFile(str(path))
        file.write()
        file.remove()
        assert os.read(reader, 100) == str(os.getpid()).encode()
        assert stat.S_ISFIFO(path.stat().st_mode)
    finally:
        os.close(reader)


def test_what_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    with pytest.raises(OSError, match="No such file"):
        PidFile(str(tmp_path / "none" / "proxy.pid")).write()
    with pytest.raises(IsADirectoryError):
        PidFile(str(tmp_path / "full")).write()
    assert [path.name for path in tmp_path.iterdir()] == ["full"]
