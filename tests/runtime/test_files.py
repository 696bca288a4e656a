"""Files that are read if they are files, and replaced as a whole."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from chp_gevent.runtime.files import NotRegularFile, read_regular, replace_file


def test_a_file_is_read_up_to_a_limit(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"contents")
    assert read_regular(str(path)) == b"contents"
    assert read_regular(str(path), 3) == b"con"
    link = tmp_path / "link"
    link.symlink_to(path)
    assert read_regular(str(link)) == b"contents"


def test_a_pipe_is_not_waited_for_and_a_folder_takes_no_descriptor(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    before = os.listdir("/proc/self/fd")
    for path, reason in ((pipe, "it is not a regular file"), (tmp_path, "Is a directory")):
        with pytest.raises(NotRegularFile) as caught:
            read_regular(str(path))
        assert (caught.value.filename, caught.value.strerror) == (str(path), reason)
    assert os.listdir("/proc/self/fd") == before


def test_what_is_not_there_is_an_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_regular(str(tmp_path / "none"))


@pytest.mark.parametrize("lasting", [False, True])
def test_a_file_is_replaced_with_its_permissions(tmp_path: Path, lasting: bool) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with path.open("rb") as reader:
        replace_file(path, b"new", 0o600, lasting=lasting)
        assert reader.read() == b"old", "whoever has it open has it whole"
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    path.mkdir()
    with pytest.raises(IsADirectoryError):
        replace_file(path, b"new", 0o600)
    assert list(tmp_path.iterdir()) == [path]
