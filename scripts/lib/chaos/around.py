"""Disturbances of what is around the server: files, limits, its log, those who mean harm."""

from __future__ import annotations

import random
import re
import signal
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from scripts.lib.chaos.home import WORKERS, Home, ReadProxy, failing_forks, full_shm
from scripts.lib.chaos.hostile import hold_silent, room_for, tiny_chunks
from scripts.lib.chaos.record import Record
from scripts.lib.chaos.sockets import held_ports, listens
from scripts.lib.chaos.traffic import Client
from tests.kit.server import TOKEN

# Seconds in which who was killed is to be replaced when nothing hinders that. It takes 0.2 on a
# calm machine; somebody else may kill or stop the successor, too.
BACK_WITHIN = 10.0
# Seconds in which the log says what has happened; of a reload, once the one before it is over: that
# may wait 20 s for workers that somebody has stopped.
TOLD_WITHIN = 5.0
REFUSED_WITHIN = 20.0 + TOLD_WITHIN
# More than a management process serves at a time (1,000).
SILENT = 1_200
# Each makes one line of the log.
LOG_LINE = "x" * 3000
LINES_A_SECOND = 400

# How many there are to be of each role.
_WANTED = {"worker": WORKERS, "management process": 1}

_REFUSED = re.compile(r"error: not reloaded")
_NO_FORK = re.compile(r"error: cannot start (?:a worker|the management process)")
_DROPPED = re.compile(r"\b\d+ log lines? (?:was|were) dropped")

Kill = Callable[[int, str], None]
Children = Callable[[], tuple[list[int], list[int]]]


def all_there_or_counted(lines: Sequence[str], marks: set[str]) -> bool:
    """Whether each of the marks is in a line, or a line says that some were dropped."""
    if any(_DROPPED.search(line) for line in lines):
        return True
    return all(any(mark in line for line in lines) for mark in marks)


