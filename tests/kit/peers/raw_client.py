"""A client that sends exactly the bytes it is given and shows exactly what comes back."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Iterator

from tests.kit.peers import messages
from tests.kit.peers.loopback import hung_up, reset_on_close
from tests.kit.peers.messages import ByteSource, Incomplete, Response


class RawClient:
    """One connection to the proxy at ``address`` (host and port, or a UNIX socket's path).

    Every read raises TimeoutError after ``timeout`` seconds without a byte. A ``narrow`` one has
    small packets and a kernel that takes little more than it reads.
    """

    def __init__(
        self,
        address: tuple[str, int] | str,
        *,
        timeout: float = 10.0,
        tls: ssl.SSLContext | None = None,
        server_name: str = "localhost",
        narrow: bool = False,
    ) -> None:
        if isinstance(address, str):
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.connect(address)
        elif narrow:
            self.socket = socket.socket()
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
            self.socket.connect(address)
        else:
            self.socket = socket.create_connection(address, timeout=timeout)
        if not isinstance(address, str):
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_hostname=server_name)
        self.socket.settimeout(timeout)
        self.source = ByteSource(self.socket, remember=False)
        self.body_framing = "none"

    def send(self, data: bytes | str) -> None:
        """Send bytes (a str is sent as latin-1)."""
        self.socket.sendall(data if isinstance(data, bytes) else data.encode("latin-1"))

    def read_head(self, method: str = "GET") -> Response:
        """Read one final response up to its body; 1xx responses land in its ``interim``.

        101 counts as final.
        """
        interim: list[Response] = []
        while True:
            head = messages.read_head(self.source)
            response = Response(head.start, head.headers, head.raw, interim=interim)
            if not 100 <= response.status < 200 or response.status == 101:
                break
            interim.append(response)
        response.framing = messages.response_framing(head, response.status, method)
        return response

    def iter_body(self, response: Response) -> Iterator[bytes]:
        """Read the body of ``response`` piece by piece, decoded, as it comes."""
        return messages.iter_body(self.source, response, response.framing, response.trailers)

    def read_response(self, method: str = "GET") -> Response:
        """Read one final response completely.

        Raises Incomplete, with the part of the body that came, when it is cut off.
        """
        response = self.read_head(method)
        body = bytearray()
        try:
            for piece in self.iter_body(response):
                body += piece
        except Incomplete as error:
            raise Incomplete(bytes(body), "end of stream in the body") from error
        finally:
            response.body = bytes(body)
        return response

    def request(self, data: bytes | str) -> Response:
        """Send one request and read its response."""
        data = data if isinstance(data, bytes) else data.encode("latin-1")
        self.send(data)
        return self.read_response(data.split(b" ", 1)[0].decode("latin-1"))

    def read_to_end(self) -> bytes:
        """Take everything that comes until the connection ends."""
        return b"".join(self.source.pieces_to_end())

    def is_closed(self, wait: float = 0.0) -> bool:
        """Whether the other side has closed, with nothing left to read, within ``wait`` s."""
        if self.source.pending() or not hung_up(self.socket, wait):
            return False
        if isinstance(self.socket, ssl.SSLSocket):
            return True
        try:
            return self.socket.recv(1, socket.MSG_PEEK) == b""
        except ConnectionError:
            return True

    def assert_closed(self, within: float = 5.0) -> None:
        """Fail unless the other side closes the connection without sending anything more."""
        assert not self.source.pending(), f"unread: {self.source.pending()[:500]!r}"
        assert self.is_closed(within), "the connection is still open, or something came on it"

    def half_close(self) -> None:
        """Send the end of the stream and go on receiving."""
        self.socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Break the connection off with a reset."""
        reset_on_close(self.socket)
        self.socket.close()

    def close(self) -> None:
        """Close the connection."""
        self.socket.close()

    def __enter__(self) -> RawClient:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self.close()


def fetch(address: tuple[str, int] | str, data: bytes | str) -> Response:
    """Send one request on a connection of its own and return the response."""
    with RawClient(address) as client:
        return client.request(data)


def get(path: str, *headers: str, host: str = "proxy.test") -> str:
    """Return the text of a GET request; ``headers`` are whole lines."""
    return "\r\n".join([f"GET {path} HTTP/1.1", f"Host: {host}", *headers, "", ""])


def chunked(*chunks: bytes, trailers: str = "") -> bytes:
    """Return a chunked body with these chunks; ``trailers`` are whole lines with CRLF."""
    coded = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
    return coded + b"0\r\n" + trailers.encode("latin-1") + b"\r\n"
