"""Long pieces between plain sockets, which the kernel moves without copying them."""

from __future__ import annotations

import errno
import functools
import logging
import os
import random
import socket
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from gevent import get_hub

from chp_gevent.proxy.tunnels import tunnel
from chp_gevent.proxy.tunnels.splice import Splicer, splicer
from chp_gevent.runtime.event_loop_errors import look_after
from tests.kit.peers.duplex import DuplexPeer
from tests.kit.peers.loopback import reset_on_close
from tests.kit.tunnel_pairs import (
    Joiner,
    at_once,
    ends_with_reset,
    fill,
    in_background,
    in_thread,
    run_loop,
    run_until,
    tcp_pair,
)
from tests.proxy.tunnels.test_tunnel import BOTH_WAYS, MEGABYTE

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture(params=["tcp", "unix"])
def pairs(request: pytest.FixtureRequest) -> Iterator[tuple[Pair, Pair]]:
    """Two connections: a peer's socket and ours, each; ours do not block."""
    make = tcp_pair if request.param == "tcp" else socket.socketpair
    pairs = make(), make()
    for _, ours in pairs:
        ours.setblocking(False)
    yield pairs
    for pair in pairs:
        for sock in pair:
            sock.close()


@pytest.fixture
def spliced(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Collects the numbers of bytes that sockets took from a pipe."""
    sizes: list[int] = []
    send = Splicer.send

    def record(self: Splicer, sink: socket.socket) -> bool:
        before = self._size
        try:
            return send(self, sink)
        finally:
            assert before is not None
            assert self._size is not None
            sizes.append(before - self._size)

    monkeypatch.setattr(Splicer, "send", record)
    return sizes


# -- the pipe


def test_bytes_come_out_as_they_went_in(pairs: tuple[Pair, Pair]) -> None:
    (writer, source), (reader, sink) = pairs
    data = random.randbytes(50_000)
    writer.sendall(data)
    pipe = Splicer()
    assert pipe.receive(source) == len(data)
    assert pipe.send(sink)
    assert reader.recv(len(data), socket.MSG_WAITALL) == data


def test_nothing_to_receive_and_the_end_are_told_apart(pairs: tuple[Pair, Pair]) -> None:
    (writer, source), _ = pairs
    pipe = Splicer()
    with pytest.raises(BlockingIOError):
        pipe.receive(source)
    writer.shutdown(socket.SHUT_WR)
    assert pipe.receive(source) == 0


def test_what_a_full_sink_does_not_take_can_be_taken_back(pairs: tuple[Pair, Pair]) -> None:
    (writer, source), (reader, sink) = pairs
    before = fill(sink)
    pipe, data = Splicer(), random.randbytes(30_000)
    writer.sendall(data)
    assert pipe.receive(source) == len(data)
    assert not pipe.send(sink)
    rest = pipe.take()
    sink.shutdown(socket.SHUT_WR)
    received = b""
    while piece := reader.recv(MEGABYTE):
        received += piece
    assert received[before:] + rest == data


def test_a_broken_sink_leaves_nothing_for_the_next_one(pairs: tuple[Pair, Pair]) -> None:
    (writer, source), (reader, sink) = pairs
    pipe = Splicer()
    reset_on_close(reader)
    reader.close()
    writer.sendall(b"for one that is gone")
    assert pipe.receive(source)
    with pytest.raises(OSError, match=r"reset|Broken pipe"):
        pipe.send(sink)
    # Any other connection will do for the next one: this one, backwards.
    writer.sendall(b"for the next")
    assert pipe.receive(source) == 12
    assert pipe.send(source)
    assert writer.recv(100) == b"for the next"


# -- in a tunnel


def check_passing(sender: DuplexPeer, receiver: DuplexPeer, length: int = 8 * MEGABYTE) -> None:
    data = random.randbytes(length)
    _, received = at_once(partial(sender.send, data), partial(receiver.receive_exactly, length))
    assert received == data


@BOTH_WAYS
def test_long_pieces_are_not_copied(join: Joiner, spliced: list[int], way: tuple[str, str]) -> None:
    writer, reader = (joined := join()).ends(way)
    check_passing(writer, reader)
    assert sum(spliced) > 4 * MEGABYTE
    assert sum(size for size, _ in joined.transfers) == 8 * MEGABYTE


def test_unix_targets_get_them_too(join: Joiner, spliced: list[int]) -> None:
    joined = join(target_pair=socket.socketpair())
    check_passing(joined.target, joined.client)
    assert sum(spliced)


@pytest.mark.parametrize("tls", [(True, False), (False, True)], ids=["client", "target"])
def test_tls_is_never_passed_by(join: Joiner, spliced: list[int], tls: tuple[bool, bool]) -> None:
    joined = join(*tls)
    check_passing(joined.client, joined.target, 4 * MEGABYTE)
    assert not spliced


def test_short_messages_after_long_ones_are_read_as_always(
    join: Joiner, spliced: list[int]
) -> None:
    joined = join()
    for length in (100_000, 100_000, 10, 100_000, 10, 10, 100_000, 5):
        message = random.randbytes(length)
        joined.client.send(message)
        assert in_thread(joined.target.receive_exactly, length) == message
    before = len(spliced)
    joined.client.send(b"short")
    assert in_thread(joined.target.receive_exactly, 5) == b"short"
    assert 0 < before == len(spliced)


@pytest.mark.parametrize("missing", ["system call", "descriptors"])
def test_without_splice_the_bytes_are_copied(
    join: Joiner, spliced: list[int], monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    def none_left(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    if missing == "system call":
        monkeypatch.delattr(os, "splice")
    else:
        monkeypatch.setattr(os, "pipe2", none_left)
    own = functools.cache(splicer.__wrapped__)  # the process's one stays as it is
    monkeypatch.setattr(tunnel, "splicer", own)
    joined = join()
    check_passing(joined.client, joined.target)
    assert not spliced


def test_a_target_that_breaks_in_the_middle_leaves_nothing_for_the_next_tunnel(
    join: Joiner, spliced: list[int]
) -> None:
    broken, other = join(), join()

    def send_until_it_breaks() -> bool:
        try:
            broken.client.send(bytes(20 * MEGABYTE))
        except ConnectionError:
            return True
        return False

    sending = in_background(send_until_it_breaks)
    in_thread(broken.target.receive_exactly, 4 * MEGABYTE)
    assert spliced
    reset_on_close(broken.target.socket)
    broken.target.close()
    assert sending.get(timeout=10)
    run_loop()
    assert broken.closings == [broken.tunnel]

    check_passing(other.client, other.target, 4 * MEGABYTE)


# -- what must never come out of the pipe, and what must never wait in front of it


def test_bytes_that_nobody_took_out_never_come_out_to_somebody_else(
    pairs: tuple[Pair, Pair],
) -> None:
    (writer, source), (reader, sink) = pairs
    pipe = Splicer()
    writer.sendall(b"left behind by an exception")
    assert pipe.receive(source)
    writer.sendall(b"mine")
    assert pipe.receive(source) == 4
    assert pipe.send(sink)
    assert reader.recv(100) == b"mine"


def test_a_move_whose_outcome_is_unknown_is_not_trusted(
    pairs: tuple[Pair, Pair], monkeypatch: pytest.MonkeyPatch
) -> None:
    (writer, source), (reader, sink) = pairs
    pipe, splice = Splicer(), os.splice

    def interrupted(*args: Any) -> int:
        splice(*args)
        raise KeyboardInterrupt

    writer.sendall(b"whose are these?")
    monkeypatch.setattr(os, "splice", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pipe.receive(source)
    monkeypatch.undo()
    writer.sendall(b"mine")
    assert pipe.receive(source) == 4
    assert pipe.send(sink)
    assert reader.recv(100) == b"mine"


def test_without_descriptors_for_another_pipe_the_bytes_are_left_to_recv(
    pairs: tuple[Pair, Pair], monkeypatch: pytest.MonkeyPatch
) -> None:
    (writer, source), (reader, sink) = pairs
    pipe = Splicer()
    writer.sendall(b"left behind")
    assert pipe.receive(source)
    writer.sendall(b"mine")

    def none_left(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as full:
        full.setattr(os, "pipe2", none_left)
        for _ in range(2):
            with pytest.raises(BlockingIOError):
                pipe.receive(source)
    assert pipe.receive(source) == 4
    assert pipe.send(sink)
    assert reader.recv(100) == b"mine"


def test_a_tunnel_that_fails_is_reset_and_its_bytes_go_to_nobody_else(
    join: Joiner, spliced: list[int], log: logging.Logger, lines: list[str]
) -> None:
    failing: list[bool] = []

    def on_transfer(*_: object) -> None:
        if failing:
            raise ValueError("no such row")

    hub = get_hub()
    look_after(hub, log)
    try:
        broken, other = join(on_transfer=on_transfer), join()
        check_passing(broken.client, broken.target)
        assert spliced
        failing.append(True)
        broken.client.send(bytes(50_000))
        run_until(lambda: bool(broken.closings), "the tunnel is closed")
        assert in_thread(ends_with_reset, broken.client)
        check_passing(other.client, other.target)
    finally:
        del hub.handle_error
    assert lines == ["error: Error in the event loop: ValueError: no such row"]


def test_urgent_data_keeps_nothing_waiting(
    join: Joiner, spliced: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    joined = join()
    check_passing(joined.client, joined.target)
    assert spliced
    moves: list[int] = []
    receive = Splicer.receive

    def count(self: Splicer, source: socket.socket) -> int:
        moves.append(1)
        return receive(self, source)

    monkeypatch.setattr(Splicer, "receive", count)
    joined.client.socket.send(b"!", socket.MSG_OOB)
    run_loop(0.05)
    joined.client.send(b"behind")
    assert in_thread(joined.target.receive_exactly, 6) == b"behind"
    run_loop(0.2)
    assert len(moves) < 5, "it rests when there is nothing to do"
    check_passing(joined.client, joined.target)
