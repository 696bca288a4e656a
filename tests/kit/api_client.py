"""The REST API as JupyterHub uses it: a requests session with the token."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import requests


class ApiClient(requests.Session):
    """``get``, ``post``, … take whole URLs; the other methods take routes.

    Each request has a connection of its own: no test depends on how long the server keeps
    idle ones.
    """

    def __init__(self, url: str, token: str | None) -> None:
        super().__init__()
        self.url = url
        self.trust_env = False
        self.headers["Connection"] = "close"
        if token is not None:
            self.headers["Authorization"] = f"token {token}"

    def route_url(self, path: str) -> str:
        """Return the URL of a route, its path percent-encoded as JupyterHub does."""
        return f"{self.url}/api/routes{quote(path)}"

    def add(self, path: str, target: str, **fields: Any) -> None:
        """Add a route; raises AssertionError unless the answer is 201."""
        body = {"target": target, **fields}
        answer = self.post(self.route_url(path), json=body, timeout=20)
        assert answer.status_code == 201, (answer.status_code, answer.text)

    def remove(self, path: str) -> int:
        """Remove a route; return the status, 204 or 404."""
        return self.delete(self.route_url(path), timeout=20).status_code

    def route(self, path: str) -> dict[str, Any] | None:
        """Return one route, or None if it does not exist."""
        answer = self.get(self.route_url(path), timeout=20)
        if answer.status_code == 404:
            return None
        assert answer.status_code == 200, (answer.status_code, answer.text)
        return dict(answer.json())

    def routes(self, **query: str) -> dict[str, dict[str, Any]]:
        """Return the table of routes."""
        answer = self.get(f"{self.url}/api/routes", params=query, timeout=20)
        assert answer.status_code == 200, (answer.status_code, answer.text)
        return dict(answer.json())
