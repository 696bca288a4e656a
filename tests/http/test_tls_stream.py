"""TLS streams: what one read returns."""

from __future__ import annotations

import select
import socket
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest
from gevent import get_hub

from chp_gevent.http import tls_stream
from chp_gevent.http.stream import TCP_CLOSE_WAIT
from chp_gevent.http.tls_stream import TLSSocket, TLSStream
from tests.kit.peers.duplex import DuplexPeer
from tests.kit.peers.waiting import wait_until
from tests.kit.tunnel_pairs import connection, takes_no_more, trusting_contexts

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


@pytest.fixture(params=[True, False], ids=["by OpenSSL", "without it"])
def reaching_openssl(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether OpenSSL's functions can be called beside ``ssl``."""
    if not request.param:
        monkeypatch.setattr(tls_stream, "pointer_to", lambda _: None)
    return bool(request.param)


@pytest.fixture
def client(reaching_openssl: bool) -> Iterator[tuple[TLSStream, DuplexPeer]]:
    """A stream and its peer, who have nothing to say yet."""
    peer, sock = connection(trusting_contexts(), peer_is_server=False)
    sslobj = sock._sslobj  # type: ignore[attr-defined]
    with closing(TLSStream(sock, get_hub(), sslobj)) as stream, peer:
        yield stream, peer


def test_the_writing_side_ends_with_close_notify_and_reading_goes_on(
    client: tuple[TLSStream, DuplexPeer],
) -> None:
    stream, peer = client
    stream.write(b"bye")
    assert stream.try_shutdown_write()
    assert peer.receive_all() == b"bye", "and then close_notify"
    assert peer.socket.recv(1) == b"", "and then the end"
    peer.send(b"not yet")
    wait_until(stream.has_unread, 5.0, "what was sent has arrived")
    assert stream.try_read() == b"not yet"
    stream.close()
    assert takes_no_more(peer)


def test_an_end_that_does_not_fit_is_sent_when_there_is_room(
    client: tuple[TLSStream, DuplexPeer],
) -> None:
    stream, peer = client
    written = 0
    # Whole records only: what is left of one would have to go out first.
    while has_room(stream) and stream.try_write(bytes(1000)) == 1000:
        written += 1000
    if not stream.try_shutdown_write():
        assert peer.receive_exactly(written) == bytes(written)
        wait_until(stream.try_shutdown_write, 5.0, "there is room")
        written = 0
    assert peer.receive_all() == bytes(written)


def has_room(stream: TLSStream) -> bool:
    poller = select.poll()
    poller.register(stream.sock.fileno(), select.POLLOUT)
    return bool(poller.poll(0))


def test_a_connection_that_was_never_secured_ends_and_disturbs_no_other(
    client: tuple[TLSStream, DuplexPeer],
) -> None:
    """OpenSSL keeps what went wrong for the thread, not for the connection."""
    stream, peer = client
    with socket.create_server(("127.0.0.1", 0)) as listener:
        caller = socket.create_connection(listener.getsockname())
        descriptor, _ = listener._accept()  # type: ignore[attr-defined]
    sock = TLSSocket(socket.AF_INET, socket.SOCK_STREAM, 0, descriptor)
    sock.setblocking(False)
    with caller:
        unsecured = TLSStream.accepted(sock, get_hub(), trusting_contexts().server)
        assert unsecured.try_shutdown_write()
        assert caller.recv(1) == b""
        unsecured.close()
    assert stream.try_read() is None, "nothing has gone wrong here"
    peer.send(b"fine")
    wait_until(stream.has_unread, 5.0, "what was sent has arrived")
    assert stream.try_read() == b"fine"


def test_an_end_that_nobody_can_be_told_of_is_no_error(
    client: tuple[TLSStream, DuplexPeer],
) -> None:
    stream, peer = client
    peer.reset()
    wait_until(stream.has_unread, 5.0, "the reset has arrived")
    stream.shutdown_write()
    stream.close()
    assert stream.closed
