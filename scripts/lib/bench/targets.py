"""What stands behind the proxies: files from nginx, a sink for uploads, a WebSocket echo."""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from scripts.lib.bench.processes import BenchError, prefer, running, wait_until
from scripts.lib.bench.toolbox import PROGRAMS, Toolbox

KB = 1024
MB = 1024 * 1024
FILES = {"1k": KB, "100k": 100 * KB, "10m": 10 * MB}
START_SECONDS = 20.0

NGINX_TARGET = """
daemon off; master_process off; worker_rlimit_nofile {files}; pid {folder}/{name}.pid;
error_log {folder}/{name}-error.log error;
events {{ worker_connections 8192; multi_accept on; }}
http {{
  access_log off; sendfile on; tcp_nopush on; tcp_nodelay on; default_type text/plain;
  open_file_cache max=100; keepalive_requests 1000000000; keepalive_timeout 120s;
  client_body_temp_path {folder}/{name}1; proxy_temp_path {folder}/{name}2;
  fastcgi_temp_path {folder}/{name}3; uwsgi_temp_path {folder}/{name}4;
  scgi_temp_path {folder}/{name}5;
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    root {folder}/files;
    # The path under a route is of no interest: every /route/…/1k is the same file.
    rewrite ^/.*/(1k|100k|10m)$ /$1 break;
  }}
}}
"""


@dataclass(frozen=True)
class Targets:
    """Ports on 127.0.0.1.

    Attributes:
        files: nginx with files of several sizes.
        small: another of them, preferred by the scheduler, for requests whose latency counts:
            they wait neither behind big files nor for a processor.
        sink: reads uploads and answers.
        echo: WebSockets.
        swallow: reads whatever comes and never answers.
    """

    files: int
    small: int
    sink: int
    echo: int
    swallow: int


def free_port() -> int:
    """A TCP port of loopback that nobody uses at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def fetch(port: int, path: str = "/1k") -> int:
    """Status of one GET, or 0 where nobody answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()
    return answer.status


@contextlib.contextmanager
def started_targets(tools: Toolbox, folder: Path) -> Iterator[Targets]:
    """All targets, for the time of a ``with`` block."""
    (folder / "files").mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)
    for name, size in FILES.items():
        (folder / "files" / name).write_bytes(os.urandom(size // 2).hex().encode()[:size])
    with contextlib.ExitStack() as stack:
        ports = [
            stack.enter_context(_nginx(tools, folder, "target")),
            stack.enter_context(_nginx(tools, folder, "small-target", preferred=True)),
        ]
        for program in ("sink_target.py", "echo_target.py", "swallow_target.py"):
            process = stack.enter_context(
                running(
                    [sys.executable, str(PROGRAMS / program)], folder / "target.log", piped=True
                )
            )
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                raise BenchError(f"{program}: did not start")
            ports.append(int(line))
        yield Targets(*ports)


@contextlib.contextmanager
def _nginx(tools: Toolbox, folder: Path, name: str, *, preferred: bool = False) -> Iterator[int]:
    """An nginx that serves the files; yields its port."""
    port = free_port()
    config = folder / f"{name}.conf"
    text = NGINX_TARGET.format(folder=folder, name=name, port=port, files=16384)
    config.write_text(text, "utf-8")
    log = str(folder / f"{name}-error.log")
    command = [tools.system("nginx"), "-c", str(config), "-e", log]
    with running(command, folder / f"{name}.log") as nginx:
        if preferred:
            prefer(nginx.pid)
        wait_until(lambda: fetch(port) == 200, START_SECONDS, "nginx as target", nginx)
        yield port
