"""A WebSocket target that sends every message back."""

from __future__ import annotations

import contextlib
import threading

from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve


class WebSocketEchoTarget:
    """Echoes messages on a free port of 127.0.0.1 while used as a context manager.

    ``subprotocols`` are those it accepts; ``compression`` is ``deflate`` or None.
    """

    def __init__(
        self, subprotocols: list[str] | None = None, compression: str | None = "deflate"
    ) -> None:
        self.paths: list[str] = []
        self._server = serve(
            self._echo,
            "127.0.0.1",
            0,
            subprotocols=subprotocols,  # type: ignore[arg-type]
            compression=compression,
            max_size=None,
        )
        self.port: int = self._server.socket.getsockname()[1]

    @property
    def url(self) -> str:
        """The URL that a route to this target is given."""
        return f"http://127.0.0.1:{self.port}"

    def _echo(self, connection: ServerConnection) -> None:
        if connection.request is not None:
            self.paths.append(connection.request.path)
        with contextlib.suppress(ConnectionClosed):
            for message in connection:
                connection.send(message)

    def __enter__(self) -> WebSocketEchoTarget:
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join(timeout=5)
