"""Starts the real server as its users do, and watches over its processes.

``CHP_TEST_COMMAND`` in the environment replaces the command, so that the same tests run
against configurable-http-proxy itself (tests of what it does not have are marked ``ours``).
"""

from __future__ import annotations

import http.client
import itertools
import os
import random
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.kit import processes
from tests.kit.api_client import ApiClient
from tests.kit.peers import RawClient, Response, get, wait_until

REPOSITORY = Path(__file__).parents[2]
CONSOLE_SCRIPT = [sys.executable, "-c", "from chp_gevent.cli import main; main()"]
OTHER_COMMAND = shlex.split(os.environ.get("CHP_TEST_COMMAND", ""))
TOKEN = "token-of-the-tests"
START_TIMEOUT = 20.0
STOP_TIMEOUT = 15.0
ANSI_COLOUR = re.compile("\x1b\\[[0-9;]*m")
# Below the range that the kernel takes the ports of outgoing connections from: a port
# found free here stays so until the server binds it. Test processes side by side (pytest-xdist)
# have a share each.
_SIDE_BY_SIDE = 8
_SHARE = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _SIDE_BY_SIDE
PORTS = range(15000, 31000)[_SHARE * 2000 : (_SHARE + 1) * 2000]

running: list[Proxy] = []
"""The servers that are up now; their logs are shown when a test fails."""


def free_ports(count: int) -> list[int]:
    """Return TCP ports that nothing on 127.0.0.1 listens on.

    Each is returned again only after all others of the share: a test may ask for one, and for
    others, long before anything listens on the first.
    """
    return [_next_free(1) for _ in range(count)]


def port_pair() -> int:
    """Return a TCP port of 127.0.0.1 that is free, as the next one is."""
    return _next_free(2)


_begin = random.choice(PORTS)
_turn = itertools.count()


def _next_free(neighbours: int) -> int:
    """Return the first of so many ports, one after the other, that are free."""
    while True:
        ports = [PORTS[(_begin + next(_turn)) % len(PORTS)] for _ in range(neighbours)]
        with suppress(OSError), ExitStack() as held:
            for port in ports:
                held.enter_context(socket.socket()).bind(("127.0.0.1", port))
            if ports[-1] - ports[0] == neighbours - 1:
                return ports[0]


