"""Streams: messages sent in parts."""

from __future__ import annotations

import socket
import struct

import pytest
from gevent import get_hub

from chp_gevent.http.h1.heads import Buffer
from chp_gevent.http.stream import Stream
from tests.kit.tunnel_pairs import in_background, tcp_pair

HEAD = b"head " * 10
LARGE = bytes(range(256)) * 4000  # a megabyte
VIEW = memoryview(b"..." + LARGE)[3:]


def receive_all(sock: socket.socket) -> bytes:
    """Return what arrives until the end."""
    with sock.makefile("rb") as file:
        return file.read()


@pytest.mark.parametrize(
    "parts",
    [
        (HEAD, b"body"),
        (HEAD, LARGE),
        (HEAD, VIEW),
        (LARGE, HEAD),
        (b"", VIEW, b""),
        (b"fa000\r\n", VIEW, b"\r\n", HEAD, LARGE, b"\r\n"),
    ],
    ids=["small", "large", "view", "large first", "empty parts", "chunks"],
)
@pytest.mark.parametrize("room", [None, 4096], ids=["room", "little room"])
def test_parts_arrive_whole_and_in_order(parts: tuple[Buffer, ...], room: int | None) -> None:
    ours, theirs = tcp_pair()
    with theirs:
        if room is not None:
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, room)
        ours.setblocking(False)
        stream = Stream(ours, get_hub())
        received = in_background(lambda: receive_all(theirs))
        stream.write_all(*parts)
        stream.close()
        assert received.get(timeout=30) == b"".join(parts)


def test_what_is_held_back_goes_out_with_the_end() -> None:
    ours, theirs = tcp_pair()
    with theirs:
        ours.setblocking(False)
        stream = Stream(ours, get_hub())
        stream.hold_back()
        assert ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_CORK) == 1
        stream.write(HEAD)
        assert stream.try_shutdown_write()
        assert receive_all(theirs) == HEAD, "though the stream is still open"
        stream.close()


def test_unix_sockets_hold_nothing_back() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        ours.setblocking(False)
        stream = Stream(ours, get_hub())
        stream.hold_back()
        stream.write(HEAD)
        assert theirs.recv(1000) == HEAD
        stream.close()


def test_parts_for_a_peer_that_has_left_are_an_error() -> None:
    ours, theirs = tcp_pair()
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    theirs.close()
    ours.setblocking(False)
    stream = Stream(ours, get_hub())
    with pytest.raises(OSError, match="reset"):
        stream.write_all(HEAD, LARGE)
    stream.close()
