"""Which calls of an API without a token come from a page in a browser that must not make them.

A page of any site can have its browser send requests to addresses that only the browser's machine
reaches, localhost among them. The browser says where the page is from (``Origin``), unless the
site has its own name lead to loopback meanwhile (DNS rebinding): then page and API are of the same
origin to it, and the name of that site is in ``Host``. Jupyter Server has the same two rules.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from chp_gevent.config.options import Address, TcpAddress
from chp_gevent.http.peer import peer_address
from chp_gevent.routing.paths import host_segment

# Of what a client sent, for the log and the answer.
_SHOWN_LENGTH = 100


class ForeignPages:
    """Says why a call is refused.

    Args:
        own_names: by what names the API may be called besides loopback addresses; None where
            it listens on others too, and may have any name.
    """

    def __init__(self, own_names: frozenset[str] | None) -> None:
        self._own_names = own_names

    def refusal(self, environ: dict[str, Any]) -> str:
        """Return why a call is refused, in one line; empty if it is not."""
        host = environ.get("HTTP_HOST", "")
        origin = environ.get("HTTP_ORIGIN")
        if origin is not None and _authority(origin) != host.lower():
            return (
                f"Pages of {origin[:_SHOWN_LENGTH]} may not call an API without a token: "
                "set CONFIGPROXY_AUTH_TOKEN"
            )
        if host and self._own_names is not None and not self._is_own(host):
            return (
                f"An API on loopback without a token may not be called {host[:_SHOWN_LENGTH]}: "
                "call it localhost, or set CONFIGPROXY_AUTH_TOKEN"
            )
        return ""

    def _is_own(self, host: str) -> bool:
        assert self._own_names is not None
        name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
        return _is_loopback(name) or host_segment(name) in self._own_names


def own_names(listeners: Sequence[socket.socket], address: Address) -> frozenset[str] | None:
    """Return the names for ``ForeignPages`` of an API.

    Args:
        listeners: where it listens.
        address: where it was told to; a name that leads to loopback is one of its own.
    """
    if not isinstance(address, TcpAddress):
        return None
    if not all(_is_loopback(listener.getsockname()[0]) for listener in listeners):
        return None
    return frozenset(("localhost", host_segment(address.ip)))


def _authority(origin: str) -> str:
    """Return host and port of an ``Origin``; empty for ``null``, which every site can be."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


def _is_loopback(address: str) -> bool:
    try:
        return ip_address(peer_address(address)).is_loopback
    except ValueError:
        return False
