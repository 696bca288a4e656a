"""A running server between clients and a target that both send mutated messages."""

from __future__ import annotations

import secrets
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from scripts.lib.fuzz.clients import MutatingClient, Prober, converse
from scripts.lib.fuzz.findings import Conversation, Findings, read
from scripts.lib.fuzz.target import TOKEN_FIELD, CalmTarget, FuzzTarget
from tests.kit import processes
from tests.kit.crash_lines import CRASH
from tests.kit.server import Proxy, start_proxy

WORKERS = 2
CLIENTS = 16
# What a worker may grow by, in bytes: what is remembered of messages is at most 26 MB.
MOST_GROWTH = 60 << 20
# Descriptors that a worker may have more than at its start: connections to the target that wait
# for other requests, as many as there were requests at once, and clients that linger.
MOST_DESCRIPTORS = 32
# Seconds until those of clients that have left are closed.
SETTLING = 20.0
_FLAGS = "--proxy-timeout 1500 --timeout 4000 --body-timeout 4000 --header-timeout 4000".split()


@dataclass(frozen=True)
class Usage:
    """What a process holds: resident memory in bytes, and open descriptors."""

    rss: int
    descriptors: int


def fuzz(seconds: float, seed: int, folder: Path) -> Findings:
    """Fuzz a server of its own for so many seconds; return what was found.

    Writes ``server.log``, and ``live.json`` with what was found, into the folder.
    """
    warm_up = min(60.0, seconds / 3)
    with _server(seed, folder) as (proxy, findings):
        at_start = _usage(proxy.worker_pids())
        stop = threading.Event()
        clients: list[threading.Thread] = [
            MutatingClient(proxy.address, findings, f"{seed} {number}", stop)
            for number in range(CLIENTS)
        ]
        clients.append(Prober(proxy.address, findings, stop))
        for client in clients:
            client.start()
        end = time.monotonic() + seconds
        # What is remembered of messages has filled up by then, mostly.
        _wait_until(time.monotonic() + warm_up, findings)
        warm = _usage(set(at_start))
        _wait_until(end, findings)
        stop.set()
        for client in clients:
            client.join(15)
        judge_processes(proxy.worker_pids(), at_start, warm, findings)
    return findings


def replay(path: Path, folder: Path) -> Findings:
    """Do again, to a server of its own, what a file of findings has."""
    involved, others = read(path)
    with _server(0, folder) as (proxy, findings):
        at_start = _usage(proxy.worker_pids())
        prober = Prober(proxy.address, findings, threading.Event())
        for conversation in involved:
            converse(proxy.address, conversation, findings)
        prober.probe()

        def again(conversation: Conversation) -> None:
            converse(proxy.address, conversation, findings)

        with ThreadPoolExecutor(CLIENTS) as pool:
            list(pool.map(again, [*others, *involved]))
        prober.probe()
        judge_processes(proxy.worker_pids(), at_start, _usage(set(at_start)), findings)
    return findings


@contextmanager
def _server(seed: int, folder: Path) -> Iterator[tuple[Proxy, Findings]]:
    """Run a server with a target until the block ends; look at its log, and write all down."""
    findings = Findings()
    token = secrets.token_hex(16)
    flags = [*_FLAGS, "--custom-header", f"{TOKEN_FIELD}: {token}"]
    with (
        _watched_threads(findings),
        FuzzTarget(findings, seed, token) as target,
        CalmTarget() as calm_target,
        start_proxy(*flags, "--default-target", target.url, workers=WORKERS) as proxy,
    ):
        proxy.api.add("/probe", calm_target.url)
        yield proxy, findings
    judge_log(proxy.log(), findings)
    (folder / "server.log").write_text(proxy.log(), "utf-8")
    if findings.found:
        findings.write(folder / "live.json")


@contextmanager
def _watched_threads(findings: Findings) -> Iterator[None]:
    """A thread that fails looks for nothing any more: that is a finding, too."""
    before = threading.excepthook

    def take_note(failed: threading.ExceptHookArgs) -> None:
        where = traceback.format_tb(failed.exc_traceback)[-1].strip()
        findings.add(f"a thread of the fuzzer failed: {failed.exc_value!r}, {where}")

    threading.excepthook = take_note
    try:
        yield
    finally:
        threading.excepthook = before


def _wait_until(end: float, findings: Findings) -> None:
    """Wait until then, or until something is found."""
    while (left := end - time.monotonic()) > 0 and not findings.found:
        time.sleep(min(0.5, left))


def _usage(pids: set[int]) -> dict[int, Usage]:
    """Return what those of these processes hold that live."""
    found = {}
    for pid in pids:
        status = processes.status(pid)
        if status is not None:
            found[pid] = Usage(status.rss, processes.open_descriptors(pid))
    return found


def judge_processes(
    workers: set[int],
    at_start: dict[int, Usage],
    warm: dict[int, Usage],
    findings: Findings,
    settling: float = SETTLING,
) -> None:
    """Look whether the workers are the same, and hold no more than they may."""
    if workers != set(at_start):
        findings.add(f"workers {sorted(at_start)} are {sorted(workers)} now")

    def more_descriptors() -> dict[int, int]:
        return {
            pid: usage.descriptors - at_start[pid].descriptors
            for pid, usage in _usage(set(at_start)).items()
        }

    more = _settled(more_descriptors, settling)
    for pid, usage in _usage(set(at_start)).items():
        grown = usage.rss - warm.get(pid, usage).rss
        findings.counts[f"KiB more in worker {pid}"] = grown >> 10
        findings.counts[f"descriptors more in worker {pid}"] = more[pid]
        if grown > MOST_GROWTH:
            findings.add(f"worker {pid} has grown by {grown >> 20} MiB")
        if more[pid] > MOST_DESCRIPTORS:
            findings.add(f"worker {pid} has {more[pid]} descriptors more than at its start")


def _settled(more: Callable[[], dict[int, int]], seconds: float) -> dict[int, int]:
    """Return numbers of descriptors once they are few, or when the time is over."""
    end = time.monotonic() + seconds
    while max((found := more()).values(), default=0) > MOST_DESCRIPTORS:
        if time.monotonic() > end:
            break
        time.sleep(0.5)
    return found


def judge_log(log: str, findings: Findings) -> None:
    """Look whether the log says that something is wrong with the server itself."""
    for line in log.splitlines():
        if CRASH.search(line):
            findings.add(f"log: {line}")
