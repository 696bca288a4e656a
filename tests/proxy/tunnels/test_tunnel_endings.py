"""How tunnels end: half-closes, closes and resets of either side, and what is left behind."""

from __future__ import annotations

import gc
import os
import random
import socket
import threading
from collections import Counter
from collections.abc import Callable
from itertools import cycle, islice

from gevent import Greenlet, get_hub

from chp_gevent.http.stream import TCP_CLOSE, TCP_CLOSE_WAIT, Stream
from chp_gevent.proxy.tunnels.tunnel import Tunnel
from tests.kit.peers.loopback import reset_on_close
from tests.kit.tunnel_pairs import (
    SOON,
    Contexts,
    Joiner,
    at_once,
    ends_with_reset,
    fill,
    in_background,
    in_thread,
    run_loop,
    run_until,
    run_until_still,
    takes_no_more,
    tcp_pair,
)
from tests.proxy.tunnels.test_tunnel import BOTH_WAYS, MEGABYTE, PLAIN_AND_TLS, resident_kilobytes

# -- half-close


@PLAIN_AND_TLS
@BOTH_WAYS
def test_a_side_that_shut_its_writing_still_receives(
    join: Joiner, tls: tuple[bool, bool], way: tuple[str, str]
) -> None:
    joined = join(*tls)
    shut, other = joined.ends(way)
    request, answer = random.randbytes(MEGABYTE), random.randbytes(5 * MEGABYTE)

    def ask() -> bytes:
        shut.send(request)
        shut.shut_writing()
        return shut.receive_all()

    def reply() -> bytes:
        received = other.receive_all()
        other.send(answer)
        other.shut_writing()
        return received

    at_shut, at_other = at_once(ask, reply)
    assert at_other == request
    assert at_shut == answer
    assert joined.closed.wait(SOON)


@PLAIN_AND_TLS
@BOTH_WAYS
def test_an_end_in_one_direction_loses_nothing_in_the_other(
    join: Joiner, tls: tuple[bool, bool], way: tuple[str, str]
) -> None:
    """With TLS, saying the end while data comes in is what OpenSSL makes hard."""
    joined = join(*tls)
    shut, other = joined.ends(way)
    stream = random.randbytes(20 * MEGABYTE)
    under_way = threading.Event()

    def send() -> None:
        other.send(stream[:MEGABYTE])
        under_way.set()
        other.send(stream[MEGABYTE:])
        other.shut_writing()

    def end_and_receive() -> bytes:
        under_way.wait(10)
        shut.shut_writing()
        return shut.receive_all()

    _, received = at_once(send, end_and_receive)
    assert received == stream
    assert in_thread(other.receive_all) == b""
    assert joined.closed.wait(SOON)


@PLAIN_AND_TLS
def test_the_end_waits_for_a_reader_that_stopped(join: Joiner, tls: tuple[bool, bool]) -> None:
    joined = join(*tls)
    data = random.randbytes(30 * MEGABYTE)

    def send() -> None:
        joined.client.send(data)
        joined.client.shut_writing()

    in_background(send)
    run_until_still(lambda: joined.tunnel.bytes_from_client)
    assert in_thread(joined.target.receive_all) == data


# -- close and reset


@PLAIN_AND_TLS
@BOTH_WAYS
def test_a_close_reaches_the_other_side_and_ends_the_tunnel_with_its_close(
    join: Joiner, tls: tuple[bool, bool], way: tuple[str, str]
) -> None:
    joined = join(*tls)
    leaving, staying = joined.ends(way)
    # A close with something unread, be it the session tickets of TLS, is a reset.
    staying.send(b"hello")
    assert in_thread(leaving.receive_exactly, 5) == b"hello"
    leaving.close()
    assert in_thread(staying.receive_all, timeout=SOON) == b""
    staying.close()
    assert joined.closed.wait(SOON)


@PLAIN_AND_TLS
def test_a_close_loses_nothing_that_a_slow_reader_has_not_got_yet(
    join: Joiner, tls: tuple[bool, bool]
) -> None:
    """With TLS there is no close_notify here, which OpenSSL answers with an alert."""
    joined = join(*tls)
    data = random.randbytes(20 * MEGABYTE)

    def send() -> None:
        joined.target.send(data)
        joined.target.close()

    in_background(send)
    run_until_still(lambda: joined.tunnel.bytes_to_client)
    assert in_thread(joined.client.receive_all) == data
    joined.client.close()
    assert joined.closed.wait(SOON)


