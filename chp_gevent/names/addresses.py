"""Addresses of hosts, and the order in which those of one name are tried. Pure."""

from __future__ import annotations

import errno
import socket
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest

_MAX_INTERFACE_INDEX = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Address:
    """An IPv4 or IPv6 address; ``scope`` is the index of a link-local one's interface, else 0."""

    family: int
    host: str
    scope: int = 0

    def with_port(self, port: int) -> tuple[str, int] | tuple[str, int, int, int]:
        """Return what ``socket.connect`` takes."""
        if self.family == socket.AF_INET6:
            return self.host, port, 0, self.scope
        return self.host, port


def literal_address(host: str) -> Address | None:
    """Return the address that ``host`` is itself, None for a name.

    An IPv6 address may name its interface (``fe80::1%eth0``). Raises ``OSError`` when there is
    no such interface.
    """
    if ":" in host:
        plain, _, zone = host.partition("%")
        return Address(socket.AF_INET6, plain, _interface_index(zone) if zone else 0)
    if not host.replace(".", "").isdigit():
        return None
    try:
        # What is no address after all (1.2.3.4.5) must not get to socket.connect: it would
        # look it up, and block.
        return Address(socket.AF_INET, socket.inet_ntoa(socket.inet_aton(host)))
    except OSError:
        return None


def _interface_index(zone: str) -> int:
    try:
        return socket.if_nametoindex(zone)
    except OSError:
        if zone.isdecimal() and 0 < int(zone[:11]) <= _MAX_INTERFACE_INDEX:
            return int(zone)
        raise OSError(errno.ENODEV, f"no network interface {zone}") from None


def interleaved(addresses: Iterable[Address]) -> list[Address]:
    """Return addresses with their families taking turns (RFC 8305, 4).

    The family of the first stays first, and each family's own order, which is the system's.
    """
    by_family: dict[int, list[Address]] = {}
    for address in addresses:
        by_family.setdefault(address.family, []).append(address)
    turns = chain.from_iterable(zip_longest(*by_family.values()))
    return [address for address in turns if address is not None]


class WorkingAddresses:
    """Which address of a service was the first to answer, where it is not the first to be tried.

    Args:
        lifetime: seconds after which the system's order is tried again: the first address may
            be back.
        capacity: how many services are remembered; the oldest makes room.
    """

    def __init__(self, lifetime: float, capacity: int) -> None:
        self._lifetime = lifetime
        self._capacity = capacity
        self._known: dict[Hashable, tuple[Address, float]] = {}

    def __len__(self) -> int:
        return len(self._known)

    def in_order(
        self, service: Hashable, addresses: Sequence[Address], now: float
    ) -> list[Address]:
        """Return the addresses of a service in the order in which they are to be tried."""
        order = interleaved(addresses)
        address, until = self._known.get(service, (None, 0.0))
        if address is None:
            return order
        if now >= until or address not in order:
            del self._known[service]
            return order
        order.remove(address)
        return [address, *order]

    def note(
        self, service: Hashable, order: Sequence[Address], worked: Address, now: float
    ) -> None:
        """Take note of the address in ``order`` that was the first to answer."""
        if worked == order[0]:
            return  # the system's first one, or remembered already
        self.forget(service)
        if len(self._known) >= self._capacity:
            del self._known[next(iter(self._known))]
        self._known[service] = worked, now + self._lifetime

    def forget(self, service: Hashable) -> None:
        """Forget a service's address, because it works no longer."""
        self._known.pop(service, None)
