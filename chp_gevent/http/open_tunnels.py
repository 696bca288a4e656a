"""The tunnels of a server: connections that speak another protocol than HTTP now."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol


class OpenTunnel(Protocol):
    """A tunnel, as far as a server needs to know it."""

    def abort(self) -> None:
        """Close it at once."""


class OpenTunnels:
    """Who has a tunnel adds it here, and discards it at its end.

    Attributes:
        on_end: called when a tunnel has ended; the server's, which has room again.
    """

    __slots__ = ("_tunnels", "on_end")

    def __init__(self) -> None:
        # A set takes nearly twice the memory.
        self._tunnels: dict[OpenTunnel, None] = {}
        self.on_end: Callable[[], None] | None = None

    def add(self, tunnel: OpenTunnel) -> None:
        """Take note of a tunnel."""
        self._tunnels[tunnel] = None

    def discard(self, tunnel: OpenTunnel) -> None:
        """Forget a tunnel that has ended."""
        self._tunnels.pop(tunnel, None)
        if self.on_end is not None:
            self.on_end()

    def __len__(self) -> int:
        return len(self._tunnels)

    def __iter__(self) -> Iterator[OpenTunnel]:
        return iter(list(self._tunnels))
