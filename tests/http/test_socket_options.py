"""Connections whose peer has vanished without a word, and answers that are not held back."""

from __future__ import annotations

import socket

import pytest

from chp_gevent.config.options import TcpAddress
from chp_gevent.http.socket_options import prepare_tunnel
from chp_gevent.master.listeners import open_listeners
from tests.kit.tunnel_pairs import tcp_pair

LONGEST = 200
"""Seconds within which a peer that does not answer must be noticed."""


@pytest.mark.parametrize("ip", ["127.0.0.1", ""])
def test_connections_of_clients_are_probed_and_send_at_once(ip: str) -> None:
    (listener,) = open_listeners(TcpAddress(ip, 0), "--", 5)
    with listener, socket.create_connection(("127.0.0.1", listener.getsockname()[1])):
        listener.setblocking(True)
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert 0 < noticed_after(accepted) <= LONGEST


def noticed_after(sock: socket.socket) -> int:
    """Return after how many silent seconds a vanished peer is given up; 0 is never."""
    if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE):
        return 0
    idle, interval, count = (
        sock.getsockopt(socket.IPPROTO_TCP, option)
        for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
    )
    return idle + interval * count


def test_each_socket_of_a_tunnel_has_probes_of_its_own() -> None:
    after = set()
    for _ in range(20):
        pair = tcp_pair()
        for sock in pair:
            prepare_tunnel(sock)
            after.add(noticed_after(sock))
            sock.close()
    assert len(after) > 10
    assert 0 < min(after) <= max(after) <= LONGEST


def test_what_has_no_such_options_is_left_alone() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        prepare_tunnel(ours)
    gone, _ = tcp_pair()
    gone.close()
    prepare_tunnel(gone)
