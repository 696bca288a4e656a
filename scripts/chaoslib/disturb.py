"""The disturbances: kills, stops, resets and reloads at random."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

from scripts.chaoslib.record import Kill, Outage, Record
from tests.integration import processes
from tests.integration.server import REPOSITORY, Proxy
from tests.peers import wait_until

LISTENING = "0A"


class Target:
    """A target process, and the same port again after its death."""

    def __init__(self, name: str, port: int, record: Record) -> None:
        self.name = name
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self._record = record
        self._process: subprocess.Popen[str] | None = None
        # One disturbance at a time.
        self.lock = threading.Lock()

    def start(self) -> None:
        """Start the process and wait until it listens."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "scripts.chaoslib.target", self.name, str(self.port)],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._expect("ready")

    def _expect(self, line: str) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        read = self._process.stdout.readline().strip()
        assert read == line, f"target {self.name} said {read!r} instead of {line!r}"

    def restart(self, down: float) -> None:
        """Kill it; start another after ``down`` seconds."""
        outage = self._record.begin_outage(self.name, "target killed")
        self.kill()
        time.sleep(down)
        self.start()
        outage.end = time.monotonic()

    def kill(self) -> None:
        """Kill it and wait for its end."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                assert pipe is not None
                pipe.close()

    def reset(self) -> None:
        """Have it break off all its connections."""
        assert self._process is not None
        assert self._process.stdin is not None
        outage: Outage = self._record.begin_outage(self.name, "target reset its connections")
        self._process.stdin.write("reset\n")
        self._process.stdin.flush()
        self._expect("done")
        outage.end = time.monotonic()

    def pause(self, seconds: float) -> None:
        """Stop it for a while."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        time.sleep(seconds)
        self._process.send_signal(signal.SIGCONT)


class Disturber:
    """Disturbs a server and its targets; what takes long is done in threads."""

    def __init__(
        self, proxy: Proxy, targets: list[Target], record: Record, rng: random.Random
    ) -> None:
        self._proxy = proxy
        self._targets = targets
        self._record = record
        self._rng = rng
        self._threads: list[threading.Thread] = []
        self._doomed: set[int] = set()
        self._signals = threading.Lock()
        self._api_inode = listening_inode(proxy.api_port)

    def run(self, seconds: float) -> None:
        """Disturb for so long, then wait until everything goes on again."""
        end = time.monotonic() + seconds
        actions = {
            self._kill_worker: 4,
            self._stop_worker: 3,
            self._kill_management: 3,
            self._stop_management: 2,
            self._reload: 2,
            self._kill_target: 3,
            self._reset_target: 4,
            self._stop_target: 2,
        }
        choices, weights = list(actions), list(actions.values())
        while time.monotonic() < end:
            self._rng.choices(choices, weights)[0]()
            time.sleep(min(self._rng.uniform(0.1, 1.0), max(0.0, end - time.monotonic())))
        for thread in self._threads:
            thread.join()

    def children(self) -> tuple[list[int], list[int]]:
        """Return the pids of the workers and those of the management process (one or none)."""
        workers, management = [], []
        for process in processes.tree(self._proxy.pid):
            if process.parent == self._proxy.pid:
                with suppress(OSError):
                    links = socket_inodes(process.pid)
                    (management if self._api_inode in links else workers).append(process.pid)
        return workers, management

    def _in_thread(self, function: object, *arguments: object) -> None:
        thread = threading.Thread(target=function, args=arguments)  # type: ignore[arg-type]
        thread.start()
        self._threads.append(thread)

    def _kill(self, pid: int, what: str) -> None:
        """Kill a process, having seen whose connections it holds while it stood still."""
        try:
            with self._signals:
                # It must not be continued while we look: it would accept more.
                self._doomed.add(pid)
                os.kill(pid, signal.SIGSTOP)
            wait_until(lambda: self._state(pid) in "TtX", 5, f"process {pid} has stopped")
            ports = held_ports(pid, {self._proxy.port, self._proxy.api_port})
            self._record.kills.append(Kill(time.monotonic(), what, ports))
            os.kill(pid, signal.SIGKILL)
        except (ProcessLookupError, FileNotFoundError):
            return
        self._record.disturbed[f"{what} killed"] += 1

    @staticmethod
    def _state(pid: int) -> str:
        found = processes.status(pid)
        return found.state if found is not None else "X"

    def _pause(self, pid: int, seconds: float) -> None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
            time.sleep(seconds)
            with self._signals:
                if pid not in self._doomed:
                    os.kill(pid, signal.SIGCONT)

    def _kill_worker(self) -> None:
        workers, _ = self.children()
        if workers:
            self._kill(self._rng.choice(sorted(workers)), "worker")

    def _kill_management(self) -> None:
        _, management = self.children()
        if management:
            self._kill(management[0], "management process")

    def _stop_worker(self) -> None:
        workers, _ = self.children()
        if workers:
            self._record.disturb("worker stopped")
            self._in_thread(
                self._pause, self._rng.choice(sorted(workers)), self._rng.uniform(0.2, 3)
            )

    def _stop_management(self) -> None:
        _, management = self.children()
        if management:
            self._record.disturb("management process stopped")
            self._in_thread(self._pause, management[0], self._rng.uniform(0.2, 3))

    def _reload(self) -> None:
        self._record.disturb("SIGHUP")
        self._proxy.signal(signal.SIGHUP)

    def _kill_target(self) -> None:
        self._on_target("target killed", Target.restart, self._rng.uniform(0, 1))

    def _stop_target(self) -> None:
        self._on_target("target stopped", Target.pause, self._rng.uniform(0.2, 2))

    def _reset_target(self) -> None:
        self._on_target("target reset its connections", Target.reset)

    def _on_target(self, what: str, action: object, *arguments: float) -> None:
        target = self._rng.choice(self._targets)

        def act() -> None:
            with target.lock:
                action(target, *arguments)  # type: ignore[operator]

        self._record.disturbed[what] += 1
        self._in_thread(act)


def socket_inodes(pid: int) -> set[str]:
    """Return the inodes of the sockets that a process has open. Raises OSError."""
    inodes = set()
    folder = f"/proc/{pid}/fd"
    for name in os.listdir(folder):
        with suppress(OSError):
            link = os.readlink(f"{folder}/{name}")
            if link.startswith("socket:["):
                inodes.add(link[8:-1])
    return inodes


def _tcp_lines() -> list[tuple[int, int, str, str]]:
    """Return local port, peer's port, state and inode of each IPv4 socket."""
    found = []
    for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]:
        fields = line.split()
        local, peer = (int(address.rpartition(":")[2], 16) for address in fields[1:3])
        found.append((local, peer, fields[3], fields[9]))
    return found


def listening_inode(port: int) -> str:
    """Return the inode of the socket that listens on a port of 127.0.0.1."""
    return next(line[3] for line in _tcp_lines() if line[0] == port and line[2] == LISTENING)


def held_ports(pid: int, ports: set[int]) -> frozenset[int]:
    """Return the peers' ports of the connections to ``ports`` that a process holds."""
    inodes = socket_inodes(pid)
    # The kernel lists sockets piecemeal: while others come and go, one can be left out.
    lines = {line for _ in range(3) for line in _tcp_lines()}
    return frozenset(
        peer
        for local, peer, state, inode in lines
        if local in ports and inode in inodes and state != LISTENING
    )