def test_an_end_that_was_read_with_the_last_data_is_no_reset_while_those_wait(join: Joiner) -> None:
    """OpenSSL answers a missing close_notify with an alert, and the closed peer with a reset.

    Both come before the last records have been passed on, when these and the end are one read.
    """
    joined = join(False, True, start=False)
    data = random.randbytes(6 * 16384)
    for ours, option in (
        (joined.client_stream.sock, socket.SO_SNDBUF),
        (joined.client.socket, socket.SO_RCVBUF),
    ):
        ours.setsockopt(socket.SOL_SOCKET, option, 4096)
    joined.target.send(data)
    joined.target.close()
    run_until(lambda: is_closed_by_peer(joined.target_stream.sock), "all is here, and the end")
    joined.tunnel.start()
    run_until(lambda: joined.tunnel.bytes_to_client == len(data), "all is read")
    run_until(lambda: has_been_reset(joined.target_stream.sock), "the alert is answered")
    run_loop()
    assert in_thread(joined.client.receive_all) == data
    joined.client.close()
    assert joined.closed.wait(SOON)


@PLAIN_AND_TLS
@BOTH_WAYS
def test_a_reset_reaches_the_other_side_as_a_reset(
    join: Joiner, tls: tuple[bool, bool], way: tuple[str, str]
) -> None:
    joined = join(*tls)
    leaving, staying = joined.ends(way)
    leaving.reset()
    assert joined.closed.wait(SOON)
    assert in_thread(ends_with_reset, staying)


@PLAIN_AND_TLS
@BOTH_WAYS
def test_a_reset_is_noticed_while_back_pressure_keeps_its_side_unread(
    join: Joiner, tls: tuple[bool, bool], way: tuple[str, str]
) -> None:
    joined = join(*tls)
    leaving, staying = joined.ends(way)
    piece = bytes(MEGABYTE)
    stop = threading.Event()

    def send() -> None:
        leaving.socket.settimeout(0.2)
        try:
            while not stop.is_set():
                leaving.send(piece)
        except TimeoutError:
            leaving.reset()

    in_thread(send)
    assert joined.closed.wait(SOON)
    assert in_thread(ends_with_reset, staying)


@PLAIN_AND_TLS
@BOTH_WAYS
def test_a_reset_is_noticed_after_the_end_of_that_side(
    join: Joiner, tls: tuple[bool, bool], way: tuple[str, str]
) -> None:
    joined = join(*tls)
    leaving, staying = joined.ends(way)
    leaving.shut_writing()
    assert in_thread(staying.receive_all) == b""
    assert not joined.closed.is_set()
    leaving.reset()
    assert joined.closed.wait(SOON)
    assert in_thread(takes_no_more, staying)


@BOTH_WAYS
def test_the_last_words_of_a_side_that_takes_no_more_are_delivered(
    join: Joiner, way: tuple[str, str]
) -> None:
    joined = join()
    leaving, staying = joined.ends(way)

    def send_into_the_dark() -> None:
        try:
            while True:
                staying.send(bytes(65536))
        except ConnectionError:
            pass

    def leave() -> None:
        leaving.receive_exactly(MEGABYTE)
        leaving.send(b"too much")
        leaving.close()

    staying.socket.settimeout(5)
    at_once(send_into_the_dark, leave)
    assert joined.closed.wait(SOON)
    assert in_thread(staying.receive) == b"too much"


def test_what_a_unix_target_sent_before_it_closed_is_delivered_in_spite_of_back_pressure(
    join: Joiner,
) -> None:
    """A UNIX socket hangs up at once, with data still unread; TCP does not."""
    ours, theirs = socket.socketpair()
    joined = join(target_pair=(theirs, ours))
    data = random.randbytes(20 * MEGABYTE)

    def send() -> None:
        joined.target.send(data)
        joined.target.close()

    sending = in_background(send)
    run_until_still(lambda: joined.tunnel.bytes_to_client)
    assert in_thread(joined.client.receive_all) == data
    sending.get(timeout=5)
    assert joined.closed.wait(SOON)


def test_a_tunnel_between_broken_connections_closes_at_once(join: Joiner) -> None:
    joined = join(early_from_client=b"hello", early_from_target=b"hello", start=False)
    joined.client.reset()
    joined.target.reset()
    joined.tunnel.start()
    assert joined.closed.wait(SOON)
    assert joined.closings == [joined.tunnel]


@PLAIN_AND_TLS
def test_abort_closes_both_sides_and_tells_it_once(join: Joiner, tls: tuple[bool, bool]) -> None:
    joined = join(*tls)
    joined.tunnel.abort()
    joined.tunnel.abort()
    assert joined.closings == [joined.tunnel]
    assert joined.client_stream.closed
    assert joined.target_stream.closed
    assert at_once(joined.client.receive_all, joined.target.receive_all) == [b"", b""]


