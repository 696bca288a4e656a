"""Who sent a request."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import NamedTuple


class Peer(NamedTuple):
    """Who sent a request: address (empty for UNIX sockets), over TLS or not, trusted.

    ``trusted`` says whether the ``X-Forwarded-*`` fields that it sent are to be believed.
    """

    address: str
    secure: bool
    trusted: bool

    def __str__(self) -> str:
        return self.address or "a UNIX socket"


def is_trusted(address: str, trusted: Sequence[IPv4Network | IPv6Network] | None) -> bool:
    """Whether ``X-Forwarded-*`` from this peer are kept (``--trusted-proxies``).

    ``None`` trusts everyone, as CHP does. IPv4 addresses on an IPv6 socket are compared as
    what they are. A peer on a UNIX socket is a local proxy and is trusted.
    """
    if trusted is None or not address:
        return True
    ip = ip_address(address.partition("%")[0])
    mapped = getattr(ip, "ipv4_mapped", None)
    if mapped is not None:
        ip = mapped
    return any(ip.version == network.version and ip in network for network in trusted)
