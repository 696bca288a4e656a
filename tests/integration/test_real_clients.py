"""Clients and servers as people have them: git, curl, and what waits for 100 Continue."""

from __future__ import annotations

import hashlib
import os
import random
import select
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.peers import RawTarget, messages, response
from tests.kit.peers.raw_target import Exchange
from tests.kit.server import Proxy, start_proxy

pytestmark = pytest.mark.ours

MEGABYTE = 1 << 20
PUSHED = 50 * MEGABYTE

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")


@pytest.fixture(scope="module")
def proxy() -> Iterator[Proxy]:
    with start_proxy(workers=2) as proxy:
        yield proxy


def run(*command: str, folder: Path, timeout: float = 100.0) -> str:
    """Run a command that has to succeed, with no settings of this machine; return its output."""
    environment = {key: value for key, value in os.environ.items() if "proxy" not in key.lower()}
    environment |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    environment |= {"GIT_TERMINAL_PROMPT": "0", "HOME": str(folder)}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, timeout=timeout, check=False
    )
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    return done.stdout.decode()


# -- git


class GitServer:
    """``git http-backend`` as a CGI program behind a server that answers with it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, exchange: Exchange) -> None:
        request = exchange.request
        path, _, query = request.target.partition("?")
        environment = {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": str(self.folder),
            "GIT_HTTP_EXPORT_ALL": "1",
            "REQUEST_METHOD": request.method,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "CONTENT_TYPE": request.get("content-type") or "",
            "HTTP_CONTENT_ENCODING": request.get("content-encoding") or "",
            "GIT_PROTOCOL": request.get("git-protocol") or "",
            "REMOTE_USER": "alice",
        }
        body = exchange.read_body()
        environment["CONTENT_LENGTH"] = str(len(body))
        done = subprocess.run(
            ["git", "http-backend"], input=body, env=environment, capture_output=True, check=True
        )
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        status = fields.pop("Status", "200 OK")
        exchange.send(response(content, status, list(fields.items())))


@needs_git
def test_git_pushes_and_clones_fifty_megabytes(proxy: Proxy, tmp_path: Path) -> None:
    bare, work = tmp_path / "served" / "repo.git", tmp_path / "work"
    bare.mkdir(parents=True)
    work.mkdir()
    run("git", "init", "--bare", "-q", "-b", "main", ".", folder=bare)
    run("git", "config", "http.receivepack", "true", folder=bare)
    run("git", "init", "-q", "-b", "main", ".", folder=work)
    for repository in (bare, work):
        run("git", "config", "core.compression", "0", folder=repository)  # it is random
    content = random.Random(1).randbytes(PUSHED)
    (work / "large.bin").write_bytes(content)
    run("git", "add", ".", folder=work)
    author = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
    run("git", *author, "commit", "-q", "-m", "large", folder=work)
    with RawTarget(GitServer(bare.parent)) as target:
        proxy.api.add("/repo.git", target.url)
        url = f"{proxy.url}/repo.git"
        # More than http.postBuffer, so that it comes in chunks, behind a first small request.
        run("git", "push", "-q", url, "main", folder=work)
        pushed = max((len(request.body) for request in target.requests), default=0)
        assert pushed > PUSHED
        assert any(request.get("transfer-encoding") == "chunked" for request in target.requests)
        commit = run("git", "rev-parse", "main", folder=work)
        assert run("git", "rev-parse", "main", folder=bare) == commit
        run("git", "clone", "-q", url, str(tmp_path / "clone"), folder=tmp_path)
    cloned = (tmp_path / "clone" / "large.bin").read_bytes()
    assert hashlib.sha256(cloned).digest() == hashlib.sha256(content).digest()


# -- curl


@pytest.fixture
def target(proxy: Proxy) -> Iterator[RawTarget]:
    with RawTarget() as target:
        proxy.api.add("/", target.url)
        yield target


def read_then_answer(exchange: Exchange) -> None:
    exchange.send(response(str(len(exchange.read_body())).encode()))


@needs_curl
@pytest.mark.parametrize("size", [10, 5 * MEGABYTE])
def test_curl_that_offers_http_2_with_a_body_is_answered(
    proxy: Proxy, target: RawTarget, tmp_path: Path, size: int
) -> None:
    target.script(read_then_answer)
    (tmp_path / "body").write_bytes(b"x" * size)
    flags = ["-sS", "--noproxy", "*", "--http2", "--data-binary", "@body"]
    assert run("curl", *flags, f"{proxy.url}/x", folder=tmp_path) == str(size)
    assert target.request.method == "POST"
    assert not {"upgrade", "http2-settings"} & set(target.request.names())


@needs_curl
@pytest.mark.parametrize("framing", ["Expect: 100-continue", "Transfer-Encoding: chunked"])
def test_curl_that_waits_to_be_told_to_send_is_answered(
    proxy: Proxy, target: RawTarget, tmp_path: Path, framing: str
) -> None:
    target.script(read_then_answer)
    (tmp_path / "body").write_bytes(b"x" * 3 * MEGABYTE)
    flags = ["-sS", "--noproxy", "*", "-T", "body", "-H", "Expect: 100-continue", "-H", framing]
    # Without an invitation it would wait for this long before it sends.
    flags += ["--expect100-timeout", "60", "--max-time", "30"]
    assert run("curl", *flags, f"{proxy.url}/x", folder=tmp_path) == str(3 * MEGABYTE)


# -- clients that wait for 100 Continue in other ways


HEAD = "POST /x HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"


def test_a_client_that_waits_for_a_third_of_a_second_as_dotnet_does(
    proxy: Proxy, target: RawTarget
) -> None:
    """It sends its body then, and takes a 100 that comes later for what it is."""
    target.script(read_then_answer)
    with proxy.client() as client:
        client.send(HEAD)
        # As long as .NET's SocketsHttpHandler, unless it is told to go on.
        select.select([client.socket], [], [], 0.35)
        client.send(b"abcde")
        answer = client.read_response()
        assert (answer.status, answer.body) == (200, b"5")
        again = client.request("GET /x HTTP/1.1\r\nHost: a\r\n\r\n")
        assert again.status == 200


def test_a_client_that_waits_for_ever_is_told_to_go_on(proxy: Proxy, target: RawTarget) -> None:
    """As Java's HttpClient with ``expectContinue``."""
    target.script(read_then_answer)
    with proxy.client() as client:
        client.send(HEAD)
        assert messages.read_head(client.source).start == "HTTP/1.1 100 Continue"
        client.send(b"abcde")
        assert client.read_response().body == b"5"
