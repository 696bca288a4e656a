"""Who sent a request."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import NamedTuple


class Peer(NamedTuple):
    """Who sent a request: address (empty for UNIX sockets), over TLS or not, trusted.

    Over TLS also if a trusted proxy says, by the PROXY protocol, that TLS ended there.

    ``trusted`` says whether the ``X-Forwarded-*`` fields that it sent are to be believed.
    """

    address: str
    secure: bool
    trusted: bool

    def __str__(self) -> str:
        return self.address or "a UNIX socket"


def peer_address(address: str) -> str:
    """Return a peer's address; that of an IPv4 client on an IPv6 socket is IPv4."""
    mapped = address.removeprefix("::ffff:")
    return address if ":" in mapped or "." not in mapped else mapped


def is_trusted(address: str, trusted: Sequence[IPv4Network | IPv6Network] | None) -> bool:
    """Whether ``X-Forwarded-*`` from this peer are kept (``--trusted-proxies``).

    ``None`` trusts everyone, as CHP does. A peer on a UNIX socket is a local proxy and is
    trusted.

    Args:
        address: as ``peer_address`` returns it.
        trusted: networks; those of IPv4 as such.
    """
    if trusted is None or not address:
        return True
    ip = ip_address(address.partition("%")[0])
    return any(ip.version == network.version and ip in network for network in trusted)
