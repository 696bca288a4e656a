"""Load for one measurement: wrk and the programs beside it, as processes with a time limit."""

from __future__ import annotations

import contextlib
import json
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from scripts.lib.bench.processes import BenchError, run, running
from scripts.lib.bench.proxies import RunningProxy
from scripts.lib.bench.toolbox import PROGRAMS

GRACE_SECONDS = 60.0
TOLERATED_ERRORS = 0.001

# Cycles through the paths of a file (one a line), so that every route is looked up in turn.
WRK_SCRIPT = """
local requests, last = {}, 0
function init(args)
  if args[1] then
    for path in io.lines(args[1]) do
      requests[#requests + 1] = wrk.format("GET", path)
    end
  end
  if #requests > 0 then
    request = function()
      last = last % #requests + 1
      return requests[last]
    end
  end
end
function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    '\\nRESULT {"requests":%d,"bytes":%d,"us":%d,"p50":%f,"p99":%f,"connect":%d,' ..
    '"read":%d,"write":%d,"status":%d,"timeout":%d}\\n',
    summary.requests, summary.bytes, summary.duration, latency:percentile(50),
    latency:percentile(99), e.connect, e.read, e.write, e.status, e.timeout))
end
"""


@dataclass(frozen=True)
class Load:
    """What a load generator got done.

    Attributes:
        units: pieces of work (requests, messages …; may be a fraction).
        seconds: time they took.
        p50_ms, p99_ms: latency of a piece, in milliseconds.
        note: remark for the report, e.g. a few failed requests.
    """

    units: float
    seconds: float
    p50_ms: float | None = None
    p99_ms: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Wrk:
    """A run of wrk against a proxy.

    Attributes:
        path: what is requested, unless ``paths`` names a file with many.
        connections: how many are kept busy.
        unit_bytes: size of the response body where work is counted in bytes (big downloads,
            some of which are under way at the end), else 0.
        new_connections: a connection for each request.
    """

    path: str = "/1k"
    connections: int = 32
    unit_bytes: int = 0
    new_connections: bool = False
    paths: Path | None = None

    def __call__(self, proxy: RunningProxy, seconds: float) -> Load:
        """Run it; raises BenchError when requests fail."""
        folder = proxy.place.folder
        script = folder / "wrk.lua"
        script.write_text(WRK_SCRIPT, "utf-8")
        command = [proxy.place.tools.system("wrk"), "-t1", f"-c{self.connections}"]
        command += [f"-d{math.ceil(seconds)}s", "--timeout", "20s", "--latency", "-s", str(script)]
        if self.new_connections:
            command += ["-H", "Connection: close"]
        command += [proxy.url(self.path)]
        if self.paths is not None:
            command += ["--", str(self.paths)]
        output = run(command, seconds + GRACE_SECONDS)
        result = json.loads(output.rpartition("RESULT ")[2])
        return self._load(result)

    def _load(self, result: dict[str, float]) -> Load:
        failures = {
            kind: int(result[kind])
            for kind in ("connect", "read", "write", "status", "timeout")
            if result[kind]
        }
        note = ", ".join(f"{count} {kind} errors" for kind, count in failures.items())
        units = result["bytes"] / self.unit_bytes if self.unit_bytes else result["requests"]
        if not units or sum(failures.values()) > TOLERATED_ERRORS * result["requests"]:
            raise BenchError(f"wrk: {int(result['requests'])} requests, {note or 'no error'}")
        return Load(units, result["us"] / 1e6, result["p50"] / 1000, result["p99"] / 1000, note)


@dataclass(frozen=True)
class Upload:
    """POSTs of ``size`` bytes over a few keep-alive connections."""

    size: int
    connections: int
    path: str = "/upload"

    def __call__(self, proxy: RunningProxy, seconds: float) -> Load:
        """Run it; raises BenchError when an upload fails."""
        arguments = [proxy.url(self.path), self.connections, self.size, seconds]
        return _program(["upload_client.py", *arguments], seconds)


@dataclass(frozen=True)
class Handshakes:
    """Requests over TLS 1.3 with a new connection each.

    Not by wrk, which resumes some of its sessions, and all of them with a server that has TLS 1.2
    only.

    Attributes:
        kind: ``full`` for clients that come for the first time, ``resumed`` for those that come
            back with the session of their last connection.
        connections: how many are kept busy.
    """

    kind: str
    connections: int = 32
    path: str = "/1k"

    def __call__(self, proxy: RunningProxy, seconds: float) -> Load:
        """Run it; raises BenchError when a request fails, or a handshake is of the other kind."""
        arguments = [proxy.url(self.path), self.connections, self.kind, seconds]
        return _program(["handshake_client.py", *arguments], seconds)


@dataclass(frozen=True)
class WebSocketEcho:
    """Messages of ``size`` bytes, one under way on each connection."""

    size: int
    connections: int

    def __call__(self, proxy: RunningProxy, seconds: float) -> Load:
        """Run it; raises BenchError when an echo fails."""
        arguments = [proxy.place.port, self.connections, self.size, seconds]
        return _program(["websocket_client.py", "echo", "127.0.0.1", *arguments], seconds)


def _program(arguments: list[object], seconds: float) -> Load:
    program, *rest = (str(argument) for argument in arguments)
    output = run([sys.executable, str(PROGRAMS / program), *rest], seconds + GRACE_SECONDS)
    result = json.loads(output.splitlines()[-1])
    if result["errors"] or not result["units"]:
        raise BenchError(f"{program}: {(result['errors'] or ['nothing done'])[0]}")
    return Load(result["units"], result["seconds"], result["p50_ms"], result["p99_ms"])


@contextlib.contextmanager
def idle_websockets(proxy: RunningProxy, connections: int) -> Iterator[None]:
    """Open WebSockets that say nothing, for the time of a ``with`` block.

    Raises:
        BenchError: not all could be opened, or not all still worked at the end.
    """
    program = str(PROGRAMS / "websocket_client.py")
    arguments = ["idle", "127.0.0.1", str(proxy.place.port), str(connections)]
    log = proxy.place.folder / "idle.log"
    with running([sys.executable, program, *arguments], log, piped=True) as client:
        assert client.stdout is not None
        assert client.stdin is not None
        opened = json.loads(client.stdout.readline() or '{"open": 0, "error": "client died"}')
        if opened["open"] != connections:
            raise BenchError(f"{opened['open']} of {connections} tunnels: {opened['error']}")
        yield
        client.stdin.close()
        alive = json.loads(client.stdout.readline() or '{"alive": 0}')["alive"]
        if alive != connections:
            raise BenchError(f"only {alive} of {connections} tunnels still worked at the end")


@contextlib.contextmanager
def route_changes(proxy: RunningProxy, rate: int, seconds: float) -> Iterator[None]:
    """Routes added and deleted at a steady rate for the time of a ``with`` block."""
    place, target = proxy.place, proxy.setup.target_url
    arguments = [place.api_port, place.token, rate, seconds, target]
    command = [sys.executable, str(PROGRAMS / "churn_client.py"), *map(str, arguments)]
    with running(command, place.folder / "churn.log", piped=True) as client:
        yield
        assert client.stdout is not None
        line = client.stdout.readline()
        result = json.loads(line or '{"units": 0, "wrong": 0}')
        if result["wrong"] or result["units"] < 0.9 * rate * seconds:
            raise BenchError(
                f"{result['units']} of {rate * seconds:.0f} route changes were made, "
                f"{result['wrong']} with a wrong answer"
            )
