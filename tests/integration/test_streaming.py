"""Large bodies and slow ones pass through without being collected."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.kit.peers import (
    LargeBodyTarget,
    RawTarget,
    SseTarget,
    get,
    pattern_sha256,
    stalled,
    wait_until,
)
from tests.kit.peers.stream_targets import PATTERN
from tests.kit.server import OTHER_COMMAND, Proxy

AddRoute = Callable[[str], str]

SIZE = 100_000_000
MEMORY_GROWTH = 20_000_000
SAMPLE_EVERY = 0.05
EVENTS = 40
EVENT_LATENCY = 0.050


@contextmanager
def bounded_memory(proxy: Proxy) -> Iterator[None]:
    """Fail if the process tree is ever MEMORY_GROWTH bytes larger than at the start."""
    start = largest = proxy.rss()
    done = threading.Event()

    def watch() -> None:
        nonlocal largest
        while not done.wait(SAMPLE_EVERY):
            largest = max(largest, proxy.rss())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
    growth = largest - start
    assert OTHER_COMMAND or growth < MEMORY_GROWTH, f"grew by {growth / 1e6:.1f} MB"


@pytest.mark.parametrize("suffix", ["", "&chunked"], ids=["length", "chunked"])
def test_100_mb_come_down_in_little_memory(proxy: Proxy, add_route: AddRoute, suffix: str) -> None:
    with LargeBodyTarget() as target, proxy.client(timeout=30) as client:
        path = add_route(target.url)
        client.request(get(f"{path}?size=1000000{suffix}"))
        with bounded_memory(proxy):
            client.send(get(f"{path}?size={SIZE}{suffix}"))
            digest, length = hashlib.sha256(), 0
            for piece in client.iter_body(client.read_head()):
                digest.update(piece)
                length += len(piece)
    assert (length, digest.hexdigest()) == (SIZE, pattern_sha256(SIZE))


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_100_mb_go_up_in_little_memory(proxy: Proxy, add_route: AddRoute, chunked: bool) -> None:
    framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {SIZE}"
    with LargeBodyTarget() as target, proxy.client(timeout=30) as client:
        path = add_route(target.url)
        client.request(get(f"{path}?size=1000000"))
        with bounded_memory(proxy):
            client.send(f"POST {path} HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n")
            for start in range(0, SIZE, len(PATTERN)):
                piece = PATTERN[: min(len(PATTERN), SIZE - start)]
                client.send(b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece)
            if chunked:
                client.send(b"0\r\n\r\n")
            answer = json.loads(client.read_response().body)
    assert answer == {"length": SIZE, "sha256": pattern_sha256(SIZE)}


def test_a_client_that_does_not_read_slows_the_target_down(
    proxy: Proxy, add_route: AddRoute
) -> None:
    with LargeBodyTarget() as target, proxy.client(timeout=30) as client:
        path = add_route(target.url)
        with bounded_memory(proxy):
            client.send(get(f"{path}?size={SIZE}"))
            head = client.read_head()
            before = proxy.cpu_seconds()
            quiet_since = time.monotonic()

            def is_quiet() -> bool:
                nonlocal before, quiet_since
                now = proxy.cpu_seconds()
                if now != before:
                    before, quiet_since = now, time.monotonic()
                return time.monotonic() - quiet_since > 0.5

            wait_until(is_quiet, 20, "the proxy stopped reading from the target")
            assert sum(len(piece) for piece in client.iter_body(head)) == SIZE


def test_a_target_that_does_not_read_slows_the_client_down(
    proxy: Proxy, add_route: AddRoute
) -> None:
    read = threading.Event()

    def reply(exchange: object) -> None:
        read.wait(20)

    with RawTarget(reply) as target, proxy.client(timeout=1) as client:
        head = f"POST {add_route(target.url)} HTTP/1.1\r\nHost: a\r\nContent-Length: {SIZE}\r\n\r\n"
        with bounded_memory(proxy):
            client.send(head)
            with pytest.raises(TimeoutError):
                client.send(bytes(SIZE))
        read.set()
        client.reset()


@pytest.mark.ours
def test_the_head_of_an_answer_does_not_wait_for_its_body(
    proxy: Proxy, add_route: AddRoute
) -> None:
    go = threading.Event()
    early = b"HTTP/1.1 200 OK\r\nX-Early: 1\r\n\r\n"
    with RawTarget(stalled(go, first=early)) as target, proxy.client() as client:
        client.send(get(add_route(target.url)))
        assert client.read_head().get("x-early") == "1"
        go.set()


@pytest.mark.calm
def test_a_server_sent_event_arrives_within_50_ms(proxy: Proxy, add_route: AddRoute) -> None:
    with SseTarget() as target, proxy.client() as client:
        client.send(get(add_route(target.url)))
        answer = client.read_head()
        assert answer.get("content-type") == "text/event-stream"
        body = client.iter_body(answer)
        assert next(body) == SseTarget.GREETING
        latencies = []
        for number in range(EVENTS):
            sent = target.send_event(str(number))
            assert next(body) == f"data: {number}\n\n".encode()
            latencies.append(time.perf_counter() - sent)
        # One may fall into a moment in which the machine itself was busy elsewhere.
        assert sorted(latencies)[-2] < EVENT_LATENCY, sorted(latencies)[-5:]
