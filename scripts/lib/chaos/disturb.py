"""The disturbances: kills, stops, resets and reloads at random, and what is in ``around``."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Sequence
from contextlib import suppress

from scripts.lib.chaos.around import Around
from scripts.lib.chaos.catalogue import AT_ONCE, CATALOGUE, Disturbance
from scripts.lib.chaos.home import Home, ReadProxy
from scripts.lib.chaos.record import Kill, Record
from scripts.lib.chaos.sockets import held_ports, listening_inode, socket_inodes
from scripts.lib.chaos.target_process import Target
from tests.kit import processes
from tests.kit.peers import wait_until


class Disturber:
    """Disturbs a server and its targets; what takes long is done in threads.

    ``only`` are the names of disturbances, all of which come, and come again at random.
    """

    def __init__(
        self,
        home: Home,
        proxy: ReadProxy,
        targets: list[Target],
        record: Record,
        rng: random.Random,
        only: Sequence[str],
    ) -> None:
        self._proxy = proxy
        self._targets = targets
        self.record = record
        self._rng = rng
        self._only = only
        self._threads: list[threading.Thread] = []
        self._doomed: set[int] = set()
        self._signals = threading.Lock()
        self._api_inode = listening_inode(proxy.api_port)
        # Each thread of these has its own, so that the others repeat with the same seed.
        around_rng = random.Random(rng.random())
        self._around = Around(home, proxy, record, around_rng, self._kill, self.children)
        self._alone = {group: threading.Lock() for group in {d.group for d in CATALOGUE}}

    def run(self, seconds: float) -> None:
        """Disturb for so long, then wait until everything goes on again."""
        end = time.monotonic() + seconds
        chosen = [disturbance for disturbance in CATALOGUE if disturbance.name in self._only]
        weights = [disturbance.weight for disturbance in chosen]
        # Each once, so that a run of a minute has them all.
        first = self._rng.sample(chosen, len(chosen))
        while time.monotonic() < end and self._is_up():
            if first:
                self._begin(first.pop())
            else:
                again = self._rng.choices(chosen, weights)[0]
                if not self._alone[again.group].locked():
                    self._begin(again)
            time.sleep(min(self._rng.uniform(0.1, 1.0), max(0.0, end - time.monotonic())))
        for thread in self._threads:
            thread.join()
        self._is_up()

    def _begin(self, disturbance: Disturbance) -> None:
        if disturbance.group == AT_ONCE:
            getattr(self, disturbance.method)()
        else:
            self._in_thread(self._one_at_a_time, disturbance)

    def _one_at_a_time(self, disturbance: Disturbance) -> None:
        with self._alone[disturbance.group]:
            if self._is_up():
                getattr(self._around, disturbance.method)()

    def _is_up(self) -> bool:
        """Whether the server goes on; its end is noted when it is first seen."""
        if self._proxy.process.poll() is None:
            return True
        if self.record.ended is None:
            self.record.ended = time.monotonic()
        return False

    def children(self) -> tuple[list[int], list[int]]:
        """Return the pids of the workers and those of the management process (one or none)."""
        workers: list[int] = []
        management: list[int] = []
        for process in processes.tree(self._proxy.pid):
            if process.parent == self._proxy.pid:
                with suppress(OSError):
                    links = socket_inodes(process.pid)
                    (management if self._api_inode in links else workers).append(process.pid)
        return workers, management

    def _in_thread(self, function: object, *arguments: object) -> None:
        thread = threading.Thread(target=self._guarded, args=(function, *arguments))
        thread.start()
        self._threads.append(thread)

    def _guarded(self, function: object, *arguments: object) -> None:
        """A disturbance that breaks must not pass for one that was survived."""
        try:
            function(*arguments)  # type: ignore[operator]
        except Exception as error:
            if self._is_up():
                self.record.wrong(self.record.not_kept, f"{function!r} failed: {error!r}")

    def _kill(self, pid: int, what: str) -> None:
        """Kill a process, having seen whose connections it holds while it stood still."""
        try:
            with self._signals:
                # It must not be continued while we look: it would accept more.
                self._doomed.add(pid)
                os.kill(pid, signal.SIGSTOP)
            wait_until(lambda: self._state(pid) in "TtX", 5, f"process {pid} has stopped")
            ports = held_ports(pid, {self._proxy.port, self._proxy.api_port})
            self.record.kills.append(Kill(time.monotonic(), what, ports))
            os.kill(pid, signal.SIGKILL)
        except (ProcessLookupError, FileNotFoundError):
            return
        self.record.disturbed[f"{what} killed"] += 1

    @staticmethod
    def _state(pid: int) -> str:
        found = processes.status(pid)
        return found.state if found is not None else "X"

    def _pause(self, pid: int, seconds: float) -> None:
        with suppress(ProcessLookupError), self.record.delay("a process stopped"):
            os.kill(pid, signal.SIGSTOP)
            time.sleep(seconds)
            with self._signals:
                if pid not in self._doomed:
                    os.kill(pid, signal.SIGCONT)

    def kill_worker(self) -> None:
        workers, _ = self.children()
        if workers:
            self._kill(self._rng.choice(sorted(workers)), "worker")

    def kill_management(self) -> None:
        _, management = self.children()
        if management:
            self._kill(management[0], "management process")

    def stop_worker(self) -> None:
        workers, _ = self.children()
        if workers:
            self.record.disturb("worker stopped")
            self._in_thread(
                self._pause, self._rng.choice(sorted(workers)), self._rng.uniform(0.2, 3)
            )

    def stop_management(self) -> None:
        _, management = self.children()
        if management:
            self.record.disturb("management process stopped")
            self._in_thread(self._pause, management[0], self._rng.uniform(0.2, 3))

    def reload(self) -> None:
        self.record.disturb("SIGHUP")
        self._proxy.signal(signal.SIGHUP)

    def kill_target(self) -> None:
        self._on_target("target killed", Target.restart, self._rng.uniform(0, 1))

    def stop_target(self) -> None:
        self._on_target("target stopped", Target.pause, self._rng.uniform(0.2, 2))

    def reset_target(self) -> None:
        self._on_target("target reset its connections", Target.reset)

    def _on_target(self, what: str, action: object, *arguments: float) -> None:
        target = self._rng.choice(self._targets)

        def act() -> None:
            with target.lock:
                action(target, *arguments)  # type: ignore[operator]

        self.record.disturbed[what] += 1
        self._in_thread(act)
