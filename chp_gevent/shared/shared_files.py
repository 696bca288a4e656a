"""Files whose contents the arbiter shows its children, and shows anew when they have changed.

A child reads none of them itself: it may not be allowed to, or find others by then; and all
processes shall have the same. One memory file: a page with the number of the present contents and
two lengths, then room for the contents twice. New contents go where the present ones are not.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Mapping
from typing import Final

import msgspec

from chp_gevent.shared.memory_file import memory_file

MOST_BYTES: Final = 16 * 1024 * 1024
"""How long the contents of all files may be together."""

_NUMBER, _LENGTH = 0, 1  # of contents 0; ``words[_LENGTH + 1]``: of contents 1

Contents = Mapping[str, bytes]
"""What is in each file, by path."""

_decode = msgspec.msgpack.Decoder(dict[str, bytes]).decode


class SharedFiles:
    """Contents of files; make it before forking. Only the arbiter writes."""

    def __init__(self, name: str) -> None:
        self._file = memory_file(name)
        os.ftruncate(self._file, mmap.PAGESIZE + 2 * MOST_BYTES)
        self._words: memoryview[int] = memoryview(mmap.mmap(self._file, mmap.PAGESIZE)).cast("Q")

    @property
    def number(self) -> int:
        """How often contents were written; 0: never."""
        return self._words[_NUMBER]

    def write(self, contents: Contents) -> None:
        """Show these contents from now on. Raises ``OSError``, also if they are too long."""
        data = msgspec.msgpack.encode(contents)
        if len(data) > MOST_BYTES:
            raise OSError(f"the files have {len(data)} bytes together")
        number = self.number + 1
        written = 0
        while written < len(data):
            written += os.pwrite(self._file, data[written:], self._place(number) + written)
        self._words[_LENGTH + (number & 1)] = len(data)
        self._words[_NUMBER] = number

    def read(self) -> tuple[int, dict[str, bytes]]:
        """Return the number of the present contents, and those."""
        while True:
            number = self.number
            length = self._words[_LENGTH + (number & 1)]
            data = os.pread(self._file, length, self._place(number))
            # Two writes later, their place is written to again.
            if self.number - number < 2:
                return number, _decode(data) if data else {}

    def close(self) -> None:
        """Close the file in this process, which has no use for it."""
        os.close(self._file)

    @staticmethod
    def _place(number: int) -> int:
        return mmap.PAGESIZE + (number & 1) * MOST_BYTES
