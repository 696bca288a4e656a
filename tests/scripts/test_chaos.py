"""Chaos blames a failure or a wait only on what explains it; what it breaks becomes whole again."""

from __future__ import annotations

import errno
import random
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from scripts.lib.chaos import catalogue, hostile
from scripts.lib.chaos.around import Around, all_there_or_counted
from scripts.lib.chaos.disturb import Disturber
from scripts.lib.chaos.flood_target import FloodTarget
from scripts.lib.chaos.home import Home, failing_forks, full_shm
from scripts.lib.chaos.isolation import Isolation, find_isolation
from scripts.lib.chaos.record import PATIENCE, Attempt, Delay, Kill, Record, not_held_up
from tests.kit.peers import wait_until
from tests.kit.peers.loopback import LoopbackServer
from tests.kit.server import free_ports


@pytest.mark.parametrize(
    ("delays", "expected"),
    [
        ([], 10),
        ([(0, 30)], 0),
        ([(12, 15)], 7),
        ([(12, 15), (14, 16)], 6),
        ([(14, 16), (12, 15)], 6),
        ([(12, 19), (13, 14)], 3),
        ([(0, 11), (19, 30)], 8),
        ([(0, 5), (25, 30)], 10),
        ([(15, float("inf"))], 5),
    ],
)
def test_of_a_wait_counts_what_no_delay_explains(
    delays: list[tuple[float, float]], expected: float
) -> None:
    assert not_held_up(10, 20, delays) == expected


def waited(record: Record, begin: float) -> Record:
    """A record in which a request from ``begin`` on was answered now."""
    record.took(Attempt("request", "GET /", "target0", 1000, begin, begin))
    record.judge()
    return record


def test_a_long_wait_is_a_fault() -> None:
    record = waited(Record(), time.monotonic() - 2 * PATIENCE)
    assert len(record.slow) == 1
    assert record.longest_wait == pytest.approx(2 * PATIENCE, abs=0.5)


def test_a_long_wait_for_who_was_stopped_is_none() -> None:
    now = time.monotonic()
    record = Record(delays=[Delay("a process stopped", now - 2 * PATIENCE, now)])
    assert waited(record, now - 2 * PATIENCE).slow == []


def test_a_delay_ends_with_its_block_or_lasts_twice_as_long() -> None:
    record = Record()
    with record.delay("stopped"):
        pass
    with record.delay("no forks", doubled=True):
        time.sleep(0.1)
    plain, doubled = record.delays
    assert plain.end - plain.begin < 0.05
    assert 0.2 <= doubled.end - doubled.begin < 0.4


def failed(record: Record, port: int) -> Record:
    begin = time.monotonic() - 0.01
    record.failed(Attempt("request", "GET /", "target0", port, begin, begin), "reset")
    record.judge()
    return record


def test_a_failure_on_a_killed_process_is_explained_and_no_other_is() -> None:
    def record() -> Record:
        return Record(kills=[Kill(time.monotonic(), "worker", frozenset({1000}))])

    assert failed(record(), 1000).explained == {"in flight on a killed worker": 1}
    assert len(failed(record(), 1001).unexplained) == 1


def test_failures_after_the_end_of_the_server_are_not_counted_one_by_one() -> None:
    record = failed(Record(ended=time.monotonic()), 1000)
    assert record.explained == {"when the server had ended": 1}


def test_each_disturbance_can_be_done() -> None:
    for disturbance in catalogue.CATALOGUE:
        doer = Disturber if disturbance.group == catalogue.AT_ONCE else Around
        assert callable(getattr(doer, disturbance.method))
    assert len(set(catalogue.NAMES)) == len(catalogue.NAMES)


@pytest.mark.parametrize(
    ("only", "expected"),
    [
        (catalogue.NAMES, [False, True]),
        (("fork", "kill-worker"), [False]),
        (("certificate-at-death",), [True]),
        (("certificate-at-death", "fork"), [False, True]),
        ((), []),
    ],
)
def test_a_run_has_the_servers_that_its_disturbances_need(
    only: tuple[str, ...], expected: list[bool]
) -> None:
    assert catalogue.settings(only) == expected


def test_certificates_are_broken_only_where_there_is_one() -> None:
    only = ("certificate-at-death", "fork")
    assert catalogue.suitable(only, tls=False) == ["fork"]
    assert catalogue.suitable(only, tls=True) == ["certificate-at-death", "fork"]


@pytest.mark.parametrize("truncated", [True, False])
def test_a_broken_certificate_can_not_be_loaded_and_is_whole_again(
    tmp_path: Path, truncated: bool
) -> None:
    home = Home(tmp_path, Isolation(), tls=True)
    key, cert = home.flags[1], home.flags[3]

    def load() -> None:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key)

    load()
    with home.broken_certificate(truncated=truncated), pytest.raises(ssl.SSLError):
        load()
    load()


