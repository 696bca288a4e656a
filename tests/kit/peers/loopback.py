"""A server on the loopback interface, one thread per connection: the base of all targets."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import struct
import threading
from typing import TypeVar

from tests.kit.peers.waiting import wait_until

Self = TypeVar("Self", bound="LoopbackServer")

RESET_ON_CLOSE = struct.pack("ii", 1, 0)
BACKLOG = 1024


class LoopbackServer:
    """Accepts connections on ``port`` of 127.0.0.1, a free one if 0, while it is used as a context.

    ``host`` may be another address of this machine (e.g. ``::1``); ``unix_path`` makes it
    listen on a UNIX socket instead; ``tls`` makes it speak TLS. A subclass implements
    ``serve``.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        unix_path: str | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.tls = tls
        self.accepted = 0
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        if unix_path is not None:
            self.listener = socket.socket(socket.AF_UNIX)
            self.listener.bind(unix_path)
            self.listener.listen(BACKLOG)
            self.host, self.port = unix_path, 0
        else:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            self.listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
            self.host, self.port = host, self.listener.getsockname()[1]

    def serve(self, connection: socket.socket, index: int) -> None:
        """Handle one connection, the ``index``-th (from 0); it is closed on return."""
        raise NotImplementedError

    @property
    def url(self) -> str:
        """The URL that a route to this target is given, without a trailing slash."""
        if not self.port:
            return "http+unix://" + self.host.replace("/", "%2F")
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}"

    @property
    def open_connections(self) -> int:
        """How many connections have been accepted and neither side has closed yet."""
        with self._lock:
            return len(self._open)

    def wait_for_connections(self, count: int, timeout: float = 5.0) -> None:
        """Wait until exactly ``count`` connections are open."""
        wait_until(
            lambda: self.open_connections == count,
            timeout,
            lambda: f"{count} open connections at the target (there are {self.open_connections})",
        )

    def stop_listening(self) -> None:
        """Refuse new connections from now on; those that are open stay so."""
        with contextlib.suppress(OSError):
            # Wakes the thread that is blocked in accept().
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()

    def drop_connections(self, *, reset: bool = False) -> None:
        """Close every open connection from this side, with a reset where asked.

        Those who serve them do so: :meth:`wait_for_connections` tells when it is done.
        """
        with self._lock:
            connections = list(self._open)
        for connection in connections:
            with contextlib.suppress(OSError):
                if reset:
                    reset_on_close(connection)
                # The end that SHUT_RDWR sends would come before the reset.
                connection.shutdown(socket.SHUT_RD if reset else socket.SHUT_RDWR)

    def __enter__(self: Self) -> Self:
        self._run(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop_listening()
        self.drop_connections()
        for thread in self._threads:
            thread.join(timeout=5)

    def _run(self, function: object, *args: object) -> None:
        thread = threading.Thread(target=function, args=args, daemon=True)  # type: ignore[arg-type]
        self._threads = [known for known in self._threads if known.is_alive()]
        thread.start()
        self._threads.append(thread)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            with self._lock:
                index = self.accepted
                self.accepted += 1
                self._open.add(connection)
            self._run(self._serve, connection, index)

    def _serve(self, connection: socket.socket, index: int) -> None:
        stream = connection
        try:
            if connection.family != socket.AF_UNIX:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.tls is not None:
                stream = self.tls.wrap_socket(connection, server_side=True)
                with self._lock:
                    self._open.discard(connection)
                    self._open.add(stream)
            self.serve(stream, index)
        except OSError:
            # The other side went away or broke off a handshake: tests look at what it saw.
            pass
        finally:
            stream.close()
            connection.close()
            with self._lock:
                self._open -= {connection, stream}


def reset_on_close(connection: socket.socket) -> None:
    """Make the next close of ``connection`` send a reset (RST) instead of an end (FIN)."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)


def hung_up(connection: socket.socket, wait: float) -> bool:
    """Whether the other side closes, or breaks off, within ``wait`` seconds.

    Unlike reading, this notices it behind data that nobody has read yet.
    """
    poll = select.poll()
    poll.register(connection, select.POLLRDHUP)
    return bool(poll.poll(wait * 1000))
