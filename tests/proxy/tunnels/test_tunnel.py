"""What a tunnel passes on, how fairly, and what it costs while nothing happens."""

from __future__ import annotations

import hashlib
import random
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from chp_gevent.http.stream import READ, WRITE, Stream
from tests.kit.tunnel_pairs import (
    Joiner,
    at_once,
    in_background,
    in_thread,
    run_loop,
    run_until,
    run_until_still,
)

MEGABYTE = 1 << 20
ROOT = Path(__file__).parents[3]

PLAIN_AND_TLS = pytest.mark.parametrize(
    "tls",
    [
        pytest.param((False, False), id="plain-plain"),
        pytest.param((True, False), id="tls-plain"),
        pytest.param((False, True), id="plain-tls"),
        pytest.param((True, True), id="tls-tls"),
    ],
)
BOTH_WAYS = pytest.mark.parametrize(
    "way",
    [
        pytest.param(("client", "target"), id="up"),
        pytest.param(("target", "client"), id="down"),
    ],
)


# -- what passes


@PLAIN_AND_TLS
def test_bytes_pass_unchanged_in_both_directions_at_once(
    join: Joiner, tls: tuple[bool, bool]
) -> None:
    joined = join(*tls)
    up, down = random.randbytes(8 * MEGABYTE), random.randbytes(8 * MEGABYTE)
    _, _, at_target, at_client = at_once(
        partial(joined.client.send, up),
        partial(joined.target.send, down),
        partial(joined.target.receive_exactly, len(up)),
        partial(joined.client.receive_exactly, len(down)),
    )
    assert at_target == up
    assert at_client == down
    assert joined.tunnel.bytes_from_client == len(up)
    assert joined.tunnel.bytes_to_client == len(down)


@PLAIN_AND_TLS
def test_early_bytes_come_first_and_are_counted(join: Joiner, tls: tuple[bool, bool]) -> None:
    joined = join(
        *tls, early_from_client=b"early up ", early_from_target=b"early down ", start=False
    )
    # These wait in the sockets, and with TLS maybe decrypted, when the tunnel starts.
    at_once(partial(joined.client.send, b"late up"), partial(joined.target.send, b"late down"))
    joined.tunnel.start()
    up, down = at_once(
        partial(joined.target.receive_exactly, 16), partial(joined.client.receive_exactly, 20)
    )
    assert (up, down) == (b"early up late up", b"early down late down")
    assert joined.tunnel.bytes_from_client == 16
    assert joined.tunnel.bytes_to_client == 20


@PLAIN_AND_TLS
def test_early_bytes_larger_than_any_buffer_arrive_whole(
    join: Joiner, tls: tuple[bool, bool]
) -> None:
    early = random.randbytes(12 * MEGABYTE)
    joined = join(*tls, early_from_client=early)
    assert in_thread(joined.target.receive_exactly, len(early)) == early


def test_data_that_was_decrypted_before_the_start_is_not_forgotten(join: Joiner) -> None:
    joined = join(client_tls=True, start=False)
    joined.client.send(b"head, tail")
    assert joined.client_stream.read(6) == b"head, "
    joined.tunnel.start()
    assert in_thread(joined.target.receive_exactly, 4) == b"tail"


def test_every_transfer_is_reported_with_its_direction(join: Joiner) -> None:
    joined = join()
    joined.client.send(b"ping")
    assert in_thread(joined.target.receive_exactly, 4) == b"ping"
    joined.target.send(b"answer")
    assert in_thread(joined.client.receive_exactly, 6) == b"answer"
    assert joined.transfers == [(4, True), (6, False)]


# -- a reader that stops


@PLAIN_AND_TLS
@BOTH_WAYS
def test_a_reader_that_stops_stops_its_writer_at_the_cost_of_no_memory(
    join: Joiner, tls: tuple[bool, bool], way: tuple[str, str]
) -> None:
    joined = join(*tls)
    writer, reader = joined.ends(way)
    piece, pieces = random.randbytes(MEGABYTE), 200

    def write() -> None:
        for _ in range(pieces):
            writer.send(piece)

    def read() -> bytes:
        digest = hashlib.sha256()
        left = pieces * len(piece)
        while left:
            data = reader.receive()
            digest.update(data)
            left -= len(data)
        return digest.digest()

    before = resident_kilobytes()
    writing = in_background(write)
    passed = run_until_still(lambda: sum(size for size, _ in joined.transfers))
    assert passed < 50 * MEGABYTE, "the writer was not stopped"
    assert resident_kilobytes() - before < 5000

    expected = hashlib.sha256()
    for _ in range(pieces):
        expected.update(piece)
    assert in_thread(read) == expected.digest()
    writing.get(timeout=10)


@PLAIN_AND_TLS
def test_the_other_direction_goes_on_while_one_is_stopped(
    join: Joiner, tls: tuple[bool, bool]
) -> None:
    joined = join(*tls)
    in_background(partial(joined.client.send, bytes(50 * MEGABYTE)))
    run_until_still(lambda: joined.tunnel.bytes_from_client)
    joined.target.send(b"still here")
    assert in_thread(joined.client.receive_exactly, 10) == b"still here"
    # Lets the sending thread end.
    in_thread(joined.target.receive_exactly, 50 * MEGABYTE)


# -- waiting costs nothing, and never the others' time