def test_a_broken_package_can_not_be_imported_and_is_whole_again(tmp_path: Path) -> None:
    home = Home(tmp_path, Isolation(), tls=False)

    def imported() -> int:
        command = [sys.executable, "-c", "import sys; sys.path[0] = sys.argv[1]; import chp_gevent"]
        done = subprocess.run([*command, str(home.folder)], capture_output=True, check=False)
        return done.returncode

    assert imported() == 0
    for _ in range(2):
        with home.broken_package():
            assert imported() == 1
        assert imported() == 0


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["404 GET /a/x", "404 GET /b/x"], True),
        (["404 GET /a/x"], False),
        (["404 GET /a/x", "warn: 1 log line was dropped: nobody read the log for 3 s"], True),
        (["404 GET /a/x", "warn: 13 log lines were dropped"], True),
        ([], False),
    ],
)
def test_lines_that_are_not_in_the_log_must_be_counted(lines: list[str], expected: bool) -> None:
    assert all_there_or_counted(lines, {"/a/", "/b/"}) is expected


@pytest.mark.parametrize(
    ("status", "expected"), [(None, 1), (3, 0)], ids=["server up", "server ended"]
)
def test_what_does_not_come_in_time_is_a_fault_of_a_server_that_lives(
    status: int | None, expected: int
) -> None:
    record = Record()
    proxy: Any = SimpleNamespace(process=SimpleNamespace(poll=lambda: status))
    home: Any = None
    around = Around(home, proxy, record, random.Random(1), lambda *_: None, lambda: ([], []))
    around._expect(lambda: True, 0.05, "what is there")
    assert record.not_kept == []
    around._expect(lambda: False, 0.05, "what never comes")
    assert len(record.not_kept) == expected


@cache
def isolation() -> Isolation:
    return find_isolation()


def possible(name: str) -> None:
    """Skip the test where this system or user does not allow it."""
    if name in isolation().missing:
        pytest.skip(isolation().missing[name])


@contextmanager
def obedient(program: str) -> Iterator[subprocess.Popen[str]]:
    """A Python process, started as the server would be; it has said ``ready``."""
    with subprocess.Popen(
        [*isolation().prefix, sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def told(process: subprocess.Popen[str]) -> str:
    """Have the process act once; return what it says."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    return process.stdout.readline().strip()


FORKER = """
import os, sys, time
if os.fork() == 0:
    time.sleep(60)
print("ready", flush=True)
for line in sys.stdin:
    try:
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
        print(0, flush=True)
    except OSError as error:
        print(error.errno, flush=True)
"""

FILER = """
import os, sys, tempfile
held = tempfile.TemporaryFile(dir="/dev/shm")
print("ready", flush=True)
for line in sys.stdin:
    held.close()
    try:
        held = tempfile.TemporaryFile(dir="/dev/shm")
        print(0, flush=True)
    except OSError as error:
        print(error.errno, flush=True)
"""


def test_forks_fail_for_a_while() -> None:
    possible("fork")
    with obedient(FORKER) as process:
        assert told(process) == "0"
        with failing_forks(process.pid, isolation()):
            assert told(process) == str(errno.EAGAIN)
        assert told(process) == "0"


def test_a_full_shm_has_no_room_for_the_successor_of_a_file_either() -> None:
    possible("shm")
    with obedient(FILER) as process:
        assert told(process) == "0"
        with full_shm(process.pid):
            assert told(process) == str(errno.ENOSPC)
        assert told(process) == "0"
    # Nobody else's is meant.
    assert not list(Path("/dev/shm").glob("full-*"))


@pytest.mark.parametrize("up", [True, False])
def test_tiny_chunks_go_on_for_their_time(up: bool) -> None:
    (port,) = free_ports(1)
    with FloodTarget(port):
        begin = time.monotonic()
        hostile.tiny_chunks(("127.0.0.1", port), None, "/flood/x", 0.3, up=up)
        assert 0.25 < time.monotonic() - begin < 3


class Silent(LoopbackServer):
    """Waits for the other side's end."""

    def serve(self, connection: socket.socket, index: int) -> None:
        connection.recv(1)


def test_silent_connections_are_there_at_once_and_go_together() -> None:
    with Silent() as server:
        opened = threading.Event()
        address = (server.host, server.port)
        thread = threading.Thread(target=hostile.hold_silent, args=(address, 50, 0.3, opened))
        thread.start()
        opened.wait(5)
        server.wait_for_connections(50)
        thread.join()
        server.wait_for_connections(0)


def test_a_log_that_is_not_read_is_read_later(tmp_path: Path) -> None:
    home = Home(tmp_path, Isolation(), tls=False)
    with home.server("--workers", "1") as proxy:
        position = proxy.log_position()
        proxy.reading.clear()
        proxy.api.add("/unread", "http://127.0.0.1:9")
        proxy.api.routes()
        assert proxy.log_after(position) == []
        proxy.reading.set()
        wait_until(lambda: proxy.log_after(position), 5, "what was written meanwhile")
