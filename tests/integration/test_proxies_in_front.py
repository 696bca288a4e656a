"""nginx and HAProxy in front of the server, as operators set them up, and a hub behind nginx."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.kit.authority import HOST, Authority
from tests.kit.hub import CONFIG, PASSWORD, USER, Hub, running_hub
from tests.kit.option_servers import start_server
from tests.kit.pages import DOCS, blocks, section
from tests.kit.peers import EchoTarget, wait_until
from tests.kit.server import free_ports, start_proxy

pytestmark = [pytest.mark.ours, pytest.mark.timeout(180)]

NGINX = shutil.which("nginx", path="/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin")
HAPROXY = shutil.which("haproxy", path="/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin")
CLIENT = "127.0.0.2"
"""Where clients come from: another address of this machine than that of the proxy in front."""

# Around the block that docs/how-to/behind-a-proxy.md shows.
NGINX_CONFIG = """
daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/nginx.log warn;
events {{}}
http {{
  access_log off;
  client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3;
  uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;
  {documented}
}}
"""

HAPROXY_CONFIG = """
global
  maxconn 100
defaults
  mode tcp
  timeout connect 5s
  timeout client 30s
  timeout server 30s
listen v1
  bind 127.0.0.1:{v1}
  server s 127.0.0.1:{behind} send-proxy
listen v2
  bind 127.0.0.1:{v2}
  server s 127.0.0.1:{behind} send-proxy-v2
listen v2ssl
  bind 127.0.0.1:{v2ssl} ssl crt {pem}
  server s 127.0.0.1:{behind} send-proxy-v2-ssl
"""


@contextmanager
def started(command: list[str], port: int) -> Iterator[None]:
    """Run a server until the block ends; it listens when the block begins."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        try:
            wait_until(lambda: listens(port) or process.poll() is not None, 10, "it listens")
            assert process.poll() is None, process.stdout and process.stdout.read().decode()
            yield
        finally:
            process.terminate()
            process.wait(10)


