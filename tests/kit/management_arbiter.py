"""Stands in for the arbiter: owns sockets, segment and journal, and forks management processes.

Run as a program; see ``ArbiterProcess``, which drives it from a test. It reads pickled options
from its first argument, tells on standard output what happens, one JSON object a line, and
forks another management process for each line on standard input.
"""

from __future__ import annotations

import json
import logging
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from chp_gevent.config.options import Options

REPOSITORY = Path(__file__).parents[2]
TIMEOUT = 20.0


class ArbiterProcess:
    """The program, running while used as a context manager.

    Attributes:
        api: address of the API; ``metrics`` is that of the other server.
        child: process id of the management process.
    """

    def __init__(self, options: Options, log_path: Path) -> None:
        self._log_path = log_path
        self.process = subprocess.Popen(
            [sys.executable, "-m", __spec__.name, pickle.dumps(options).hex(), str(log_path)],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.child = 0
        addresses = self._event("listening")
        self.api, self.metrics = (("127.0.0.1", addresses[name]) for name in ("api", "metrics"))

    def start_child(self) -> None:
        """Have a management process forked, and wait until it serves."""
        self.fork_child()
        self.wait_until_ready()

    def fork_child(self) -> None:
        """Have a management process forked."""
        assert self.process.stdin is not None
        self.process.stdin.write("fork\n")
        self.process.stdin.flush()
        self.child = self._event("forked")

    def wait_until_ready(self) -> None:
        """Wait until the management process serves."""
        assert self._event("ready"), f"it died before it was ready; its log:\n{self.log()}"

    def kill_child(self, number: signal.Signals) -> int:
        """Send a signal to the management process and wait for its end; return its status.

        The status is negative where a signal ended it.
        """
        os.kill(self.child, number)
        return self.wait_for_exit()

    def wait_for_exit(self) -> int:
        """Wait for the end of the management process; return its status, as above."""
        return int(self._event("exited"))

    def log(self) -> str:
        """Return what has been logged."""
        return self._log_path.read_text()

    def lines(self) -> list[str]:
        """Return the lines logged, without the time."""
        return [line.split("[ConfigProxy] ")[-1] for line in self.log().splitlines()]

    def _event(self, name: str) -> Any:
        # Whatever happens comes in an order that the test knows.
        assert self.process.stdout is not None
        timer = threading.Timer(TIMEOUT, self.process.kill)
        timer.start()
        line = self.process.stdout.readline()
        timer.cancel()
        assert line, f"waited for {name!r}; the log:\n{self.log()}"
        event = json.loads(line)
        assert name in event, event
        return event[name]

    def __enter__(self) -> ArbiterProcess:
        return self

    def __exit__(self, *_: object) -> None:
        # The child ends with its parent, but only after a second.
        if self.child and self.process.poll() is None and is_running(self.child):
            os.kill(self.child, signal.SIGKILL)
        self.process.kill()
        self.process.communicate()


def is_running(pid: int) -> bool:
    """Whether there is a process with this number that is not a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def _say(**event: Any) -> None:
    print(json.dumps(event), flush=True)


def _run(options: Options, log_path: str) -> None:
    from chp_gevent.config.live_tls import SharedTls
    from chp_gevent.config.tls_contexts import read_contexts
    from chp_gevent.master.preloading import load_code
    from chp_gevent.runtime.logs import LineHandler
    from chp_gevent.shared.journal import Journal
    from chp_gevent.shared.segment import Segment
    from chp_gevent.shared.ticket_secrets import TicketSecrets

    log = logging.getLogger("chp_gevent")
    log.addHandler(LineHandler(os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)))
    log.setLevel(options.log_level.upper())
    sockets = {
        name: [socket.create_server(("127.0.0.1", 0), backlog=128)] for name in ("api", "metrics")
    }
    _say(listening={name: each[0].getsockname()[1] for name, each in sockets.items()})
    segment = Segment(rows=4, routes=1000)
    journal = Journal(segment)
    load_code(())
    tls = SharedTls(options, read_contexts(options), TicketSecrets())
    for _ in sys.stdin:
        _supervise(options, tls, segment, journal, sockets, log)


def _supervise(
    options: Options, tls: Any, segment: Any, journal: Any, sockets: Any, log: Any
) -> None:
    ready_read, ready_write = os.pipe()
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        os.close(ready_read)
        from chp_gevent.management.context import ManagementContext
        from chp_gevent.management.main import run

        run(ManagementContext(options, tls, segment, journal, sockets, log, ready_write, parent))
    os.close(ready_write)
    _say(forked=pid)
    _say(ready=os.read(ready_read, 1) == b"1")
    assert os.read(ready_read, 1) == b"", "one byte, and then the end"
    os.close(ready_read)
    _say(exited=os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


if __name__ == "__main__":
    _run(pickle.loads(bytes.fromhex(sys.argv[1])), sys.argv[2])
