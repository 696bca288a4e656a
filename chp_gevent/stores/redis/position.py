"""Where a server stands in the history of the shared table. It outlives the management process."""

from __future__ import annotations

import os
import re
from typing import Final, NamedTuple

from chp_gevent.shared.segment import (
    STORE_CHANGE,
    STORE_EPOCH,
    STORE_EPOCH_RANDOM,
    STORE_TAG,
)

_EPOCH: Final = re.compile(r"([0-9]+)-([0-9a-f]{12})")


class Position(NamedTuple):
    """The last change that a table has: its number, in which epoch, and its random tag."""

    epoch_number: int = 0
    epoch_random: str = "0" * 12
    change: int = 0
    tag: str = "0" * 12

    @property
    def epoch(self) -> str:
        """The epoch, as the engine has it."""
        return f"{self.epoch_number}-{self.epoch_random}"

    def after(self, change: int, tag: str) -> Position:
        """Return the position after another change."""
        return self._replace(change=change, tag=tag)

    def in_epoch(self, epoch: str) -> Position:
        """Return the same place in another epoch's history. Raises ``ValueError``."""
        matched = _EPOCH.fullmatch(epoch)
        if matched is None:
            raise ValueError(f"{epoch!r} is no epoch")
        return self._replace(epoch_number=int(matched[1]), epoch_random=matched[2])


NOWHERE: Final = Position()
"""That of a table which was never loaded."""


def random_tag() -> str:
    """Return 48 random bits, in hexadecimal."""
    return os.urandom(6).hex()


def save(words: memoryview[int], position: Position) -> None:
    """Keep a position in the segment. A process that dies in between leaves ``NOWHERE``."""
    words[STORE_CHANGE] = 0
    words[STORE_EPOCH] = position.epoch_number
    words[STORE_EPOCH_RANDOM] = int(position.epoch_random, 16)
    words[STORE_TAG] = int(position.tag, 16)
    words[STORE_CHANGE] = position.change


def saved(words: memoryview[int]) -> Position:
    """Return the position that a management process before this one has kept."""
    if not words[STORE_CHANGE]:
        return NOWHERE
    return Position(
        words[STORE_EPOCH],
        f"{words[STORE_EPOCH_RANDOM]:012x}",
        words[STORE_CHANGE],
        f"{words[STORE_TAG]:012x}",
    )