def listens(port: int) -> bool:
    """Whether something accepts connections on a port of this machine."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def nginx(folder: Path, authority: Authority, port: int, behind: int) -> Iterator[None]:
    """nginx that ends TLS at one port and passes requests on to another."""
    key, cert = authority.issue(HOST)
    config = folder / "nginx.conf"
    (documented,) = blocks(section(DOCS / "how-to" / "behind-a-proxy.md", "nginx"), "nginx")
    for theirs, here in {
        "listen 443": f"listen 127.0.0.1:{port}",
        "127.0.0.1:8000": f"127.0.0.1:{behind}",
        "/etc/ssl/certs/hub.pem": cert,
        "/etc/ssl/private/hub.key": key,
    }.items():
        assert documented.count(theirs) == 1
        documented = documented.replace(theirs, here)
    config.write_text(NGINX_CONFIG.format(folder=folder, documented=documented))
    assert NGINX is not None
    with started([NGINX, "-c", str(config), "-e", str(folder / "nginx.log")], port):
        yield


class HubBehindNginx(Hub):
    """A hub whose users come by HTTPS, which ends at nginx."""

    def __init__(self, folder: Path, public_port: int) -> None:
        super().__init__(folder, CONFIG, "--trusted-proxies", "127.0.0.1")
        self.public = f"https://{HOST}:{public_port}"


@pytest.mark.skipif(NGINX is None, reason="needs nginx")
def test_a_hub_behind_nginx_with_tls_knows_that_it_is_https(tmp_path: Path) -> None:
    pytest.importorskip("jupyterhub")
    authority = Authority(tmp_path / "ca")
    (port,) = free_ports(1)
    with (
        running_hub(HubBehindNginx(tmp_path, port)) as hub,
        nginx(tmp_path, authority, port, hub.port),
        requests.Session() as browser,
    ):
        browser.verify = authority.ca
        browser.trust_env = False
        page = browser.get(f"{hub.public}/hub/login", timeout=30)
        field = re.search(r'name="_xsrf"\s+value="([^"]+)"', page.text)
        assert field is not None, page.text
        # A browser says where the form was; the hub compares that with what it takes itself for.
        form = {"username": USER, "password": PASSWORD, "_xsrf": field[1]}
        where = {"Referer": f"{hub.public}/hub/login", "Origin": hub.public}
        answer = browser.post(
            f"{hub.public}/hub/login",
            data=form,
            headers=where,
            allow_redirects=False,
            timeout=60,
        )
        assert answer.status_code == 302, answer.text
        cookies = [cookie for cookie in browser.cookies if "hub" in cookie.name]
        assert cookies, "the user is logged in"
        assert all(cookie.secure for cookie in cookies), "the hub knows that it is https"

        hub.spawn()
        (hub.folder / "home" / USER / "note.txt").write_text("by way of nginx")
        # Round by the hub's OAuth: each address that it makes is https, or it would fail.
        note = browser.get(f"{hub.public}/user/{USER}/files/note.txt", timeout=30)
        assert note.text == "by way of nginx"
        visited = [step.headers["Location"] for step in note.history]
        assert visited
        assert not [place for place in visited if place.startswith("http:")]


def forwarded_by(url: str, **options: Any) -> dict[str, str]:
    """Ask an echo target from another address; return what it was told of the client."""
    with requests.Session() as session:
        session.trust_env = False
        for scheme in ("http://", "https://"):
            session.mount(scheme, FromElsewhere())
        answer = session.get(url, timeout=10, **options)
    assert answer.status_code == 200, answer.text
    fields = {name.lower(): value for name, value in json.loads(answer.text)["headers"]}
    return {name: value for name, value in fields.items() if name.startswith("x-forwarded-")}


class FromElsewhere(requests.adapters.HTTPAdapter):
    """Connects from CLIENT."""

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, **options, source_address=(CLIENT, 0))


@pytest.mark.skipif(NGINX is None, reason="needs nginx")
def test_nginx_says_who_the_client_is_and_how_it_came(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    (port,) = free_ports(1)
    flags = ["--trusted-proxies", "127.0.0.1"]
    with (
        EchoTarget() as target,
        start_proxy(*flags, "--default-target", target.url) as proxy,
        nginx(tmp_path, authority, port, proxy.port),
    ):
        told = forwarded_by(f"https://{HOST}:{port}/x", verify=authority.ca)
        assert told["x-forwarded-for"] == f"{CLIENT},127.0.0.1"
        assert told["x-forwarded-proto"] == "https"
        assert told["x-forwarded-port"] == str(port)


@pytest.mark.skipif(HAPROXY is None, reason="needs haproxy")
def test_haproxy_that_forwards_bytes_says_who_the_client_is(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    key, cert = authority.issue(HOST)
    pem = tmp_path / "both.pem"
    pem.write_bytes(Path(cert).read_bytes() + Path(key).read_bytes())
    v1, v2, v2ssl = free_ports(3)
    flags = ["--proxy-protocol", "--trusted-proxies", "127.0.0.1"]
    with (
        EchoTarget() as target,
        start_server(*flags, "--default-target", target.url) as proxy,
    ):
        config = tmp_path / "haproxy.cfg"
        ports = {"v1": v1, "v2": v2, "v2ssl": v2ssl, "behind": proxy.port}
        config.write_text(HAPROXY_CONFIG.format(pem=pem, **ports))
        assert HAPROXY is not None
        with started([HAPROXY, "-db", "-f", str(config)], v2ssl):
            for port in (v1, v2):
                told = forwarded_by(f"http://127.0.0.1:{port}/x")
                assert told["x-forwarded-for"] == CLIENT
                assert told["x-forwarded-proto"] == "http"
            told = forwarded_by(f"https://{HOST}:{v2ssl}/x", verify=authority.ca)
            assert told["x-forwarded-for"] == CLIENT
            assert told["x-forwarded-proto"] == "https"
