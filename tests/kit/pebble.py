"""Pebble, Let's Encrypt's own ACME server for tests, with a DNS of its own for all names."""

from __future__ import annotations

import json
import os
import shutil
import signal
import ssl
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tests.kit.authority import Authority
from tests.kit.peers import wait_until
from tests.kit.server import free_ports

START_TIMEOUT = 10.0
MISSING = [name for name in ("pebble", "pebble-challtestsrv") if shutil.which(name) is None]
WHY_SKIPPED = f"{' and '.join(MISSING)}: not installed (apt install pebble)"


class Pebble:
    """A CA that looks for challenges on ``http_port`` of 127.0.0.1, for any name.

    Attributes:
        directory: URL of its directory.
        ca: file with the authority of its own certificate.
        root: file with the root of the certificates that it issues.
    """

    def __init__(self, folder: Path, http_port: int, *, lifetime: int | None = None) -> None:
        authority = Authority(folder / "ca-of-pebble")
        self._folder = folder
        self._key, self._cert = authority.issue("localhost")
        self._port, self._management, self._dns, self._dns_management, tls = free_ports(5)
        self._process: subprocess.Popen[bytes] | None = None
        self._names: subprocess.Popen[bytes] | None = None
        self.ca = authority.ca
        self.root = str(folder / "root.pem")
        self.directory = f"https://localhost:{self._port}/dir"
        self._config = folder / "pebble.json"
        settings: dict[str, object] = {
            "listenAddress": f"127.0.0.1:{self._port}",
            "managementListenAddress": f"127.0.0.1:{self._management}",
            "certificate": self._cert,
            "privateKey": self._key,
            "httpPort": http_port,
            "tlsPort": tls,
            "ocspResponderURL": "",
            "externalAccountBindingRequired": False,
        }
        if lifetime is not None:
            settings["certificateValidityPeriod"] = lifetime
        self._config.write_text(json.dumps({"pebble": settings}))

    @property
    def log(self) -> str:
        """What the CA has written."""
        path = self._folder / "pebble.log"
        return path.read_text("utf-8", "replace") if path.exists() else ""

    def orders(self) -> int:
        """Return how many orders have been placed with it."""
        return self.log.count("Added order ")

    def start(self, **environment: str) -> None:
        """Start it; it has forgotten everything, and has another root."""
        if self._names is None:
            self._start_names()
        variables = {"PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "0", **environment}
        with (self._folder / "pebble.log").open("ab") as log:
            self._process = subprocess.Popen(
                ["pebble", "-config", str(self._config), "-dnsserver", f"127.0.0.1:{self._dns}"],
                env={**os.environ, **variables},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        wait_until(self._fetch_root, START_TIMEOUT, lambda: f"pebble is ready:\n{self.log}")

    def _start_names(self) -> None:
        off = [f"-{name}=" for name in ("http01", "https01", "tlsalpn01", "defaultIPv6")]
        management = f"127.0.0.1:{self._dns_management}"
        self._names = subprocess.Popen(
            [
                "pebble-challtestsrv",
                f"-dns01=127.0.0.1:{self._dns}",
                f"-management={management}",
                *off,
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_until(self._answers_for_names, START_TIMEOUT, "the DNS server is ready")

    def _answers_for_names(self) -> bool:
        try:
            self._tell_names("set-default-ipv4", {"ip": "127.0.0.1"})
        except OSError:
            return False
        return True

    def _tell_names(self, what: str, values: dict[str, object]) -> None:
        url = f"http://127.0.0.1:{self._dns_management}/{what}"
        urllib.request.urlopen(url, json.dumps(values).encode(), timeout=5).close()

    def lose_name(self, name: str) -> None:
        """Have the DNS fail for a name."""
        self._tell_names("set-servfail", {"host": name})

    def find_name(self, name: str) -> None:
        """Have the DNS answer for a name again."""
        self._tell_names("clear-servfail", {"host": name})

    def _fetch_root(self) -> bool:
        context = ssl.create_default_context(cafile=self.ca)
        url = f"https://localhost:{self._management}/roots/0"
        try:
            with urllib.request.urlopen(url, timeout=5, context=context) as answer:
                Path(self.root).write_bytes(answer.read())
        except OSError:
            return False
        return True

    def stop(self) -> None:
        """Stop the CA; its DNS stays."""
        _end(self._process)
        self._process = None

    def freeze(self) -> None:
        """Have it accept connections, and answer nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Have it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """End everything."""
        self.stop()
        _end(self._names)


def _end(process: subprocess.Popen[Any] | None) -> None:
    if process is not None:
        process.kill()
        process.wait(10)


@contextmanager
def pebble(
    folder: Path, http_port: int, *, lifetime: int | None = None, **environment: str
) -> Iterator[Pebble]:
    """Run a CA until the block ends.

    ``lifetime`` is that of its certificates in seconds; ``environment`` are variables that pebble
    knows.
    """
    with ExitStack() as stack:
        ca = Pebble(folder, http_port, lifetime=lifetime)
        stack.callback(ca.close)
        ca.start(**environment)
        yield ca