def command_line(how: str, flags: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Return the command that starts a server, and what it needs in the environment."""
    if how == "gunicorn":
        command = [sys.executable, "-m", "gunicorn", "-c", "conf/gunicorn.conf.py"]
        return command, {"CHP_ARGS": shlex.join(flags)}
    return [*(OTHER_COMMAND or CONSOLE_SCRIPT), *flags], {}


def run_to_exit(
    *flags: str, how: str = "cli", env: dict[str, str] | None = None, timeout: float = 30.0
) -> subprocess.CompletedProcess[str]:
    """Run the command with ``flags`` until it leaves by itself, e.g. with an error."""
    command, extra = command_line(how, flags)
    return subprocess.run(
        command,
        cwd=REPOSITORY,
        env=_environment({**extra, **(env or {})}, token=TOKEN),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def _environment(extra: dict[str, str], token: str | None) -> dict[str, str]:
    environment = {key: os.environ[key] for key in os.environ if not key.startswith("CONFIGPROXY")}
    environment.update(extra, PYTHONUNBUFFERED="1")
    if token is not None:
        environment["CONFIGPROXY_AUTH_TOKEN"] = token
    return environment


class Proxy:
    """A running server. ``port`` and ``api_port`` are on 127.0.0.1, ``pid`` is the arbiter's.

    It is ready when its ports answer and ``members`` processes are there.
    """

    def __init__(
        self,
        process: subprocess.Popen[str],
        port: int,
        api_port: int,
        token: str | None,
        members: int = 1,
    ) -> None:
        self.process = process
        self.pid = process.pid
        self.port = port
        self.api_port = api_port
        self.address = ("127.0.0.1", port)
        self.api_address = ("127.0.0.1", api_port)
        self.url = f"http://127.0.0.1:{port}"
        self.api = ApiClient(f"http://127.0.0.1:{api_port}", token)
        self._members = members
        self._log: list[str] = []
        self._log_grew = threading.Condition()
        self._log_reader = threading.Thread(target=self._read_log, daemon=True)
        self._log_reader.start()

    def client(self, timeout: float = 10.0) -> RawClient:
        """Return a new raw connection to the public port."""
        return RawClient(self.address, timeout=timeout)

    def get(self, path: str, *headers: str) -> Response:
        """GET a path through the proxy on a connection of its own."""
        with self.client() as client:
            return client.request(get(path, *headers))

    def log(self) -> str:
        """Return everything written to stdout and stderr so far, without colours."""
        with self._log_grew:
            return "\n".join(self._log)

    def wait_for_log(self, pattern: str, timeout: float = 20.0, *, after: int = 0) -> str:
        """Return the first line, from line ``after`` on, in which ``pattern`` is found."""
        seen = after

        def found() -> str | None:
            nonlocal seen
            for line in self._log[seen:]:
                seen += 1
                if re.search(pattern, line):
                    return line
            return None

        with self._log_grew:
            line = self._log_grew.wait_for(found, timeout)
        if line is None:
            raise AssertionError(f"no line like {pattern!r} within {timeout:g} s:\n{self.log()}")
        return line

    def log_position(self) -> int:
        """Return the number of log lines so far, for ``wait_for_log(after=…)``."""
        with self._log_grew:
            return len(self._log)

    def tree(self) -> list[int]:
        """Return the pids of all living processes of this server."""
        return [process.pid for process in processes.tree(self.pid)]

    def rss(self) -> int:
        """Return the resident memory of the process tree in bytes."""
        return sum(process.rss for process in processes.tree(self.pid))

    def cpu_seconds(self) -> float:
        """Return the CPU time that the living processes of the tree have used."""
        return sum(process.cpu for process in processes.tree(self.pid))

    def management_pid(self) -> int:
        """Return the process that answers the API, found by who holds a connection to it.

        One that is about to be replaced may close it before it is seen.
        """

        def found() -> int | None:
            with RawClient(self.api_address) as client:
                with suppress(AssertionError):
                    return self._holder(client, self.api_port, 1.0)
                return None

        return wait_until(found, 10.0, "a process of the server answers the API")

    def worker_pids(self) -> set[int]:
        """Return the processes that serve the public port."""
        return set(self.tree()) - {self.pid, self.management_pid()}

    def worker_of(self, client: RawClient) -> int:
        """Return the process that serves a connection to the public port."""
        return self._holder(client, self.port)

    def _holder(self, client: RawClient, port: int, within: float = 10.0) -> int:
        peer = client.socket.getsockname()[1]
        return wait_until(
            lambda: processes.holder_of_connection(self.tree(), port, peer),
            within,
            f"a process of the server has accepted the connection from port {peer}",
        )

    def is_ready(self) -> bool:
        """Whether ports answer and all processes are there; raises if the server has left."""
        if self.process.poll() is not None:
            self._log_reader.join(timeout=5)
            raise AssertionError(f"left with {self.process.returncode}:\n{self.log()}")
        return (
            _answers(self.address, "/_chp_healthz")
            and _answers(self.api_address, "/api/")
            and len(self.tree()) >= self._members
        )

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the arbiter."""
        self.process.send_signal(number)

    def wait(self, timeout: float = STOP_TIMEOUT) -> int:
        """Wait until the server has left; return its exit code."""
        code = self.process.wait(timeout)
        self._log_reader.join(timeout=5)
        return code

    def assert_nothing_left(self, timeout: float = 5.0) -> None:
        """Fail if a process of the server is there after ``timeout`` s, and kill it."""
        try:
            wait_until(lambda: not self.tree(), timeout, f"no process left of {self.pid}")
        except AssertionError:
            left = [(pid, _command_of(pid)) for pid in self.tree()]
            self.kill()
            raise AssertionError(f"processes left behind: {left}") from None

    def kill(self) -> None:
        """SIGKILL everything that belongs to the server."""
        for pid in self.tree():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(STOP_TIMEOUT)

    def stop(self) -> None:
        """Stop the server with SIGTERM and fail if it does not go, or leaves something."""
        self.api.close()
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
            try:
                self.wait()
            except subprocess.TimeoutExpired:
                self.kill()
                raise AssertionError(f"did not stop on SIGTERM:\n{self.log()}") from None
        self.assert_nothing_left()

    def _read_log(self) -> None:
        if self.process.stdout is None:
            return  # the output is the test's
        for line in self.process.stdout:
            with self._log_grew:
                self._log.append(ANSI_COLOUR.sub("", line.rstrip("\n")))
                self._log_grew.notify_all()


def _answers(address: tuple[str, int], path: str) -> bool:
    connection = http.client.HTTPConnection(*address, timeout=2)
    try:
        connection.request("GET", path)
        connection.getresponse().read()
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
    return True


def _command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(encoding="latin-1").replace("\0", " ")
    except OSError:
        return "gone"


@dataclass(frozen=True)
class Start:
    """How a server is started; see ``start_proxy``."""

    workers: int | None = 1
    env: dict[str, str] = field(default_factory=dict)
    how: str = "cli"
    token: str | None = TOKEN
    command: Sequence[str] | None = None
    own_addresses: bool = False
    output: int = subprocess.PIPE


def spawn(flags: Sequence[str], start: Start) -> Proxy:
    """Start a server and return at once; see ``start_proxy``."""
    arguments = list(flags)
    if start.own_addresses:
        port = int(arguments[arguments.index("--port") + 1])
        api_port = port + 1
    else:
        port, api_port = free_ports(2)
        arguments += ["--ip", "127.0.0.1", "--port", str(port)]
        arguments += ["--api-ip", "127.0.0.1", "--api-port", str(api_port)]
    members = 1
    if start.workers is not None and not OTHER_COMMAND and start.command is None:
        arguments += ["--workers", str(start.workers)]
        members = start.workers + 2  # the arbiter and the management process
    line, extra = command_line(start.how, arguments)
    process = subprocess.Popen(
        [*start.command, *arguments] if start.command is not None else line,
        cwd=REPOSITORY,
        env=_environment({**extra, **start.env}, start.token),
        stdin=subprocess.DEVNULL,
        stdout=start.output,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    )
    return Proxy(process, port, api_port, start.token, members)


@contextmanager
def start_proxy(*flags: str, **options: Any) -> Iterator[Proxy]:
    """Run a server until the block ends; it is ready when the block begins.

    ``flags`` are those of the command line; addresses on 127.0.0.1 are added unless
    ``own_addresses`` says that they are there. Other ``options``, see ``Start``: ``how`` is
    ``cli`` or ``gunicorn``; ``workers=None`` leaves their number to the server; ``env`` is
    added to the environment; ``token=None`` starts it without one; ``command`` replaces the
    command itself; ``output`` is a descriptor that gets what it writes, in place of the log that
    can be read here. Leaving the block fails when the server does not stop, or leaves a
    process behind.
    """
    proxy = spawn(flags, Start(**options))
    running.append(proxy)
    try:
        wait_until(proxy.is_ready, START_TIMEOUT, lambda: f"the server is ready:\n{proxy.log()}")
        yield proxy
        proxy.stop()
    finally:
        running.remove(proxy)
        proxy.kill()
