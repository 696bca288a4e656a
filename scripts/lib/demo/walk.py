"""Walks through the proxy for scripts/demo: routes are added, asked for, shown and removed.

Usage: walk.py [--once]
"""

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
from collections.abc import Iterator, Mapping, Sequence
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


def websocket_echo(port: int, message: bytes) -> bytes:
    """Send one short message over a WebSocket at /echo/socket; return what comes back."""
    key = base64.b64encode(os.urandom(16)).decode()
    mask = os.urandom(4)
    masked = bytes(byte ^ mask[index % 4] for index, byte in enumerate(message))
    with socket.create_connection(("127.0.0.1", port), 10) as sock:
        sock.sendall(
            f"GET /echo/socket HTTP/1.1\r\nHost: localhost:{port}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
            "".encode()
        )
        answer = sock.makefile("rb")
        status = answer.readline()
        expect(status.decode("latin-1"), " 101 ", "WebSocket handshake")
        while answer.readline() not in (b"\r\n", b""):
            pass
        sock.sendall(bytes((0x81, 0x80 | len(message))) + mask + masked)
        head = answer.read(2)
        return answer.read(head[1] & 0x7F) if len(head) == 2 else b""


def walk(port: int, api_port: int, targets: dict[str, int]) -> None:
    """Add the routes and look at every target; raises WrongAnswer."""
    public, api = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{api_port}/api/routes"
    print("\n--- Three routes are added through the REST API (201: in force on every worker)")
    for path, name in (("/", "page"), ("/clock", "clock"), ("/echo", "echo")):
        body = json.dumps({"target": f"http://127.0.0.1:{targets[name]}"})
        answer = curl("-X", "POST", "-d", body, *AUTHORISED, api + path, show=STATUS)
        expect(answer, "201", f"adding {path}")
    expect(curl(api, show=STATUS), "403", "API without the token")
    table = curl(*AUTHORISED, api)
    if set(json.loads(table)) != {"/", "/clock", "/echo"}:
        raise WrongAnswer(f"routing table: {table}")

    print("\n--- What goes where")
    expect(curl(f"{public}/", show=BEGINNING), "It works", "the page")
    expect(curl(f"{public}/clock/events", show=STREAM), "data: ", "the clock")
    print(f"\n(WebSocket) ws://127.0.0.1:{port}/echo/socket")
    echoed = websocket_echo(port, b"hello from the demo")
    print(f"sent 'hello from the demo', got back {echoed.decode()!r}")
    expect(echoed.decode(), "hello from the demo", "the echo")

    print("\n--- A route that is deleted is gone at once")
    gone = f"{api}/gone"
    expect(curl("-X", "POST", "-d", body, *AUTHORISED, gone, show=STATUS), "201", "adding")
    expect(curl("-X", "DELETE", *AUTHORISED, gone, show=STATUS), "204", "deleting")
    expect(curl(*AUTHORISED, gone, show=STATUS), "404", "a deleted route")


def stay(proxy: subprocess.Popen[str], port: int, api_port: int, log: Path) -> None:
    """Say where things are, and wait for Ctrl-C."""
    print(f"""
--- Open in a browser
  http://127.0.0.1:{port}/          a page
  http://127.0.0.1:{port}/clock/    server-sent events
  http://127.0.0.1:{port}/echo/     a WebSocket

All of the above can be copied into another terminal while the demo runs:
  export CONFIGPROXY_AUTH_TOKEN={TOKEN}
  curl -sS -H "Authorization: token $CONFIGPROXY_AUTH_TOKEN" http://127.0.0.1:{api_port}/api/routes

The proxy's log is {log}. Ctrl-C ends the demo.""")
    proxy.wait()
    raise WrongAnswer(f"the proxy ended with {proxy.returncode}")


def run(folder: Path, once: bool) -> None:
    """Start everything, walk through it, and stay unless told otherwise."""
    port = pick_port(PUBLIC_PORT)
    api_port = pick_port(API_PORT, [port])
    targets_command = [sys.executable, str(HERE / "targets.py")]
    proxy_command = [str(Path(sys.executable).parent / "chp-gevent"), "--ip", "127.0.0.1"]
    proxy_command += ["--port", str(port), "--api-ip", "127.0.0.1", "--api-port", str(api_port)]
    proxy_command += ["--workers", "2"]
    print(f"$ export CONFIGPROXY_AUTH_TOKEN={TOKEN}")
    print(f"$ {shlex.join(proxy_command)}")
    log = folder / "proxy.log"
    environment = {**os.environ, "CONFIGPROXY_AUTH_TOKEN": TOKEN}
    with (
        program(targets_command, folder / "targets.log", piped=True) as targets,
        program(proxy_command, log, environment) as proxy,
    ):
        assert targets.stdout is not None
        ports = json.loads(targets.stdout.readline() or "null")
        if ports is None:
            raise WrongAnswer("the targets did not start")
        wait_until_serving(proxy, [port, api_port])
        walk(port, api_port, ports)
        if not once:
            stay(proxy, port, api_port, log)


def main() -> int:
    """0 when everything was as it should be, else 1."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    # Also into a pipe or a file, somebody watches.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)
    with tempfile.TemporaryDirectory(prefix="chp-gevent-demo-") as name:
        try:
            run(Path(name), once="--once" in sys.argv[1:])
        except KeyboardInterrupt:
            print("\nDemo ended.")
        except (WrongAnswer, ValueError, OSError) as error:
            print(f"\nFAILED: {error}", file=sys.stderr)
            for log in Path(name).glob("*.log"):
                print(f"--- {log.name}\n{log.read_text('utf-8')[-4000:]}", file=sys.stderr)
            return 1
    if "--once" in sys.argv[1:]:
        print("\nDemo: every answer was right.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
