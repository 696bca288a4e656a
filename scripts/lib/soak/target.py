"""A target with answers that nginx does not give, and tunnels that it ends itself.

Prints its port when it listens. What it does is in the last segment of the path:

- ``varied``: 1 KB, with a header section that no other answer has;
- ``chunked``: a chunked body of varying length, always with the same end;
- ``late``: after a while, when a client that leaves has gone.

An upgrade makes a WebSocket that echoes; it ends as its messages ask for.
"""

from __future__ import annotations

import asyncio
import itertools
import socket

from scripts.lib.bench.programs.frames import BINARY_FINAL, accept_value, frame, take_frame
from tests.kit.peers import chunked
from tests.kit.peers.loopback import reset_on_close

KB = 1024
LATE_SECONDS = 0.2
CHUNKED_END = b"end of the chunks"
CLOSE_FRAME = b"\x88\x02\x03\xe8"  # 1000, as a server sends it
ASK_TO_CLOSE = b"close, please"
ASK_TO_RESET = b"reset, please"

_serials = itertools.count()


class Target(asyncio.Protocol):
    """One connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start as an HTTP connection."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._received = bytearray()
        self._is_tunnel = False

    def data_received(self, data: bytes) -> None:
        """Answer each whole request, or message."""
        self._received += data
        while not self._is_tunnel and b"\r\n\r\n" in self._received:
            head, _, rest = bytes(self._received).partition(b"\r\n\r\n")
            self._received = bytearray(rest)
            self._answer(head)
        while self._is_tunnel and self._received:
            is_close = self._received[0] != BINARY_FINAL
            payload = take_frame(self._received)
            if payload is None:
                return
            self._message(payload, is_close=is_close)

    def _answer(self, head: bytes) -> None:
        line, *lines = head.split(b"\r\n")
        headers = {}
        for field in lines:
            name, _, value = field.partition(b":")
            headers[name.lower()] = value.strip()
        what = line.split(b" ")[1].rpartition(b"/")[2]
        serial = next(_serials)
        if (key := headers.get(b"sec-websocket-key")) is not None:
            self._transport.write(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Accept: " + accept_value(key) + b"\r\n\r\n"
            )
            self._is_tunnel = True
        elif what == b"chunked":
            middle = b"x" * (serial * 7919 % 20_000 + 1)
            body = chunked(b"start", middle, CHUNKED_END)
            self._transport.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body)
        elif what == b"late":
            loop = asyncio.get_running_loop()
            loop.call_later(LATE_SECONDS, self._transport.write, _whole(serial))
        else:
            self._transport.write(_whole(serial))

    def _message(self, payload: bytes, *, is_close: bool) -> None:
        if is_close:
            self._transport.write(CLOSE_FRAME)
            self._transport.close()
            return
        if payload == ASK_TO_RESET:
            sock: socket.socket = self._transport.get_extra_info("socket")
            reset_on_close(sock)
            self._transport.abort()
            return
        self._transport.write(frame(payload, masked=False))
        if payload == ASK_TO_CLOSE:
            self._transport.write(CLOSE_FRAME)
            self._transport.close()


def _whole(serial: int) -> bytes:
    return (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nX-Serial: %d\r\nContent-Length: %d\r\n\r\n"
        % (serial, KB)
    ) + b"v" * KB


async def serve() -> None:
    """Listen on a free loopback port, say which, serve."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Target, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve())
