"""Mutated messages: from what is known to be hard, by small steps."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence

# What decides about framing, and what parsers have taken for it.
PIECES = [
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b" ",
    b"\t",
    b":",
    b",",
    b";",
    b"0\r\n\r\n",
    b"\r\n\r\n",
    b"Content-Length: 0\r\n",
    b"Content-Length: 5\r\n",
    b"content-length:\t7 \r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: identity\r\n",
    b"Transfer-Encoding: gzip, chunked\r\n",
    b"Connection: close\r\n",
    b"Connection: keep-alive, TE\r\n",
    b"Connection: Upgrade\r\nUpgrade: websocket\r\n",
    b"Expect: 100-continue\r\n",
    b"TE: trailers\r\n",
    b"Trailer: X\r\n",
    b" folded\r\n",
    b"HTTP/1.1",
    b"HTTP/1.0",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
    b"HTTP/1.1 204 No Content\r\n\r\n",
    b"ffffffffffffffff\r\n",
    b"5;x=y\r\nabcde\r\n",
    b"1\r\na\r\n",
    b"-1",
    b"+5",
    b"0x5",
    b"%00",
    b"%2f..%2f",
    b"\xff\xfe",
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
]

_NUMBER = re.compile(rb"[0-9]+")


class Mutator:
    """Makes messages out of a corpus; the same from the same seed.

    ``make``, if given, makes every third message, in place of the corpus.
    """

    def __init__(
        self,
        corpus: Sequence[bytes],
        chance: random.Random,
        make: Callable[[], bytes] | None = None,
    ) -> None:
        self._corpus = corpus
        self._chance = chance
        self._make = make

    def message(self) -> bytes:
        """Return one of the corpus, changed in up to six places, or not at all."""
        if self._make is not None and self._chance.randrange(3) == 0:
            message = self._make()
        else:
            message = self._chance.choice(self._corpus)
        for _ in range(self._chance.choice((0, 0, 0, 1, 1, 2, 6))):
            message = self._changed(message)
        return message

    def _changed(self, message: bytes) -> bytes:
        chance = self._chance
        at = chance.randint(0, len(message))
        end = min(len(message), at + chance.choice((1, 1, 1, 2, 5, 20)))
        kind = chance.randrange(8)
        if kind == 0:
            return message[:at] + message[end:]
        if kind == 1:
            return message[:at] + bytes([chance.randrange(256)]) + message[at + 1 :]
        if kind == 2:
            return message[:at] + chance.choice(PIECES) + message[at:]
        if kind == 3:
            return message[:end] + message[at:]
        if kind == 4:
            lines = message.split(b"\r\n")
            line = chance.choice(lines)
            lines.insert(chance.randint(0, len(lines)), line)
            return b"\r\n".join(lines)
        if kind == 5:
            other = chance.choice(self._corpus)
            return message[:at] + other[chance.randint(0, len(other)) :]
        if kind == 6:
            found = list(_NUMBER.finditer(message))
            if not found:
                return message
            number = chance.choice(found)
            other_number = str(int(number[0]) + chance.choice((-1, 1, 2, 10))).encode()
            return message[: number.start()] + other_number + message[number.end() :]
        return message[:at] + message[at:end].swapcase() + message[end:]

    def pieces(self, message: bytes) -> list[bytes]:
        """Return a message cut into pieces: mostly one or two, sometimes many."""
        chance = self._chance
        count = chance.choice((0, 0, 0, 1, 1, 2, 8))
        cuts = sorted(chance.randint(0, len(message)) for _ in range(count))
        ends = [*cuts, len(message)]
        return [message[begin:end] for begin, end in zip([0, *cuts], ends, strict=True)]
