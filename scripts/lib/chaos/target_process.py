"""Targets as processes: started, killed, stopped, and told to break off."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time

from scripts.lib.chaos.record import Outage, Record
from tests.kit.server import REPOSITORY


class TargetProcess:
    """A program of this folder that serves a port of 127.0.0.1."""

    def __init__(self, module: str, port: int, *arguments: str) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._command = [sys.executable, "-m", f"scripts.lib.chaos.{module}", *arguments]
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start the process and wait until it listens."""
        self._process = subprocess.Popen(
            self._command,
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
        assert read == line, f"the target at {self.url} said {read!r} instead of {line!r}"

    def kill(self) -> None:
        """Kill it and wait for its end."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                assert pipe is not None
                pipe.close()


class Target(TargetProcess):
    """Says who it is in each answer; on the same port again after its death."""

    def __init__(self, name: str, port: int, record: Record) -> None:
        super().__init__("target", port, name, str(port))
        self.name = name
        self._record = record
        # One disturbance at a time.
        self.lock = threading.Lock()

    def restart(self, down: float) -> None:
        """Kill it; start another after ``down`` seconds."""
        outage = self._record.begin_outage(self.name, "target killed")
        self.kill()
        time.sleep(down)
        self.start()
        outage.end = time.monotonic()

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
        with self._record.delay(f"{self.name} stopped"):
            self._process.send_signal(signal.SIGSTOP)
            time.sleep(seconds)
            self._process.send_signal(signal.SIGCONT)