def tcp_state(sock: socket.socket) -> int:
    """Return the state of a connection as the kernel numbers them."""
    state: bytes = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)
    return state[0]


def is_closed_by_peer(sock: socket.socket) -> bool:
    return tcp_state(sock) == TCP_CLOSE_WAIT


def has_been_reset(sock: socket.socket) -> bool:
    return tcp_state(sock) == TCP_CLOSE


# -- what is left behind


def client_first(client: socket.socket, target: socket.socket, _: Tunnel) -> None:
    client.close()
    target.close()


def target_first(client: socket.socket, target: socket.socket, _: Tunnel) -> None:
    target.close()
    client.close()


def half_by_half(client: socket.socket, target: socket.socket, _: Tunnel) -> None:
    client.shutdown(socket.SHUT_WR)
    target.send(b"answer")
    target.shutdown(socket.SHUT_WR)


def client_reset(client: socket.socket, _: socket.socket, __: Tunnel) -> None:
    reset(client)


def target_reset(_: socket.socket, target: socket.socket, __: Tunnel) -> None:
    reset(target)


def both_reset(client: socket.socket, target: socket.socket, _: Tunnel) -> None:
    reset(client)
    reset(target)


def close_with_data_unread(client: socket.socket, target: socket.socket, _: Tunnel) -> None:
    client.send(b"data")
    target.close()
    client.close()


def reset_after_the_end(client: socket.socket, target: socket.socket, _: Tunnel) -> None:
    client.shutdown(socket.SHUT_WR)
    target.send(b"data")
    run_loop()
    reset(client)


def reset_under_back_pressure(client: socket.socket, target: socket.socket, _: Tunnel) -> None:
    fill(client)
    run_loop()
    fill(client)
    reset(client)
    target.close()


def abort(_: socket.socket, __: socket.socket, tunnel: Tunnel) -> None:
    tunnel.abort()


def abort_under_back_pressure(client: socket.socket, _: socket.socket, tunnel: Tunnel) -> None:
    fill(client)
    run_loop()
    tunnel.abort()


ENDINGS = (
    client_first,
    target_first,
    half_by_half,
    client_reset,
    target_reset,
    both_reset,
    close_with_data_unread,
    reset_after_the_end,
    reset_under_back_pressure,
    abort,
    abort_under_back_pressure,
)


def reset(sock: socket.socket) -> None:
    reset_on_close(sock)
    sock.close()


def open_and_end(count: int, make_pair: Callable[[], tuple[socket.socket, socket.socket]]) -> None:
    """Open tunnels a few at a time and end them in all ways in turn."""
    for end in islice(cycle(ENDINGS), count):
        closed: list[Tunnel] = []
        (client, client_peer), (target, target_peer) = make_pair(), make_pair()
        for ours in (client, target):
            ours.setblocking(False)
        tunnel = Tunnel(
            Stream(client, get_hub()), Stream(target, get_hub()), lambda *_: None, closed.append
        )
        tunnel.start()
        end(client_peer, target_peer, tunnel)
        run_loop()
        for peer in (client_peer, target_peer):
            peer.close()
        for _ in range(1000):
            if closed:
                break
            run_loop()
        assert closed == [tunnel], f"the tunnel has not been ended by {end.__name__}"


def left_behind() -> dict[str, int]:
    """Count what a tunnel is made of and what it must not have made."""
    gc.collect()
    kinds = (Tunnel, Stream, Greenlet, socket.socket)
    alive = Counter(type(thing).__name__ for thing in gc.get_objects() if isinstance(thing, kinds))
    loop = get_hub().loop
    return {
        **alive,
        "descriptors": len(os.listdir("/proc/self/fd")),
        "active watchers": loop.activecnt,
        "pending callbacks": loop.pendingcnt,
    }


def test_ten_thousand_tunnels_of_all_endings_leave_nothing_behind() -> None:
    open_and_end(1000, socket.socketpair)
    before, memory_before = left_behind(), resident_kilobytes()
    open_and_end(8000, socket.socketpair)
    open_and_end(2000, tcp_pair)
    assert left_behind() == before
    assert resident_kilobytes() - memory_before < 1000


def test_tls_tunnels_of_all_endings_leave_nothing_behind(contexts: Contexts) -> None:
    def end_some(count: int) -> None:
        for end in islice(cycle(ENDINGS), count):
            joiner = Joiner(contexts)
            joined = joiner(client_tls=True, target_tls=True)
            end(joined.client.socket, joined.target.socket, joined.tunnel)
            if not joined.closings:
                assert joined.closed.wait(5), end.__name__
            joiner.close()

    end_some(len(ENDINGS))
    before = left_behind()
    end_some(10 * len(ENDINGS))
    assert left_behind() == before
