"""The cases about who waits for whom: small requests beside heavy traffic on one worker."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from scripts.lib.bench import processes
from scripts.lib.bench.definitions import BESIDE, Case, Measurement, Row, Surroundings
from scripts.lib.bench.latencies import Latencies
from scripts.lib.bench.loads import GRACE_SECONDS, Load, Upload, Wrk
from scripts.lib.bench.processes import BenchError
from scripts.lib.bench.proxies import Contender, RunningProxy, Setup
from scripts.lib.bench.targets import MB
from scripts.lib.bench.toolbox import PROGRAMS
from scripts.lib.bench.warming import warm_up

RATE = 50  # small requests a second
LEAD = 1.5  # seconds of the other traffic before they count
LATE_MS = 5.0  # a client that sends so late itself is worth a remark
TRANSFERS = 4  # downloads, and as many uploads, under way at any time

Traffic = Callable[[RunningProxy, float], "Other"]


@dataclass(frozen=True)
class Other:
    """What the traffic beside the small requests was.

    Attributes:
        words: how much it was, for the report.
        broke: what the proxy broke off of it, in words, or nothing.
    """

    words: str
    broke: str = ""


def steady(proxy: RunningProxy, path: str, lead: float, seconds: float) -> Latencies:
    """Small requests on schedule, by a process of their own that does nothing else."""
    command = [sys.executable, str(PROGRAMS / "steady_client.py")]
    command += [proxy.url(path), str(RATE), str(lead), str(seconds)]
    output = processes.run(command, lead + seconds + GRACE_SECONDS)
    result = json.loads(output.splitlines()[-1])
    return Latencies(result["ms"], result["failed"], result["late_ms"])


def bulk(proxy: RunningProxy, seconds: float) -> Other:
    """Downloads and uploads of 10 MB, each followed by the next one at once."""
    downloads = Wrk("/10m", connections=TRANSFERS, unit_bytes=10 * MB)
    uploads = Upload(10 * MB, TRANSFERS, "/upload/10m")
    with ThreadPoolExecutor() as pool:
        up: Future[Load] = pool.submit(uploads, proxy, seconds)
        down = downloads(proxy, seconds)
    rates = [10 * load.units / load.seconds for load in (down, up.result())]
    return Other(f"{rates[0]:,.0f} MB/s down and {rates[1]:,.0f} MB/s up")


def tiny_chunks(proxy: RunningProxy, seconds: float) -> Other:
    """One upload in chunks of one byte."""
    program = str(PROGRAMS / "tiny_chunks_client.py")
    arguments = ["127.0.0.1", str(proxy.place.port), "/swallow/x", str(seconds)]
    output = processes.run([sys.executable, program, *arguments], seconds + GRACE_SECONDS)
    result = json.loads(output.splitlines()[-1])
    reasons = Counter(result["broken"])
    times = ", ".join(f"{count} × {why}" for why, count in reasons.most_common(3))
    broke = f"upload broken off {reasons.total()} times ({times})" if reasons else ""
    chunks = result["sent"] / len(b"1\r\na\r\n") / seconds
    return Other(f"{chunks:,.0f} chunks a second", broke)


def _case(key: str, title: str, traffic: Traffic, *, tls: bool = False) -> Case:
    def run(around: Surroundings, contender: Contender) -> Iterator[Measurement]:
        targets = around.targets
        elsewhere = (
            ("small", targets.small),
            ("upload", targets.sink),
            ("swallow", targets.swallow),
        )
        setup = Setup(targets.files, tls=tls, elsewhere=elsewhere)
        with contender.running(setup, around.folder, around.tools) as proxy:
            warm_up(around.timing, proxy, Wrk("/small/1k"))
            yield _measure(around.timing.steady, proxy, key, traffic)

    return Case(key, (Row(key, title, "request", BESIDE),), run)


def _measure(seconds: float, proxy: RunningProxy, key: str, traffic: Traffic) -> Measurement:
    with ThreadPoolExecutor() as pool:
        # It goes on until the last of the small requests has been sent.
        other = pool.submit(traffic, proxy, LEAD + seconds + 0.5)
        small = steady(proxy, "/small/1k", LEAD, seconds)
    if not small.total:
        raise BenchError("no request was sent")
    memory = proxy.memory()
    broken = [small.failures(), other.result().broke]
    if proxy.process.poll() is not None:
        broken.append(f"the proxy ended with {proxy.process.returncode}")
    extra = {"other traffic": other.result().words}
    if small.late_ms > LATE_MS:
        extra["requests sent late, p99"] = f"{small.late_ms:.1f} ms"
    return Measurement(
        key,
        p50_ms=small.percentile(50),
        p99_ms=small.percentile(99),
        memory=memory,
        broke="; ".join(filter(None, broken)),
        extra=extra,
    )


def beside_cases() -> list[Case]:
    """The cases, in the order of the report."""
    transfers = f"{TRANSFERS} downloads and {TRANSFERS} uploads of 10 MB"
    return [
        _case("beside-bulk", f"1 KB beside {transfers}", bulk),
        _case("beside-bulk-tls", f"HTTPS: 1 KB beside {transfers}", bulk, tls=True),
        _case("beside-tiny-chunks", "1 KB beside an upload in chunks of one byte", tiny_chunks),
    ]
