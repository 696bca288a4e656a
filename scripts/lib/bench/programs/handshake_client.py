"""Requests over TLS 1.3, each on a connection of its own, for a bounded time; one JSON line.

Usage: handshake_client.py URL CONNECTIONS full|resumed SECONDS

``resumed``: each connection comes with the session of the one before it. A handshake of the other
kind than asked for is an error, but for the first ones.
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

ANSWER_TIMEOUT = 60.0


class Client:
    """One that asks, again and again; ``times`` has the seconds that each request took."""

    def __init__(self, url: SplitResult, *, resumes: bool) -> None:
        self._address = str(url.hostname), int(url.port or 0)
        self._request = (
            f"GET {url.path} HTTP/1.1\r\nHost: {url.netloc}\r\nConnection: close\r\n\r\n".encode()
        )
        self._context = ssl.create_default_context()
        self._context.check_hostname = False
        self._context.verify_mode = ssl.CERT_NONE
        self._context.minimum_version = ssl.TLSVersion.TLSv1_3
        self._resumes = resumes
        self._session: ssl.SSLSession | None = None
        self.times: list[float] = []
        self.errors: list[str] = []

    def run(self, end: float) -> None:
        """Ask until ``end``."""
        try:
            while time.perf_counter() < end:
                began = time.perf_counter()
                self._ask()
                self.times.append(time.perf_counter() - began)
        except OSError as error:
            self.errors.append(str(error))

    def _ask(self) -> None:
        """Raises OSError when it does not end in a 200, after a handshake of the right kind."""
        plain = socket.create_connection(self._address, ANSWER_TIMEOUT)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with plain, self._context.wrap_socket(plain, session=self._session) as sock:
            sock.sendall(self._request)
            answer = b""
            while data := sock.recv(65536):
                answer += data
            if not answer.startswith(b"HTTP/1.1 200"):
                raise ConnectionError(f"answered {answer[:40]!r}")
            if sock.session_reused != (self._session is not None):
                raise ConnectionError("the session was not resumed")
            if self._resumes:
                self._session = sock.session


def main() -> None:
    """Run the clients in threads and print what they did."""
    url, connections, kind, seconds = sys.argv[1:]
    clients = [Client(urlsplit(url), resumes=kind == "resumed") for _ in range(int(connections))]
    began = time.perf_counter()
    end = began + float(seconds)
    threads = [threading.Thread(target=client.run, args=(end,)) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    spent = time.perf_counter() - began
    times = [seconds for client in clients for seconds in client.times]
    errors = [error for client in clients for error in client.errors]
    print_figures(times, spent, errors)


if __name__ == "__main__":
    main()