class Around:
    """The disturbances; each returns when all is well again, or has noted that it is not.

    ``kill`` kills a process and notes whose connections it held; ``children`` tells the pids
    of the workers and those of the management process.
    """

    def __init__(
        self,
        home: Home,
        proxy: ReadProxy,
        record: Record,
        rng: random.Random,
        kill: Kill,
        children: Children,
    ) -> None:
        self._home = home
        self._proxy = proxy
        self._record = record
        self._rng = rng
        self._kill = kill
        self._children = children
        self._end = threading.Event()

    # -- files

    def certificate_at_reload(self) -> None:
        """SIGHUP while the key does not belong to the certificate, or is cut short."""
        self._record.disturb("SIGHUP with a broken certificate")
        position = self._proxy.log_position()
        with self._home.broken_certificate(truncated=self._rng.random() < 0.5):
            self._proxy.signal(signal.SIGHUP)
            what = "a reload with a broken certificate refused"
            self._expect_line(_REFUSED, position, what, REFUSED_WITHIN)
            self._pause(0.5, 1.5)

    def certificate_at_death(self) -> None:
        """A worker dies while the key does not belong to the certificate, or is cut short."""
        with self._home.broken_certificate(truncated=self._rng.random() < 0.5):
            self._kill_and_wait("worker", "with a broken certificate")

    def package(self) -> None:
        """A worker and the management process die while the package is being replaced."""
        with self._home.broken_package():
            for role in ("worker", "management process"):
                self._kill_and_wait(role, "while the package was broken")

    # -- limits

    def fork(self) -> None:
        """Somebody dies while no process can be started."""
        role = self._rng.choice(("worker", "management process"))
        position = self._proxy.log_position()
        killed = self._kill_while(
            failing_forks(self._proxy.pid, self._home.isolation), role, "while forks failed"
        )
        if killed:
            self._expect_line(_NO_FORK, position, "the failing fork")

    def shm(self) -> None:
        """A worker dies while /dev/shm is full."""
        self._kill_while(full_shm(self._proxy.pid), "worker", "while /dev/shm was full")

    def _kill_while(self, hindrance: AbstractContextManager[None], role: str, when: str) -> bool:
        """Kill a process while another can't be started; see that it comes back after that.

        Returns whether it was one that is missed: another must have been asked for.
        """
        begin = time.monotonic()
        # The longer it can't be started, the longer the pause before the next attempt.
        with self._record.delay(f"no {role} could be started", doubled=True):
            with hindrance:
                killed = self._kill_one(role, when)
                self._pause(1, 3)
                is_missed = self._serving(role, killed) < _WANTED[role]
            within = time.monotonic() - begin + BACK_WITHIN
            self._expect_back(role, killed, within, when)
        return is_missed

    # -- the log

    def unread_log(self) -> None:
        """Nobody reads the log for some seconds, in which there is much to say."""
        self._record.disturb("log not read")
        position = self._proxy.log_position()
        seconds = self._rng.uniform(4, 6)
        end = time.monotonic() + seconds
        client = Client(self._proxy.address, self._record, self._home.tls)
        paths = []
        # By a timer: a request may wait for as long as nobody reads.
        reader = threading.Timer(seconds, self._proxy.reading.set)
        self._proxy.reading.clear()
        reader.start()
        try:
            while time.monotonic() < end and self._is_up():
                paths.append(f"/nowhere-{time.monotonic_ns()}-/{LOG_LINE}")
                answer = client.request("request to nowhere", "", "GET", paths[-1])
                if answer is not None:
                    self._record.succeeded("request to nowhere")
                self._end.wait(1 / LINES_A_SECOND)
        finally:
            client.close()
            reader.join()
        self._expect_count_of_dropped(position, paths)

    def _expect_count_of_dropped(self, position: int, paths: list[str]) -> None:
        """See that lines which are not in the log were counted there."""
        marks = {path.split("/")[1] for path in paths}

        def told() -> bool:
            return all_there_or_counted(self._proxy.log_after(position), marks)

        self._expect(told, 10, "a line with the number of dropped log lines")

    # -- those who mean harm

    def tiny_chunks(self) -> None:
        """A body in chunks of one byte, up or down."""
        up = self._rng.random() < 0.5
        self._record.disturb(f"hostile {'upload' if up else 'download'}")
        seconds = self._rng.uniform(4, 7)
        tiny_chunks(self._proxy.address, self._home.tls, "/flood/x", seconds, up=up)

    def silent_api(self) -> None:
        """More connections to the API than it takes, which say nothing."""
        count = room_for(SILENT)
        self._record.disturb(f"{count} silent API connections")
        opened = threading.Event()
        seconds = self._rng.uniform(4, 7)
        arguments = (self._proxy.api_address, count, seconds, opened)
        thread = threading.Thread(target=hold_silent, args=arguments)
        thread.start()
        opened.wait()
        while thread.is_alive():
            client = Client(self._proxy.api_address, self._record)
            headers = {"Authorization": f"token {TOKEN}"}
            answer = client.request("API call", "", "GET", "/api/routes", headers=headers)
            if answer is not None:
                self._record.succeeded("API call")
            client.close()
            thread.join(0.3)

    # -- what they share

    def _is_up(self) -> bool:
        return self._proxy.process.poll() is None

    def _pause(self, least: float, most: float) -> None:
        self._end.wait(self._rng.uniform(least, most))

    def _pids(self, role: str) -> set[int]:
        workers, management = self._children()
        return set(workers if role == "worker" else management)

    def _kill_one(self, role: str, when: str) -> int | None:
        pids = sorted(self._pids(role))
        if not pids:
            return None
        killed = self._rng.choice(pids)
        self._kill(killed, f"{role} {when}")
        return killed

    def _kill_and_wait(self, role: str, when: str) -> None:
        self._expect_back(role, self._kill_one(role, when), BACK_WITHIN, when)

    def _expect_back(self, role: str, killed: int | None, within: float, when: str) -> None:
        """See that as many of that role serve as are to, without the one that was killed.

        Not that another has begun since: one that drained, or was about to, has its successor
        already.
        """

        def back() -> bool:
            return self._serving(role, killed) >= _WANTED[role]

        self._expect(back, within, f"another {role} after one was killed {when}")

    def _serving(self, role: str, killed: int | None) -> int:
        """Return how many of that role serve, without the one that was killed."""
        port = self._proxy.port if role == "worker" else self._proxy.api_port

        def serves(pid: int) -> bool:
            try:
                # One that drains may hold connections, but no longer listens.
                return listens(pid, port) and bool(held_ports(pid, {port}))
            except OSError:
                return False

        return sum(serves(pid) for pid in self._pids(role) - {killed})

    def _expect_line(
        self, pattern: re.Pattern[str], position: int, what: str, within: float = TOLD_WITHIN
    ) -> None:
        def found() -> bool:
            return any(pattern.search(line) for line in self._proxy.log_after(position))

        self._expect(found, within, f"a line of the log about {what}")

    def _expect(self, holds: Callable[[], bool], within: float, what: str) -> None:
        """Wait until something holds; note that it does not, unless the server has ended."""
        deadline = time.monotonic() + within
        while not holds():
            if not self._is_up():
                return
            if time.monotonic() > deadline:
                self._record.wrong(self._record.not_kept, f"not within {within:.1f} s: {what}")
                return
            self._end.wait(0.05)
