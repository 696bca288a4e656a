"""What the demos share: the programs are started, commands are shown, answers are looked at."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import secrets
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
PUBLIC_PORT, API_PORT = 8000, 8001
START_SECONDS = 30.0
STOP_SECONDS = 10.0
SHOWN_LINES = 16
CURL_SECONDS = 20.0
CURL_TIMED_OUT = 28  # how a look at an endless stream ends
TOKEN = secrets.token_hex(16)


class WrongAnswer(Exception):
    """Something was not as it should be."""


def pick_port(preferred: int, taken: Sequence[int] = ()) -> int:
    """The preferred port of loopback if it is free, else any."""
    for port in (preferred, 0):
        if port in taken:
            continue
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])
    raise WrongAnswer("no free port")


@contextlib.contextmanager
def program(
    command: Sequence[str], log: Path, env: Mapping[str, str] | None = None, *, piped: bool = False
) -> Iterator[subprocess.Popen[str]]:
    """A process, ended by its id at the end of the block.

    Its output is in ``log``; with ``piped`` only its errors, and stdout is a pipe.
    """
    with log.open("wb") as output:
        # In a session of its own: Ctrl-C is for this script, which then ends it in order.
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE if piped else output,
            stderr=output,
            env=env,
            text=True,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


AUTHORISED = ["-H", f"Authorization: token {TOKEN}"]

# What is shown of an answer: all of it, its first lines, what comes of a stream within some
# seconds, or its status.
WHOLE, BEGINNING, STREAM, STATUS = "whole", "beginning", "stream", "status"


def curl(*arguments: str, show: str = WHOLE) -> str:
    """Show a curl command, run it as it is shown, show and return its output.

    Whoever copies the command gets the same: nothing is left out of it but the token, which is
    the variable that was shown at the beginning.
    """
    options = {STREAM: ["-sN", "--max-time", "2.5"], STATUS: ["-sS", "-o", "/dev/null"]}
    words = ["curl", *options.get(show, ["-sS"])]
    if any(name.lower().endswith("_proxy") for name in os.environ):
        words += ["--noproxy", "*"]
    words += ["-w", "%{http_code}\\n"] if show == STATUS else []
    line = " ".join(quoted(word) for word in [*words, *arguments])
    line += f" | head -n {SHOWN_LINES}" if show == BEGINNING else ""
    print(f"\n$ {line}")
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {line}"],
        capture_output=True,
        env={**os.environ, "CONFIGPROXY_AUTH_TOKEN": TOKEN},
        text=True,
        timeout=CURL_SECONDS,
        check=False,
    )
    print(done.stdout.rstrip("\n"))
    if done.returncode != (CURL_TIMED_OUT if show == STREAM else 0):
        raise WrongAnswer(f"curl: {done.stderr.strip() or done.returncode}")
    return done.stdout


def quoted(argument: str) -> str:
    """An argument as one would type it, with the token as a variable."""
    if TOKEN in argument:
        return f'"{argument.replace(TOKEN, "$CONFIGPROXY_AUTH_TOKEN")}"'
    return shlex.quote(argument)


def expect(text: str, part: str, what: str) -> None:
    """Raises WrongAnswer when ``part`` is not in an answer."""
    if part not in text:
        raise WrongAnswer(f"{what}: no {part!r} in {text[:200]!r}")


def wait_until_serving(process: subprocess.Popen[str], ports: Sequence[int]) -> None:
    """Wait for listening ports; raises WrongAnswer when the process ends before."""
    end = time.monotonic() + START_SECONDS
    for port in ports:
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            if process.poll() is not None:
                raise WrongAnswer(f"the proxy ended with {process.returncode}")
            if time.monotonic() > end:
                raise WrongAnswer("the proxy does not listen")
            time.sleep(0.05)


class WebSocket:
    """A WebSocket (RFC 6455) at /echo/socket. Raises OSError, and WrongAnswer if it is refused."""

    def __init__(self, port: int) -> None:
        self._sock = socket.create_connection(("127.0.0.1", port), 10)
        key = base64.b64encode(os.urandom(16)).decode()
        self._sock.sendall(
            f"GET /echo/socket HTTP/1.1\r\nHost: localhost:{port}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
            "".encode()
        )
        self._answers = self._sock.makefile("rb")
        expect(self._answers.readline().decode("latin-1"), " 101 ", "WebSocket handshake")
        while self._answers.readline() not in (b"\r\n", b""):
            pass

    def echo(self, message: bytes) -> bytes:
        """Send one short message; return what comes back. Raises OSError."""
        mask = os.urandom(4)
        masked = bytes(byte ^ mask[index % 4] for index, byte in enumerate(message))
        self._sock.sendall(bytes((0x81, 0x80 | len(message))) + mask + masked)
        head = self._answers.read(2)
        return self._answers.read(head[1] & 0x7F) if len(head) == 2 else b""

    def close(self) -> None:
        """Close it."""
        self._answers.close()
        self._sock.close()


@dataclass(frozen=True)
class Stage:
    """A proxy that serves, and its targets.

    Attributes:
        proxy: its process.
        log: what it writes.
        port: the public one.
        api_port: that of the REST API.
        targets: ports of the targets, by their names.
    """

    proxy: subprocess.Popen[str]
    log: Path
    port: int
    api_port: int
    targets: Mapping[str, int]

    @property
    def api(self) -> str:
        """The URL of the routes."""
        return f"http://127.0.0.1:{self.api_port}/api/routes"

    def add_route(self, path: str, target: str) -> None:
        """Add a route to a target, by its name; raises WrongAnswer."""
        body = json.dumps({"target": f"http://127.0.0.1:{self.targets[target]}"})
        answer = curl("-X", "POST", "-d", body, *AUTHORISED, self.api + path, show=STATUS)
        expect(answer, "201", f"adding {path}")


@contextlib.contextmanager
def started(folder: Path) -> Iterator[Stage]:
    """Start a proxy and its targets, with logs in ``folder``; all end with the block.

    Raises WrongAnswer when one of them does not start.
    """
    port = pick_port(PUBLIC_PORT)
    api_port = pick_port(API_PORT, [port])
    command = [str(Path(sys.executable).parent / "chp-gevent"), "--ip", "127.0.0.1"]
    command += ["--port", str(port), "--api-ip", "127.0.0.1", "--api-port", str(api_port)]
    command += ["--workers", "2"]
    print(f"$ {shlex.join(command)}")
    log = folder / "proxy.log"
    environment = {**os.environ, "CONFIGPROXY_AUTH_TOKEN": TOKEN}
    targets_command = [sys.executable, str(HERE / "targets.py")]
    with (
        program(targets_command, folder / "targets.log", piped=True) as targets,
        program(command, log, environment) as proxy,
    ):
        assert targets.stdout is not None
        ports = json.loads(targets.stdout.readline() or "null")
        if ports is None:
            raise WrongAnswer("the targets did not start")
        wait_until_serving(proxy, [port, api_port])
        yield Stage(proxy, log, port, api_port, ports)


def perform(name: str, run: Callable[[Path], None]) -> int:
    """Run a demo in a folder of its own; 0 when everything was as it should be, else 1."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    # Ignored, where a shell has started this in the background.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # Also into a pipe or a file, somebody watches.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)
    with tempfile.TemporaryDirectory(prefix=f"chp-gevent-{name}-") as folder:
        try:
            run(Path(folder))
        except KeyboardInterrupt:
            print("\nDemo ended.")
        except (WrongAnswer, ValueError, OSError) as error:
            print(f"\nFAILED: {error}", file=sys.stderr)
            for log in Path(folder).glob("*.log"):
                print(f"--- {log.name}\n{log.read_text('utf-8')[-4000:]}", file=sys.stderr)
            return 1
    return 0
