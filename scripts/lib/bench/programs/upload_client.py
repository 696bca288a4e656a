"""Uploads over keep-alive connections for a bounded time; prints one JSON line.

Usage: upload_client.py URL CONNECTIONS BYTES SECONDS
"""

from __future__ import annotations

import socket
import ssl
import sys
import threading
import time
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

sys.path.insert(0, str(Path(__file__).resolve().parents[4]))

from scripts.lib.bench.programs.figures import print_figures

CHUNK = bytes(1 << 18)
ANSWER_TIMEOUT = 60.0


def upload(sock: socket.socket, head: bytes, size: int) -> None:
    """One POST; raises OSError when it does not end in a 200."""
    sock.sendall(head)
    missing = size
    while missing:
        part = CHUNK if missing >= len(CHUNK) else CHUNK[:missing]
        sock.sendall(part)
        missing -= len(part)
    answer = b""
    while b"\r\n\r\n" not in answer:
        data = sock.recv(65536)
        if not data:
            raise ConnectionError("closed before an answer")
        answer += data
    status, rest = answer[9:12], answer.partition(b"\r\n\r\n")[2]
    if status != b"200":
        raise ConnectionError(f"answered {status.decode()}")
    chunked = b"transfer-encoding: chunked" in answer.lower()
    end = b"0\r\n\r\n" if chunked else b"ok"
    while not rest.endswith(end):
        data = sock.recv(65536)
        if not data:
            raise ConnectionError("closed inside an answer")
        rest += data


def connected(url: SplitResult) -> socket.socket:
    """A connection for ``http`` or ``https``; nobody looks at the certificate."""
    plain = socket.create_connection((str(url.hostname), int(url.port or 0)), ANSWER_TIMEOUT)
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if url.scheme == "http":
        return plain
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(plain)


def work(url: SplitResult, size: int, end: float, times: list[float]) -> None:
    """Upload over one connection until ``end`` and collect the seconds of each."""
    head = (
        f"POST {url.path} HTTP/1.1\r\nHost: {url.netloc}\r\n"
        f"Content-Type: application/octet-stream\r\nContent-Length: {size}\r\n\r\n"
    ).encode()
    with connected(url) as sock:
        while time.perf_counter() < end:
            began = time.perf_counter()
            upload(sock, head, size)
            times.append(time.perf_counter() - began)


def main() -> None:
    """Run the connections in threads and print what they did."""
    url, connections, size, seconds = sys.argv[1:]
    times: list[float] = []
    errors: list[str] = []

    def guarded() -> None:
        try:
            work(urlsplit(url), int(size), began + float(seconds), times)
        except OSError as error:
            errors.append(str(error))

    began = time.perf_counter()
    threads = [threading.Thread(target=guarded) for _ in range(int(connections))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    spent = time.perf_counter() - began
    print_figures(times, spent, errors)


if __name__ == "__main__":
    main()
