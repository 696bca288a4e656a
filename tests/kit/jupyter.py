"""A user's Jupyter server, its kernels and terminals, spoken to as JupyterLab does."""

from __future__ import annotations

import json
import struct
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any
from urllib.parse import urlsplit

import requests
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin, Subprotocol

from tests.kit.hub import USER, Hub, log_in

V1 = Subprotocol("v1.kernel.websocket.jupyter.org")
"""What JupyterLab asks for: binary messages, parts found by their offsets."""

ANSWER_TIMEOUT = 60.0


class Server:
    """The server of the logged-in USER, spoken to through the proxy as a page of it does."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._browser = log_in(hub)
        self._path = f"/user/{USER}"
        hub.spawn()
        # By the hub's OAuth to the cookies of the server.
        (hub.folder / "home" / USER / "page.txt").write_text("a page")
        assert self._browser.get(f"{self._url}/files/page.txt", timeout=30).text == "a page"

    @property
    def _url(self) -> str:
        return f"{self._hub.url}{self._path}"

    def call(self, method: str, path: str, **body: Any) -> Any:
        """Call the server's REST API; return the JSON of its answer, None without any."""
        answer = self._browser.request(
            method,
            f"{self._url}{path}",
            json=body or None,
            headers={"X-XSRFToken": self._cookies().get("_xsrf", "")},
            timeout=60,
        )
        assert answer.ok, (answer.status_code, answer.text, self._hub.log())
        return answer.json() if answer.content else None

    def get(self, path: str, base: str = "") -> requests.Response:
        """GET something of the server, perhaps by another address than the hub's."""
        return self._browser.get(f"{base or self._hub.url}{self._path}{path}", timeout=30)

    @contextmanager
    def kernel(self, kernel_id: str) -> Iterator[Kernel]:
        """Connect to a kernel that runs."""
        channels = f"/api/kernels/{kernel_id}/channels?session_id={uuid.uuid4().hex}"
        with self.open(channels, V1) as socket:
            yield Kernel(socket)

    def open(self, path: str, *subprotocols: Subprotocol) -> ClientConnection:
        """Open a WebSocket, with the cookies and the origin of a page of the server."""
        cookies = "; ".join(f"{name}={value}" for name, value in self._cookies().items())
        address = urlsplit(self._url)
        return connect(
            f"ws://{address.netloc}{address.path}{path}",
            origin=Origin(self._hub.url),
            additional_headers={"Cookie": cookies},
            subprotocols=subprotocols or None,
            max_size=None,
            open_timeout=30,
            proxy=None,
        )

    def _cookies(self) -> dict[str, str]:
        """Return the cookies that a browser sends to the server."""
        request = requests.Request("GET", f"{self._url}/")
        header = self._browser.prepare_request(request).headers.get("Cookie", "")
        pairs = (pair.partition("=") for pair in header.split("; ") if pair)
        cookies: dict[str, str] = {}
        for name, _, value in pairs:
            # The cookie with the longest path comes first, and is the one meant.
            cookies.setdefault(name, value)
        return cookies


class Kernel:
    """A running kernel, spoken to over one WebSocket."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._session = uuid.uuid4().hex

    def execute(self, code: str) -> dict[str, Any]:
        """Run code; return the data of its result by type of content."""
        request = self._send("execute_request", code=code, silent=False, store_history=True)
        result: dict[str, Any] = {}
        waiting_for = {"execute_reply", "idle"}
        while waiting_for:
            message = self._receive()
            if message["parent_header"].get("msg_id") != request:
                continue
            kind, content = message["header"]["msg_type"], message["content"]
            if kind == "execute_reply":
                assert content["status"] == "ok", content
                waiting_for.discard(kind)
            elif kind == "execute_result":
                result = content["data"]
            elif kind == "status":
                waiting_for.discard(content["execution_state"])
        return result

    def _send(self, kind: str, **content: Any) -> str:
        number = uuid.uuid4().hex
        header = {
            "msg_id": number,
            "msg_type": kind,
            "session": self._session,
            "username": USER,
            "version": "5.3",
        }
        parts = {"header": header, "parent_header": {}, "metadata": {}, "content": content}
        if self._socket.subprotocol == V1:
            self._socket.send(joined(["shell", *map(json.dumps, parts.values())]))
        else:
            self._socket.send(json.dumps({"channel": "shell", "buffers": [], **parts}))
        return number

    def _receive(self) -> dict[str, Any]:
        data = self._socket.recv(ANSWER_TIMEOUT)
        if isinstance(data, str):
            return dict(json.loads(data))
        _channel, *parts = split(data)
        names = ("header", "parent_header", "metadata", "content")
        return dict(zip(names, map(json.loads, parts), strict=False))


def joined(parts: list[str]) -> bytes:
    """Return a message of V1: the number of offsets, the offsets, and the parts."""
    coded = [part.encode() for part in parts]
    offsets = [8 * (len(coded) + 2)]
    for part in coded:
        offsets.append(offsets[-1] + len(part))
    return struct.pack(f"<{len(offsets) + 1}Q", len(offsets), *offsets) + b"".join(coded)


def split(message: bytes) -> list[bytes]:
    """Return the parts of a message of V1."""
    (count,) = struct.unpack_from("<Q", message)
    offsets = struct.unpack_from(f"<{count}Q", message, 8)
    return [message[start:end] for start, end in pairwise(offsets)]


@contextmanager
def running(server: Server, kind: str, key: str, **body: Any) -> Iterator[str]:
    """Have the server start one of its ``kernels`` or ``terminals``, and end it.

    What identifies it is the ``key`` of the answer.
    """
    started = server.call("POST", f"/api/{kind}", **body)[key]
    yield started
    server.call("DELETE", f"/api/{kind}/{started}")
    assert server.call("GET", f"/api/{kind}") == []
