"""A storage backend that keeps the API waiting, and one that fails."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable
from typing import Any

from chp_gevent.config.options import Options
from chp_gevent.stores import Store

PORT_VARIABLE = "CHP_TEST_STORE_PORT"


class WaitingStore(Store):
    """Asks the test before each change, over a connection, and stores nothing."""

    def __init__(self, options: Options) -> None:
        self._port = int(os.environ[PORT_VARIABLE])

    def load(self) -> Iterable[tuple[str, dict[str, Any]]]:
        return [("/stored", {"target": "http://127.0.0.1:9", "user": "x"})]

    def add(self, path: str, data: dict[str, Any]) -> None:
        with socket.create_connection(("127.0.0.1", self._port)) as sock:
            sock.sendall(path.encode())
            sock.recv(1)

    def remove(self, path: str) -> None:
        self.add(path, {})


class UnreadableStore(Store):
    """Can't be read."""

    def __init__(self, options: Options) -> None:
        pass

    def load(self) -> Iterable[tuple[str, dict[str, Any]]]:
        raise ConnectionRefusedError("nobody there")

    def add(self, path: str, data: dict[str, Any]) -> None:
        pass

    def remove(self, path: str) -> None:
        pass
