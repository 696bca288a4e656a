"""The work of one slice: wrk and the client programs at the same time, as processes."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.lib.bench.processes import BenchError, run, running
from scripts.lib.bench.routes_api import RoutesApi, route_name
from scripts.lib.bench.targets import started_targets
from scripts.lib.bench.toolbox import REPOSITORY, Toolbox
from scripts.lib.soak import wrk
from scripts.lib.soak.plan import CHANGING_ROUTES, CHECKED, WRK_KINDS, Slice, turns
from tests.kit.server import TOKEN, Proxy

LIMIT_SECONDS = 600.0
KB = 1024
WRK_REQUESTS = {
    "keep-alive": wrk.Requests("/kept/files/@/1k", size=KB),
    "new connection": wrk.Requests("/kept/files/@/1k", size=KB, closing=True),
    "varied answer": wrk.Requests("/kept/own/@/varied", size=KB),
    "post": wrk.Requests("/kept/sink/@", size=len("ok"), method="POST"),
    "no route": wrk.Requests("/nowhere/@", status=404),
    "dead target": wrk.Requests("/kept/dead/@", status=503),
}


@contextmanager
def started_programs(tools: Toolbox, folder: Path) -> Iterator[dict[str, int]]:
    """All targets for the time of a ``with`` block: their ports by name.

    ``files`` is nginx, ``sink`` reads uploads, ``own`` is :mod:`scripts.lib.soak.target`.
    """
    command = [sys.executable, "-m", "scripts.lib.soak.target"]
    with (
        started_targets(tools, folder) as targets,
        running(command, folder / "own.log", _environment(), piped=True) as own,
    ):
        assert own.stdout is not None
        line = own.stdout.readline()
        if not line:
            raise BenchError(f"soak target: {(folder / 'own.log').read_text('utf-8')}")
        yield {"files": targets.files, "sink": targets.sink, "own": int(line)}


def _environment() -> dict[str, str]:
    return {"PYTHONPATH": str(REPOSITORY)}


@dataclass(frozen=True)
class Load:
    """Sends work to a proxy.

    Attributes:
        ports: of the targets, by name; nothing listens on that of ``dead``.
        folder: for files that wrk needs.
        seed: of everything random.
    """

    proxy: Proxy
    ports: dict[str, int]
    tools: Toolbox
    folder: Path
    seed: int

    def add_routes(self) -> list[str]:
        """Add the routes that there are before the first slice; what went wrong."""
        self.renew_kept_routes()
        return self._changes(0, CHANGING_ROUTES, fill=True)

    def renew_kept_routes(self) -> None:
        """Delete the routes that stay and add them again.

        Workers close their idle connections to a target that has lost a route within 2 s,
        instead of after a minute.
        """
        for name, port in self.ports.items():
            self.proxy.api.remove(f"/kept/{name}")
            self.proxy.api.add(f"/kept/{name}", f"http://127.0.0.1:{port}")

    def do(self, work: Slice) -> list[str]:
        """Do the work of a slice; what went wrong, in words."""
        jobs: list[Callable[[], list[str]]] = [
            lambda: self._bulk(work),
            lambda: self._odd_requests(work),
            lambda: self._tunnels(work),
            lambda: self._changes(work.first_route, work.changes, fill=False),
        ]
        with ThreadPoolExecutor(len(jobs)) as pool:
            running_jobs = [pool.submit(job) for job in jobs]
            wrong = [line for job in running_jobs for line in job.result()]
        wrong += self._wrong_routes(work)
        return [f"slice {work.number + 1}: {line}" for line in wrong]

    def _bulk(self, work: Slice) -> list[str]:
        program = self.tools.system("wrk")
        wrong = []
        for kind in WRK_KINDS:
            seed = f"{self.seed}-{work.number}-{kind.replace(' ', '-')}"
            count = work.requests[kind]
            error = wrk.run(program, self.folder, self.proxy.url, WRK_REQUESTS[kind], count, seed)
            wrong += [f"{kind}: {error}"] if error else []
        return wrong

    def _odd_requests(self, work: Slice) -> list[str]:
        apart = (*WRK_KINDS, CHECKED)
        requests = {kind: count for kind, count in work.requests.items() if kind not in apart}
        seed = f"{self.seed} requests {work.number}"
        return self._program("odd_requests", sum(requests.values()), requests=requests, seed=seed)

    def _tunnels(self, work: Slice) -> list[str]:
        seed = f"{self.seed} tunnels {work.number}"
        order = {"path": "/kept/own/tunnel", "count": work.tunnels, "seed": seed}
        return self._program("tunnels", work.tunnels, **order)

    def _changes(self, first: int, count: int, *, fill: bool) -> list[str]:
        order = {"api_port": self.proxy.api_port, "token": TOKEN, "ports": self.ports}
        return self._program("changes", count, first=first, count=count, fill=fill, **order)

    def _program(self, name: str, expected: int, **order: Any) -> list[str]:
        """Run a client program; what went wrong."""
        text = json.dumps({"port": self.proxy.port, **order})
        command = [sys.executable, "-m", f"scripts.lib.soak.{name}", text]
        try:
            outcome = json.loads(run(command, LIMIT_SECONDS, _environment()).splitlines()[-1])
        except BenchError as error:
            return [f"{name}: {error}"]
        wrong: list[str] = outcome["wrong"]
        if outcome["failed"] > len(wrong):
            wrong.append(f"{name}: {outcome['failed']} in all")
        if outcome["done"] != expected:
            wrong.append(f"{name}: {outcome['done']} of {expected} done")
        return wrong

    def _wrong_routes(self, work: Slice) -> list[str]:
        """What is wrong with the table after a slice."""
        first = work.first_route + turns(work.changes)
        wanted = {route_name(number) for number in range(first, first + CHANGING_ROUTES)}
        wanted |= {f"/kept/{name}" for name in self.ports}
        api = RoutesApi(self.proxy.api_port, TOKEN)
        status, body = api.call("GET", "")
        api.close()
        if status != 200:
            return [f"the table was answered with {status}"]
        different = wanted ^ json.loads(body).keys()
        return [f"{len(different)} routes too many or too few"] if different else []
