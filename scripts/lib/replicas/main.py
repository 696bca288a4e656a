"""Runs servers that share their routes, disturbs them, and reports."""

from __future__ import annotations

import argparse
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import requests

from scripts.lib.replicas.mistakes import MISTAKES, command
from scripts.lib.replicas.model import Model
from tests.kit.crash_lines import CRASH
from tests.kit.engine import PROGRAMS, Engine, running_engine
from tests.kit.peers import EchoTarget, wait_until
from tests.kit.peers.messages import Incomplete
from tests.kit.processes import stopped
from tests.kit.server import Proxy, port_pair, start_proxy

SERVERS = 3
CLIENTS = 4
PATHS = 8
LEASE = 2.0
# Seconds after a disturbance in which all servers are current again.
CURRENT_WITHIN = 20.0
_SHOWN = 10
# What a request to a server meets that is killed, or stopped.
_BROKEN_OFF = (OSError, Incomplete)
_KEYS = ("meta", "routes", "log", "activity", "leases", "acks")


class Server:
    """One of the servers, which is started again when it ends; its ports stay the same."""

    def __init__(self, engine: Engine, number: int, mistake: str | None) -> None:
        self._stack = ExitStack()
        port = port_pair()
        self._flags = (
            *("--ip", "127.0.0.1", "--port", str(port), "--log-level", "warn"),
            *("--api-ip", "127.0.0.1", "--api-port", str(port + 1), "--workers", "1"),
            *("--storage-backend", engine.url, "--storage-lease", str(LEASE)),
            *("--replica-name", f"server-{number}"),
        )
        self._command = command(mistake) if mistake else None
        self.lines: list[str] = []
        self.start()

    def start(self) -> None:
        """Start it."""
        self.proxy: Proxy = self._stack.enter_context(
            start_proxy(*self._flags, own_addresses=True, workers=None, command=self._command)
        )

    def stop(self, *, kill: bool = False) -> None:
        """Stop it, or end it at once."""
        if kill:
            self.proxy.kill()
        self._stack.close()
        self.lines += self.proxy.log().splitlines()

    def is_current(self) -> bool:
        """Whether it calls itself current."""
        try:
            return self.proxy.get("/_chp_ready?current").status == 200
        except _BROKEN_OFF:
            return False

    def target_of(self, path: str) -> str | None:
        """Return the mark of the target that a request is routed to; None if there is no route."""
        answer = self.proxy.get(path)
        if answer.status == 404:
            return None
        if answer.status != 200:
            raise OSError(f"{answer.status}")
        mark: str = answer.body.decode().partition('"target": "/')[2].partition("/")[0]
        return mark


