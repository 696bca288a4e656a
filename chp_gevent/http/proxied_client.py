"""Hearing from a trusted proxy who its client is, before anything else is read."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network
from typing import Any

from chp_gevent.http import proxy_protocol
from chp_gevent.http.errors import ClientGone
from chp_gevent.http.peer import Peer, is_trusted
from chp_gevent.http.stream import Stream
from chp_gevent.http.tls_stream import TLSStream


def meet_client(
    stream: Stream,
    proxy: Peer,
    trusted: Sequence[IPv4Network | IPv6Network] | None,
    environ: dict[str, Any],
) -> Peer:
    """Read a header of the PROXY protocol, and no byte of what is behind it.

    Args:
        stream: a connection on which nothing has been read; TLS comes behind the header.
        proxy: who sends it, and is the client if it says so.
        trusted: whose ``X-Forwarded-*`` are believed.
        environ: of the connection; who the client is is put in.

    Raises ``WireError`` for anything else than a header, ``ClientGone`` and ``OSError``.
    """
    below = stream.below_tls() if isinstance(stream, TLSStream) else stream
    try:
        header = b""
        while size := proxy_protocol.missing(header):
            received = below.read(size)
            if not received:
                raise ClientGone
            header += received
    finally:
        if below is not stream:
            below.close()
    client = proxy_protocol.parse(header)
    if client is None:
        return proxy
    environ["REMOTE_ADDR"], environ["REMOTE_PORT"] = client.address, str(client.port)
    secure = proxy.secure or client.secure
    if secure:
        environ["wsgi.url_scheme"] = "https"
    return Peer(client.address, secure, is_trusted(client.address, trusted))
