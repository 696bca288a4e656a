"""A client of CHP's REST API that keeps one connection and the time of every call."""

from __future__ import annotations

import http.client
import json
import time
from dataclasses import dataclass, field

CALL_SECONDS = 60.0
# Servers close idle connections (CHP after 5 s): one that has rested longer is not used again.
REST_SECONDS = 2.0


def route_name(number: int) -> str:
    """The path of the n-th route, in the form that JupyterHub uses."""
    return f"/user/u{number:06d}"


@dataclass
class RoutesApi:
    """One keep-alive connection to the REST API of a proxy on loopback."""

    port: int
    token: str
    seconds: list[float] = field(default_factory=list)
    _connection: http.client.HTTPConnection | None = None
    _last_call: float = 0.0

    def call(self, method: str, path: str, body: object = None) -> tuple[int, bytes]:
        """One call: status and body."""
        if time.perf_counter() - self._last_call > REST_SECONDS:
            self.close()
        if self._connection is None:
            self._connection = http.client.HTTPConnection("127.0.0.1", self.port, CALL_SECONDS)
        payload = None if body is None else json.dumps(body).encode()
        began = time.perf_counter()
        headers = {"Authorization": f"token {self.token}"}
        try:
            self._connection.request(method, f"/api/routes{path}", payload, headers)
            answer = self._connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException):
            self._connection.close()
            self._connection = None
            raise
        self._last_call = time.perf_counter()
        self.seconds.append(self._last_call - began)
        return answer.status, text

    def add(self, first: int, count: int, target: str) -> int:
        """Add routes with the fields that JupyterHub stores; how many were not answered 201."""
        wrong = 0
        for number in range(first, first + count):
            body = {"target": target, "jupyterhub": True, "user": f"u{number:06d}"}
            wrong += self.call("POST", route_name(number), body)[0] != 201
        return wrong

    def delete(self, first: int, count: int) -> int:
        """Delete routes; how many were not answered 204."""
        return sum(
            self.call("DELETE", route_name(number))[0] != 204
            for number in range(first, first + count)
        )

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
