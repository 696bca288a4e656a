"""Upgrades a running proxy before your eyes, for scripts/upgrade-demo.

Usage: upgrade.py, with the Python of an environment that has the package and may be changed.
"""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from scripts.lib.demo.stage import (
    AUTHORISED,
    HERE,
    Stage,
    WebSocket,
    WrongAnswer,
    curl,
    expect,
    perform,
    started,
)

ROOT = HERE.parents[2]
SOURCES = ("setup.py", "pyproject.toml", "README.md", "LICENSE", "chp_gevent")
TALK_INTERVAL = 0.25
SHOWN_EVERY = 8
UPGRADE_SECONDS = 60.0


class Talk:
    """A WebSocket that says something all the time, and expects to hear it again."""

    def __init__(self, port: int) -> None:
        self._socket = WebSocket(port)
        self.echoes = 0
        self.broken: Exception | None = None
        self._begin = time.monotonic()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            while not self._end.wait(TALK_INTERVAL):
                message = f"message {self.echoes + 1}"
                if self._socket.echo(message.encode()) != message.encode():
                    raise WrongAnswer(f"{message!r} did not come back")
                self.echoes += 1
                if self.echoes % SHOWN_EVERY == 0:
                    seconds = time.monotonic() - self._begin
                    print(f"    (WebSocket, open for {seconds:4.1f} s) {message!r} came back")
        except (OSError, WrongAnswer) as error:
            self.broken = error
            print(f"    (WebSocket) BROKEN: {error}")

    def stop(self) -> None:
        """Stop talking, and close it."""
        self._end.set()
        self._thread.join()
        self._socket.close()


def make_version(folder: Path, number: str, *, broken: bool = False) -> Path:
    """Copy the checkout as a version with this number; return where it is."""
    copy = folder / f"chp-gevent-{number}"
    copy.mkdir()
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, copy / name)
    (copy / "chp_gevent" / "_version.py").write_text(f'__version__ = "{number}"\n', "utf-8")
    if broken:
        with (copy / "chp_gevent" / "proxy" / "app.py").open("a", encoding="utf-8") as module:
            module.write("def (:\n")
    return copy


def install(source: Path) -> None:
    """Install a version where the server runs from, as an operator would."""
    print(f"\n$ pip install --upgrade {source.name}/")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--upgrade", "--no-deps"]
    # A broken module can't be compiled; that is no error of the installation.
    done = subprocess.run(
        [*command, "--no-compile", str(source)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise WrongAnswer(f"pip install: {done.stderr.strip()}")
    subprocess.run([Path(sys.executable).parent / "chp-gevent", "--version"], check=False)


class Log:
    """What the proxy writes."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def size(self) -> int:
        """Return how many bytes it has."""
        return self._path.stat().st_size

    def wait_for(self, pattern: str, position: int) -> None:
        """Show the first line behind ``position`` that matches. Raises WrongAnswer."""
        end = time.monotonic() + UPGRADE_SECONDS
        while time.monotonic() < end:
            for line in self._path.read_text("utf-8")[position:].splitlines():
                if re.search(pattern, line):
                    print(f"    (log) {line}")
                    return
            time.sleep(0.05)
        raise WrongAnswer(f"no line like {pattern!r} in the log")


def reload(proxy: subprocess.Popen[str], log: Log, *patterns: str) -> None:
    """Have the proxy reload; show lines of its log."""
    position = log.size()
    print(f"\n$ kill -HUP {proxy.pid}")
    proxy.send_signal(signal.SIGHUP)
    for pattern in patterns:
        log.wait_for(pattern, position)


@contextmanager
def talking(port: int) -> Iterator[Talk]:
    """A WebSocket that talks; raises WrongAnswer at the end if it broke."""
    talk = Talk(port)
    try:
        yield talk
    finally:
        talk.stop()
    if talk.broken is not None:
        raise WrongAnswer(f"the WebSocket broke: {talk.broken}")


def show(stage: Stage, folder: Path) -> None:
    """Upgrade twice; raises WrongAnswer."""
    proxy, log = stage.proxy, Log(stage.log)
    stage.add_route("/echo", "echo")
    with talking(stage.port) as talk:
        time.sleep(SHOWN_EVERY * TALK_INTERVAL)
        print("\n--- Version 0.2.0 is installed where the proxy runs from; the proxy becomes it")
        install(make_version(folder, "0.2.0"))
        reload(proxy, log, "took over from version", "reloaded: ")
        print(f"    The proxy is process {proxy.pid}, as before.")
        expect(curl(*AUTHORISED, stage.api), "/echo", "the routes")
        time.sleep(SHOWN_EVERY * TALK_INTERVAL)
        print("\n--- Version 0.3.0 can't start: the proxy stays what it is")
        install(make_version(folder, "0.3.0", broken=True))
        reload(proxy, log, "not reloaded, the workers go on: SyntaxError")
        time.sleep(SHOWN_EVERY * TALK_INTERVAL)
        print("\n--- Version 0.3.1 can")
        install(make_version(folder, "0.3.1"))
        reload(proxy, log, "took over from version 0.2.0", "reloaded: ")
        stage.add_route("/more", "echo")
        time.sleep(SHOWN_EVERY * TALK_INTERVAL)
        if proxy.poll() is not None:
            raise WrongAnswer(f"the proxy ended with {proxy.returncode}")
    print(f"\nTwo upgrades, one WebSocket, {talk.echoes} messages: nothing was broken off.")


def run(folder: Path) -> None:
    """Start everything, and show it."""
    with started(folder) as stage:
        show(stage, folder)


if __name__ == "__main__":
    sys.exit(perform("upgrade", run))