class Run:
    """One run."""

    def __init__(self, seconds: float, seed: int, engine: str, mistake: str | None) -> None:
        self._seconds = seconds
        self._rng = random.Random(seed)
        self._kind = engine
        self._mistake = mistake
        self._model = Model()
        self._over = threading.Event()
        self._number = 0
        self._lock = threading.Lock()

    def run(self) -> bool:
        """Run and report. Returns whether everything held."""
        with ExitStack() as stack:
            folder = Path(stack.enter_context(TemporaryDirectory(prefix="replicas-")))
            self._engine = stack.enter_context(running_engine(folder, kind=self._kind))
            self._target = stack.enter_context(EchoTarget("t"))
            self._servers = []
            for number in range(SERVERS):
                server = Server(self._engine, number, self._mistake)
                stack.callback(server.stop)
                self._servers.append(server)
            self._wait_until_current("at first")
            clients = [threading.Thread(target=self._change, args=(n,)) for n in range(CLIENTS)]
            for client in clients:
                client.start()
            try:
                self._disturb()
            finally:
                self._over.set()
                for client in clients:
                    client.join()
            self._compare()
            lines = [line for each in self._servers for line in each.proxy.log().splitlines()]
            lines += [line for each in self._servers for line in each.lines]
            for line in lines:
                if CRASH.search(line):
                    self._model.fault(f"a crash: {line}")
        return self._report()

    # -- changes, and whether they hold

    def _mark(self) -> str:
        with self._lock:
            self._number += 1
            return f"m{self._number}"

    def _change(self, client: int) -> None:
        rng = random.Random(f"{client}-{self._number}")
        while not self._over.wait(0.01):
            path = f"/c{client}/p{rng.randrange(PATHS)}"
            mark = None if rng.random() < 0.3 else self._mark()
            self._model.begins(path, mark)
            try:
                done = self._ask_for(rng.choice(self._servers), path, mark)
            except (requests.RequestException, OSError):
                done = False
            if not done:
                self._model.refused()
                continue
            self._model.confirmed(path, mark)
            for server in list(self._servers):
                self._check(server, path)

    def _ask_for(self, server: Server, path: str, mark: str | None) -> bool:
        api = server.proxy.api
        url = api.route_url(path)
        if mark is None:
            return requests.delete(url, headers=api.headers, timeout=20).status_code in (204, 404)
        body = {"target": f"{self._target.url}/{mark}"}
        return requests.post(url, json=body, headers=api.headers, timeout=20).status_code == 201

    def _check(self, server: Server, path: str) -> None:
        """Ask one server for a path that nobody else changes."""
        with suppress(*_BROKEN_OFF):
            if not server.is_current():
                return
            found = server.target_of(path)
            if not server.is_current():
                return
            self._model.counts["requests checked"] += 1
            allowed = self._model.allowed(path)
            if found not in allowed:
                wanted = ", ".join(sorted(map(str, allowed)))
                self._model.fault(f"{server.proxy.port} routes {path} to {found}, not to {wanted}")

    # -- disturbances

    def _disturb(self) -> None:
        end = time.monotonic() + self._seconds
        disturbances: list[Callable[[], None]] = [
            self._kill_engine,
            self._flush,
            self._lose_a_key,
            self._freeze_engine,
            self._cut_connections,
            self._stop_server,
            self._kill_management,
            self._reload,
            self._restart,
            self._kill_server,
        ]
        while time.monotonic() < end:
            self._over.wait(self._rng.uniform(0.3, 1.5))
            disturbance = self._rng.choice(disturbances)
            name = disturbance.__name__.strip("_").replace("_", " ")
            self._model.counts[f"disturbance: {name}"] += 1
            disturbance()
            self._wait_until_current(f"after: {name}")

    def _pause(self, least: float, most: float) -> None:
        self._over.wait(self._rng.uniform(least, most))

    def _kill_engine(self) -> None:
        self._engine.kill()
        self._pause(0.1, 4)
        self._engine.start()

    def _flush(self) -> None:
        self._engine.client.flushall()

    def _lose_a_key(self) -> None:
        self._engine.client.delete(f"{{chp}}:{self._rng.choice(_KEYS)}")

    def _freeze_engine(self) -> None:
        self._engine.freeze()
        self._pause(0.5, 4)
        self._engine.thaw()

    def _cut_connections(self) -> None:
        self._engine.client.client_kill_filter(_type="normal", skipme=True)

    def _stop_server(self) -> None:
        with stopped(self._rng.choice(self._servers).proxy.tree()):
            self._pause(0.5, 2 * LEASE)

    def _kill_management(self) -> None:
        with suppress(AssertionError, ProcessLookupError):
            os.kill(self._rng.choice(self._servers).proxy.management_pid(), signal.SIGKILL)

    def _reload(self) -> None:
        self._rng.choice(self._servers).proxy.signal(signal.SIGHUP)

    def _restart(self) -> None:
        server = self._rng.choice(self._servers)
        server.stop()
        server.start()

    def _kill_server(self) -> None:
        server = self._rng.choice(self._servers)
        server.stop(kill=True)
        server.start()

    def _wait_until_current(self, when: str) -> None:
        try:
            wait_until(
                lambda: all(server.is_current() for server in self._servers),
                CURRENT_WITHIN,
                f"all servers are current {when}",
            )
        except AssertionError as error:
            self._model.fault(str(error))

    # -- the end

    def _compare(self) -> None:
        """See that all have the same, and nothing that was confirmed is missing."""

        def tables() -> list[set[str]]:
            shared = set(self._engine.client.hkeys("{chp}:routes"))
            return [shared, *(set(server.proxy.api.routes()) for server in self._servers)]

        try:
            wait_until(lambda: len(set(map(frozenset, tables()))) == 1, 10, "all have the same")
        except AssertionError as error:
            self._model.fault(f"{error}: {[len(table) for table in tables()]}")
        for path in self._model.paths():
            for server in self._servers:
                self._check(server, path)

    def _report(self) -> bool:
        for name, count in sorted(self._model.counts.items()):
            print(f"{name}: {count}")
        print(f"wrong: {len(self._model.faults)}")
        for fault in self._model.faults[:_SHOWN]:
            print(f"    {fault}")
        return not self._model.faults


def main() -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--engine", choices=sorted(PROGRAMS), default="redis")
    parser.add_argument("--mistake", choices=sorted(MISTAKES))
    arguments = parser.parse_args()
    if PROGRAMS[arguments.engine] is None:
        print(f"left out: no {arguments.engine} on this machine")
        return 0
    held = Run(arguments.seconds, arguments.seed, arguments.engine, arguments.mistake).run()
    print("held" if held else f"FAILED (seed {arguments.seed})")
    return 0 if held else 1