def test_half_a_tls_record_is_waited_for_without_spinning(join: Joiner) -> None:
    joined = join(client_tls=True, target_tls=True)
    record = joined.client.on_the_wire(b"one message")
    joined.client.socket.sendall(record[:10])
    run_loop(0.05)
    assert cpu_while_waiting() < 0.1
    joined.client.socket.sendall(record[10:])
    assert in_thread(joined.target.receive_exactly, 11) == b"one message"


@PLAIN_AND_TLS
def test_a_stopped_reader_is_waited_for_without_spinning(
    join: Joiner, tls: tuple[bool, bool]
) -> None:
    joined = join(*tls)
    in_background(partial(joined.client.send, bytes(50 * MEGABYTE)))
    run_until_still(lambda: joined.tunnel.bytes_from_client)
    assert cpu_while_waiting() < 0.1
    in_thread(joined.target.receive_exactly, 50 * MEGABYTE)


@PLAIN_AND_TLS
def test_an_end_that_was_passed_on_is_not_looked_at_again(
    join: Joiner, tls: tuple[bool, bool]
) -> None:
    joined = join(*tls)
    joined.client.shut_writing()
    assert in_thread(joined.target.receive_all) == b""
    assert cpu_while_waiting() < 0.1


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_a_busy_tunnel_does_not_starve_another(join: Joiner, tls: bool) -> None:
    order: list[str] = []
    busy = join(client_tls=tls, on_transfer=lambda *_: order.append("busy"), start=False)
    calm = join(on_transfer=lambda *_: order.append("calm"), start=False)
    # Both have something to read before the loop runs for the first time.
    busy.client.send(bytes(MEGABYTE))
    calm.client.send(b"ping")
    busy.tunnel.start()
    calm.tunnel.start()
    run_until(lambda: "calm" in order, "a turn of the calm tunnel")
    assert order.index("calm") <= 4


# -- TLS may have to write before it reads, and the other way round


class WritesBeforeReading(Stream):
    """A stream whose first read needs the socket to be writable, as during a key update."""

    __slots__ = ("reads",)

    def __init__(self, sock: Any, hub: Any) -> None:
        super().__init__(sock, hub)
        self.reads = 0
        self.port = self

    def try_read(self, size: int = 65536) -> bytes | None:
        """Refuse once."""
        self.reads += 1
        return None if self.reads == 1 else super().try_read(size)

    @property
    def read_event(self) -> int:
        """Want to write first."""
        return WRITE if self.reads == 1 else READ


class ReadsBeforeWriting(Stream):
    """A stream whose first write needs something from the peer."""

    __slots__ = ("writes",)

    def __init__(self, sock: Any, hub: Any) -> None:
        super().__init__(sock, hub)
        self.writes = 0
        self.port = self

    def try_write(self, data: bytes | memoryview) -> int:
        """Refuse once."""
        self.writes += 1
        return 0 if self.writes == 1 else super().try_write(data)

    @property
    def write_event(self) -> int:
        """Want to read first."""
        return READ


def test_a_read_that_needs_to_write_first_waits_for_that(join: Joiner) -> None:
    joined = join(stream_class=WritesBeforeReading)
    stream = joined.target_stream
    assert isinstance(stream, WritesBeforeReading)
    run_until(lambda: stream.reads == 2, "the second attempt")
    joined.target.send(b"hello")
    assert in_thread(joined.client.receive_exactly, 5) == b"hello"


def test_a_write_that_needs_to_read_first_waits_for_that(join: Joiner) -> None:
    joined = join(stream_class=ReadsBeforeWriting)
    stream = joined.target_stream
    assert isinstance(stream, ReadsBeforeWriting)
    joined.client.send(b"question")
    run_until(lambda: stream.writes == 1, "the first attempt")
    assert cpu_while_waiting() < 0.1
    assert stream.writes == 1
    joined.target.send(b"word")
    assert in_thread(joined.target.receive_exactly, 8) == b"question"
    assert in_thread(joined.client.receive_exactly, 4) == b"word"


# -- sockets and memory


def test_both_sockets_are_probed_and_send_at_once(join: Joiner) -> None:
    joined = join()
    for stream in (joined.client_stream, joined.target_stream):
        assert stream.sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert stream.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) <= 60
        assert stream.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


IDLE_TUNNELS = """
import _socket, resource, socket
from gevent import get_hub, sleep
from chp_gevent.http.stream import Stream
from chp_gevent.proxy.tunnels.tunnel import Tunnel

def transferred(tunnel, size, from_client):
    pass

def open_tunnels(count):
    for _ in range(count):
        ends = []
        for _ in range(2):
            ours, theirs = socket.socketpair()
            ours = _socket.socket(fileno=ours.detach())
            ours.setblocking(False)
            peers.append(theirs.detach())
            ends.append(Stream(ours, get_hub()))
        tunnels.append(Tunnel(*ends, transferred, tunnels.remove))
        tunnels[-1].start()
    sleep(0.01)

def resident():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize()

hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
count = min(2000, (hard - 1000) // 5)
peers, tunnels = [], []
open_tunnels(count // 4)
before = resident()
open_tunnels(count)
print((resident() - before) // count)
"""


def test_an_idle_tunnel_costs_less_than_1600_bytes() -> None:
    printed = subprocess.run(
        [sys.executable, "-c", IDLE_TUNNELS], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert int(printed.stdout) < 1600


def resident_kilobytes() -> int:
    """Return the resident memory of this process, in KiB."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])


def cpu_while_waiting() -> float:
    """Run the event loop for 0.3 s; return the CPU seconds that took."""
    before = time.thread_time()
    run_loop(0.3)
    return time.thread_time() - before
