"""Real WebSocket clients and targets through the proxy."""

from __future__ import annotations

import random
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.kit import processes
from tests.kit.peers import RawTarget, WebSocketEchoTarget, wait_until
from tests.kit.peers.duplex import DuplexPeer
from tests.kit.peers.upgrades import echo, switched, upgrade
from tests.kit.server import START_TIMEOUT, Proxy, Start, spawn

StartProxy = Callable[..., Proxy]
AddRoute = Callable[[str], str]

MEGABYTE = 1 << 20

SOON = 1.0
"""Seconds within which the end of one side must have reached the other."""


@pytest.fixture(scope="module")
def target() -> Iterator[WebSocketEchoTarget]:
    """A real WebSocket server that echoes messages, with compression."""
    with WebSocketEchoTarget() as target:
        yield target


@pytest.fixture
def two_workers(start_proxy: StartProxy, target: WebSocketEchoTarget) -> Proxy:
    """A server with two workers whose only route leads to ``target``."""
    proxy = start_proxy(workers=2)
    proxy.api.add("/", target.url)
    return proxy


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``ca.pem``, and ``cert.pem`` and ``key.pem`` for localhost."""
    folder = tmp_path_factory.mktemp("certificates")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    issued = authority.issue_cert("localhost", "127.0.0.1")
    issued.private_key_pem.write_to_path(folder / "key.pem")
    issued.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    return folder


def dial(proxy: Proxy, path: str = "/", **options: Any) -> ClientConnection:
    """Open a WebSocket through the proxy."""
    url = f"ws://127.0.0.1:{proxy.port}{path}"
    socket: ClientConnection = connect(url, max_size=None, proxy=None, **options)
    return socket


# -- real clients


def test_compressed_messages(two_workers: Proxy) -> None:
    with dial(two_workers) as socket:
        (extension,) = socket.protocol.extensions
        assert extension.name == "permessage-deflate"
        for text in ("hello", "compressible " * 100_000, "秀樹 🚀", ""):
            socket.send(text)
            assert socket.recv() == text


def test_subprotocols_are_negotiated_by_the_two_ends(proxy: Proxy, add_route: AddRoute) -> None:
    with WebSocketEchoTarget(subprotocols=["v1.echo", "v2.echo"]) as target:
        with dial(proxy, add_route(target.url), subprotocols=["v9.echo", "v2.echo"]) as socket:
            assert socket.subprotocol == "v2.echo"
        with pytest.raises(InvalidStatus, match="400"), dial(proxy, add_route(target.url)):
            pass


@pytest.mark.parametrize("compression", [None, "deflate"])
def test_messages_of_16_mebibytes(two_workers: Proxy, compression: str | None) -> None:
    message = random.randbytes(16 * MEGABYTE)
    with dial(two_workers, compression=compression) as socket:
        socket.send(message)
        assert socket.recv(timeout=30) == message


def test_pings_and_close_codes_are_the_business_of_the_two_ends(two_workers: Proxy) -> None:
    with dial(two_workers) as socket:
        assert socket.ping().wait(5)
        socket.close(4001, "the reason")
    assert (socket.close_code, socket.close_reason) == (4001, "the reason")


def test_many_clients_at_once_over_all_workers(two_workers: Proxy) -> None:
    clients = 40
    all_connected = threading.Barrier(clients)

    def converse(number: int) -> int:
        with dial(two_workers, f"/client-{number}") as socket:
            all_connected.wait(30)
            port: int = socket.socket.getsockname()[1]
            for turn in range(50):
                socket.send(f"{number}/{turn}")
                assert socket.recv() == f"{number}/{turn}"
            # More than one look: the kernel's table changes while it is read.
            return wait_until(
                lambda: processes.holder_of_connection(two_workers.tree(), two_workers.port, port),
                10,
                "the worker of a connection",
            )

    wait_for_both_workers(two_workers)
    with ThreadPoolExecutor(clients) as pool:
        served_by = set(pool.map(converse, range(clients)))
    assert len(served_by) == 2


def wait_for_both_workers(proxy: Proxy) -> None:
    """Wait until both workers accept connections; one of them is enough for being ready."""
    seen: set[int] = set()
    with ExitStack() as clients:

        def both_serve() -> bool:
            seen.add(proxy.worker_of(clients.enter_context(proxy.client())))
            return len(seen) == 2

        wait_until(both_serve, 10, "connections to both workers")


NODE_CLIENT = """
const WebSocket = require("ws");
const socket = new WebSocket(process.argv[1], { perMessageDeflate: true });
const messages = ["hello", "x".repeat(3000000)];
let received = 0;
socket.on("open", () => messages.forEach((message) => socket.send(message)));
socket.on("error", (error) => { console.error(error); process.exit(1); });
socket.on("message", (data) => {
  if (data.toString() !== messages[received++]) process.exit(2);
  if (received === messages.length) socket.close(4002);
});
socket.on("close", (code) => { console.log(socket.extensions, code); });
"""


def test_node_ws(two_workers: Proxy) -> None:
    node = shutil.which("node")
    if (
        node is None
        or subprocess.run([node, "-e", 'require("ws")'], capture_output=True).returncode
    ):
        pytest.skip("needs node, and the module ws on its NODE_PATH")
    url = f"ws://127.0.0.1:{two_workers.port}/"
    done = subprocess.run(
        [node, "-e", NODE_CLIENT, url], capture_output=True, text=True, timeout=30
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == ["permessage-deflate", "4002"]


# -- TLS


@contextmanager
def started(*flags: str) -> Iterator[Proxy]:
    """A server that may speak TLS, which the ordinary check for readiness can't."""
    proxy = spawn(flags, Start())
    try:
        proxy.wait_for_log("Proxy API at", START_TIMEOUT)
        yield proxy
        proxy.stop()
    finally:
        proxy.kill()


@pytest.mark.parametrize(
    ("client_tls", "target_tls", "proto"),
    [(True, False, "wss"), (False, True, "ws"), (True, True, "wss")],
    ids=["client", "target", "both"],
)
def test_tls(certificates: Path, client_tls: bool, target_tls: bool, proto: str) -> None:
    cert, key, authority = (str(certificates / f"{name}.pem") for name in ("cert", "key", "ca"))
    flags = ["--client-ssl-ca", authority] if target_tls else []
    if client_tls:
        flags += ["--ssl-cert", cert, "--ssl-key", key]
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(cert, key)
    trusting = ssl.create_default_context(cafile=authority)
    message = random.randbytes(3 * MEGABYTE)
    with (
        RawTarget(switched(echo), tls=serving if target_tls else None) as target,
        started(*flags) as proxy,
    ):
        proxy.api.add("/", target.url)
        # One thread sends while another receives, which an ssl.SSLSocket does not bear.
        sock = socket.create_connection(proxy.address)
        with DuplexPeer(sock, tls=trusting if client_tls else None) as client:
            client.handshake()
            client.send(upgrade("/").encode())
            answer = b""
            while not answer.endswith(b"\r\n\r\n"):
                answer += client.receive(1)
            assert answer.startswith(b"HTTP/1.1 101 ")
            for size in (1, 20_000, len(message)):
                sender = threading.Thread(target=client.send, args=(message[:size],))
                sender.start()
                echoed = b""
                while len(echoed) < size:
                    echoed += client.receive(size - len(echoed))
                assert echoed == message[:size]
                sender.join()
        assert target.request.all("x-forwarded-proto") == [proto]
        target.wait_for_connections(0, SOON)
