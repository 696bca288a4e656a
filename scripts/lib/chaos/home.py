"""Where the server under chaos lives: its package, its certificate, its limits, its log."""

from __future__ import annotations

import compileall
import errno
import os
import shutil
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from scripts.lib.chaos.isolation import Isolation
from tests.kit import processes
from tests.kit.authority import Authority
from tests.kit.server import (
    ANSI_COLOUR,
    OTHER_COMMAND,
    REPOSITORY,
    START_TIMEOUT,
    STOP_TIMEOUT,
    TOKEN,
    Proxy,
    free_ports,
)

# How many the server under chaos has.
WORKERS = 2

_PACKAGE = "chp_gevent"
_BROKEN_MODULE = "raise ImportError('another version is being installed')\n"
# The package comes from the folder, whatever the interpreter has installed.
_START = f"import sys; sys.path[0] = sys.argv.pop(1); from {_PACKAGE}.cli import main; main()"


class ReadProxy(Proxy):
    """A server whose log is read, or not."""

    def __init__(self, process: subprocess.Popen[str], port: int, api_port: int) -> None:
        self.reading = threading.Event()
        self.reading.set()
        super().__init__(process, port, api_port, TOKEN)

    def _read_log(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.reading.wait()
            with self._log_grew:
                self._log.append(ANSI_COLOUR.sub("", line.rstrip("\n")))
                self._log_grew.notify_all()

    def log_after(self, position: int) -> list[str]:
        """Return the lines from ``position`` on."""
        with self._log_grew:
            return self._log[position:]


class Home:
    """A folder with a copy of the package and a certificate, which can be broken for a while.

    Everything that breaks is a context manager, and whole again after it.
    """

    def __init__(self, folder: Path, isolation: Isolation, *, tls: bool) -> None:
        # The server may run as somebody else.
        folder.chmod(0o755)
        self.folder = folder / "package"
        self.folder.mkdir()
        shutil.copytree(
            REPOSITORY / _PACKAGE,
            self.folder / _PACKAGE,
            ignore=shutil.ignore_patterns("__pycache__"),
        )
        # As an installer does; the server may not be allowed to.
        compileall.compile_dir(self.folder, quiet=1)
        self.isolation = isolation
        self.tls: ssl.SSLContext | None = None
        self.flags: list[str] = []
        if tls:
            authority = Authority(folder / "certificates")
            key, cert = authority.issue("localhost")
            other_key, _ = authority.issue("localhost")
            for file in (key, cert):
                Path(file).chmod(0o644)
            self._key, self._other_key = Path(key), Path(other_key)
            self.flags = ["--ssl-key", key, "--ssl-cert", cert]
            self.tls = ssl.create_default_context(cafile=authority.ca)
            # Clients connect to an address.
            self.tls.check_hostname = False

    @contextmanager
    def server(self, *flags: str) -> Iterator[ReadProxy]:
        """Run the server until the block ends; fails when something of it is left then."""
        if OTHER_COMMAND:
            raise RuntimeError("chaos is about our own server: unset CHP_TEST_COMMAND")
        port, api_port = free_ports(2)
        arguments = ["--ip", "127.0.0.1", "--port", str(port), *flags, *self.flags]
        arguments += ["--api-ip", "127.0.0.1", "--api-port", str(api_port)]
        command = [sys.executable, "-c", _START, str(self.folder), *arguments]
        process = subprocess.Popen(
            [*self.isolation.prefix, *command],
            cwd=self.folder,
            env={
                **{name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
                "CONFIGPROXY_AUTH_TOKEN": TOKEN,
                "PYTHONUNBUFFERED": "1",
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )
        proxy = ReadProxy(process, port, api_port)
        try:
            proxy.wait_for_log("Proxy API at", START_TIMEOUT)
            yield proxy
            proxy.reading.set()
            proxy.stop()
        finally:
            proxy.reading.set()
            proxy.kill()
            process.wait(STOP_TIMEOUT)

    @contextmanager
    def broken_certificate(self, *, truncated: bool) -> Iterator[None]:
        """The key is being written, or is not yet the one of a renewed certificate."""
        good = self._key.read_bytes()
        self._key.write_bytes(good[:100] if truncated else self._other_key.read_bytes())
        try:
            yield
        finally:
            self._key.write_bytes(good)

    @contextmanager
    def broken_package(self) -> Iterator[None]:
        """Another version of the package is being installed, and can't be imported."""
        package, kept = self.folder / _PACKAGE, self.folder / "kept"
        broken = self.folder / "broken"
        for file in package.rglob("*.py"):
            copy = broken / file.relative_to(package)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_text(_BROKEN_MODULE, encoding="ascii")
        package.rename(kept)
        broken.rename(package)
        try:
            yield
        finally:
            package.rename(broken)
            kept.rename(package)
            shutil.rmtree(broken)


@contextmanager
def failing_forks(root: int, isolation: Isolation) -> Iterator[None]:
    """No process of a server that forks can do so: EAGAIN."""
    tree = processes.tree(root)
    parents = {process.parent for process in tree} & {process.pid for process in tree}
    try:
        for pid in parents:
            isolation.limit_processes(pid, 0)
        yield
    finally:
        for pid in parents:
            isolation.limit_processes(pid, None)


@contextmanager
def full_shm(root: int) -> Iterator[None]:
    """There is no inode left in the /dev/shm of a server of its own. Raises OSError."""
    folder = Path(f"/proc/{root}/root/dev/shm")
    made: list[Path] = []
    with ExitStack() as held:
        # What a process has open there goes on to take its place when it dies; the next one
        # would find just enough otherwise.
        for process in processes.tree(root):
            _hold_files(process.pid, held)
        try:
            while True:
                file = folder / f"full-{len(made)}"
                file.touch()
                made.append(file)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
        try:
            yield
        finally:
            for file in made:
                # The server may have ended, and its folder with it.
                with suppress(OSError):
                    file.unlink()


def _hold_files(pid: int, held: ExitStack) -> None:
    """Open what a process has open in /dev/shm."""
    with suppress(FileNotFoundError, ProcessLookupError):
        for descriptor in os.scandir(f"/proc/{pid}/fd"):
            if os.readlink(descriptor.path).startswith("/dev/shm/"):
                held.callback(os.close, os.open(descriptor.path, os.O_RDONLY))
