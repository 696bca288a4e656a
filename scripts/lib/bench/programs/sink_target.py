"""An HTTP target that reads request bodies and throws them away; prints its port.

It answers when it has read the whole body, as an application does. (nginx's ``return``
answers first and discards the body later, which some proxies take for an aborted upload.)
"""

from __future__ import annotations

import socket
import threading

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
READ_SIZE = 1 << 20


def serve(sock: socket.socket) -> None:
    """Answer the requests of one connection until it ends."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    space = bytearray(READ_SIZE)
    pending = b""
    with sock:
        while True:
            while b"\r\n\r\n" not in pending:
                data = sock.recv(65536)
                if not data:
                    return
                pending += data
            head, _, pending = pending.partition(b"\r\n\r\n")
            pending = _discard_body(sock, head.lower(), pending, space)
            sock.sendall(ANSWER)


def _discard_body(sock: socket.socket, head: bytes, pending: bytes, space: bytearray) -> bytes:
    """Read to the end of the body; return what came after it."""
    if b"transfer-encoding: chunked" in head:
        return _discard_chunks(sock, pending)
    length = 0
    for line in head.split(b"\r\n"):
        if line.startswith(b"content-length:"):
            length = int(line.partition(b":")[2])
    taken = min(length, len(pending))
    missing = length - taken
    while missing:
        count = sock.recv_into(space, min(missing, READ_SIZE))
        if not count:
            raise ConnectionError("closed inside a body")
        missing -= count
    return pending[taken:]


def _discard_chunks(sock: socket.socket, pending: bytes) -> bytes:
    """Read a chunked body to its end; return what came after it."""
    buffer = bytearray(pending)
    while True:
        while b"\r\n" not in buffer:
            _fill(sock, buffer)
        line, _, _ = buffer.partition(b"\r\n")
        size = int(line.split(b";")[0], 16)
        needed = len(line) + 2 + size + 2
        while len(buffer) < needed:
            _fill(sock, buffer)
        del buffer[:needed]
        if size == 0:
            return bytes(buffer)


def _fill(sock: socket.socket, buffer: bytearray) -> None:
    data = sock.recv(READ_SIZE)
    if not data:
        raise ConnectionError("closed inside a chunked body")
    buffer += data


def main() -> None:
    """Listen on a free loopback port, say which, serve with a thread for each connection."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    print(listener.getsockname()[1], flush=True)
    while True:
        sock, _ = listener.accept()
        threading.Thread(target=_serve_quietly, args=(sock,), daemon=True).start()


def _serve_quietly(sock: socket.socket) -> None:
    try:
        serve(sock)
    except OSError:
        return


if __name__ == "__main__":
    main()
