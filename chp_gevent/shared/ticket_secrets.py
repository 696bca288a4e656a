"""What the keys of TLS session tickets are made of, shared by all processes of a server.

A client that comes back shows a ticket, in which the server has put the session, encrypted
(RFC 5077; RFC 8446, 4.6.1). So any worker can resume it that has the key, of whatever generation
and version. Whoever has the key of a ticket can also read what was recorded of its connection,
up to TLS 1.2; so keys don't stay: the secrets here are replaced by new ones from time to time,
and overwritten when nobody needs them any more.

One page of a memory file: the number of the present secret, when it became that, and a ring of
four. The next secret is there long before it is used: no worker meets a ticket that another one
has made with a key that it has not heard of.
"""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Callable
from typing import Final, NamedTuple

from chp_gevent.shared.memory_file import memory_file

LIFETIME: Final = 12 * 3600.0
"""Seconds for which a secret is the present one. OpenSSL's tickets are good for two hours."""

_WORD: Final = 8
_NUMBER, _SINCE = range(2)
_SECRETS_AT: Final = 64
_SECRET_BYTES: Final = 32
_RING: Final = 4


class Secrets(NamedTuple):
    """The secrets that keys are made of now. Tickets are made with the first one."""

    present: bytes
    next: bytes
    previous: bytes


class TicketSecrets:
    """The secrets of one server; made by the arbiter before forking, which also replaces them.

    Args:
        fd: the memory file of secrets that there are already; None makes some.
        clock: returns monotonic time in seconds.

    Attributes:
        fd: the memory file, for whoever is to have them after ``execve``.
    """

    def __init__(self, fd: int | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.fd = memory_file("chp-gevent-tickets") if fd is None else fd
        if fd is None:
            os.ftruncate(self.fd, mmap.PAGESIZE)
        whole = memoryview(mmap.mmap(self.fd, mmap.PAGESIZE))
        self._words: memoryview[int] = whole[:_SECRETS_AT].cast("Q")
        self._ring = whole[_SECRETS_AT : _SECRETS_AT + _RING * _SECRET_BYTES]
        if fd is None:
            self._ring[:] = os.urandom(len(self._ring))
            self._words[_SINCE] = int(clock())

    @property
    def number(self) -> int:
        """How often the secrets have been replaced."""
        return self._words[_NUMBER]

    def read(self) -> Secrets:
        """Return the secrets of now."""
        number = self.number
        return Secrets(*(self._secret(number + step) for step in (0, 1, -1)))

    def replace_if_due(self) -> None:
        """Go on to the next secret when the present one has been that for long enough."""
        now = self._clock()
        if now - self._words[_SINCE] < LIFETIME:
            return
        number = self.number
        self._renew(number + 2)
        self._words[_SINCE] = int(now)
        self._words[_NUMBER] = number + 1
        # What was the previous one until now.
        self._renew(number - 1)

    def close_file(self) -> None:
        """Close the memory file in a process that passes it on to nobody; it stays mapped."""
        os.close(self.fd)

    def _renew(self, number: int) -> None:
        at = number % _RING * _SECRET_BYTES
        self._ring[at : at + _SECRET_BYTES] = os.urandom(_SECRET_BYTES)

    def _secret(self, number: int) -> bytes:
        at = number % _RING * _SECRET_BYTES
        return bytes(self._ring[at : at + _SECRET_BYTES])
