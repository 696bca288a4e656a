"""TLS streams: what one read returns."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest
from gevent import get_hub

from chp_gevent.http.stream import TCP_CLOSE_WAIT
from chp_gevent.http.tls_stream import TLSStream
from tests.kit.peers.duplex import DuplexPeer
from tests.kit.peers.waiting import wait_until
from tests.kit.tunnel_pairs import connection, trusting_contexts

RECORD = 16384
DATA = bytes(range(256)) * (5 * RECORD // 256) + b"the end"


@pytest.fixture
def ends() -> Iterator[tuple[TLSStream, DuplexPeer]]:
    """A stream and its peer, who has sent ``DATA`` in full records and one small one."""
    peer, sock = connection(trusting_contexts(), peer_is_server=False)
    sslobj = sock._sslobj  # type: ignore[attr-defined]
    with closing(TLSStream(sock, get_hub(), sslobj)) as stream, peer:
        wire = b"".join(
            peer.on_the_wire(DATA[start : start + RECORD]) for start in range(0, len(DATA), RECORD)
        )
        peer.socket.sendall(wire)
        yield stream, peer


def all_here(stream: TLSStream) -> None:
    wait_until(stream.has_unread, 5.0, "what was sent has arrived")


def test_one_read_takes_all_the_records_that_are_here(ends: tuple[TLSStream, DuplexPeer]) -> None:
    stream, _ = ends
    all_here(stream)
    assert stream.try_read() == DATA
    assert stream.try_read() is None


@pytest.mark.parametrize("size", [1, RECORD - 1, RECORD, RECORD + 1, 3 * RECORD + 5])
def test_a_read_takes_no_more_than_it_was_asked_for(
    ends: tuple[TLSStream, DuplexPeer], size: int
) -> None:
    stream, _ = ends
    all_here(stream)
    data = stream.try_read(size)
    assert data == DATA[:size]
    while len(data) < len(DATA):
        more = stream.try_read(size)
        assert more
        data += more
    assert data == DATA


def without_a_word(peer: DuplexPeer) -> None:
    peer.socket.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize("end", [DuplexPeer.shut_writing, without_a_word])
def test_what_came_before_the_end_is_read_before_the_end(
    ends: tuple[TLSStream, DuplexPeer], end: Callable[[DuplexPeer], None]
) -> None:
    stream, peer = ends
    all_here(stream)
    assert stream.try_read() == DATA
    peer.send(DATA[: 2 * RECORD])  # full records: the read goes on, and meets the end
    end(peer)
    wait_until(lambda: closed_by_peer(stream), 5.0, "the end has arrived")
    assert stream.try_read() == DATA[: 2 * RECORD]
    assert stream.try_read() == b""


def closed_by_peer(stream: TLSStream) -> bool:
    state: int = stream.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
    return state == TCP_CLOSE_WAIT
