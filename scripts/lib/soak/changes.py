"""Adds, replaces and deletes routes through the REST API, and requests some of them."""

from __future__ import annotations

from typing import Any

from scripts.lib.bench.routes_api import RoutesApi, route_name
from scripts.lib.soak.client import KeptConnection, Outcome, Wrong, run
from scripts.lib.soak.plan import CHANGING_ROUTES, CHECK_EVERY, turns

# What JupyterHub stores, and as much more as a hub with several fields of its own.
FILLER = "x" * 1000


class Routes:
    """The routes that come and go; ``ports`` are the targets' by name."""

    def __init__(self, api: RoutesApi, ports: dict[str, int]) -> None:
        self._api = api
        self._ports = ports

    def add(self, number: int) -> None:
        """Add a route, or replace it. Raises ``Wrong``."""
        body = {
            "target": self._target(number),
            "user": f"u{number:06d}",
            "server_name": "",
            "jupyterhub": True,
            "filler": FILLER,
        }
        self._expect(201, "POST", number, body)

    def delete(self, number: int) -> None:
        """Delete a route. Raises ``Wrong``."""
        self._expect(204, "DELETE", number)

    def _expect(self, expected: int, method: str, number: int, body: object = None) -> None:
        status, _ = self._api.call(method, route_name(number), body)
        if status != expected:
            raise Wrong(f"{method} {route_name(number)} was answered {status}")

    def _target(self, number: int) -> str:
        """Most to the same address, as single-user servers behind a gateway are."""
        if number % 10 == 0:
            return f"http://127.0.0.1:{self._ports['dead']}"
        if number % 10 in (1, 2):
            return f"http://127.0.0.1:{self._ports['own']}/base{number}"
        return f"http://127.0.0.1:{self._ports['files']}"

    @staticmethod
    def status(number: int) -> int:
        """What a request by the route is answered."""
        return 503 if number % 10 == 0 else 200


def expect_answer(kept: KeptConnection, number: int, expected: int) -> None:
    """Raises ``Wrong`` unless a request by a route is answered with this status."""
    path = f"{route_name(number)}/1k"
    try:
        connection = kept.get()
        connection.send(f"GET {path} HTTP/1.1\r\nHost: soak.test\r\n\r\n".encode())
        status, _ = connection.answer()
    except (Wrong, OSError):
        kept.close()
        raise
    if status != expected:
        raise Wrong(f"GET {path} was answered {status} instead of {expected}")


def change(order: dict[str, Any]) -> Outcome:
    """Make ``count`` changes, or with ``fill`` only add the first routes.

    Each turn adds a route and deletes the oldest; as many changes as are left then replace
    one in the middle. Each ``CHECK_EVERY``-th turn requests both.
    """
    outcome = Outcome()
    api = RoutesApi(order["api_port"], order["token"])
    routes = Routes(api, order["ports"])
    kept = KeptConnection(order["port"])
    first, count = order["first"], order["count"]
    if order["fill"]:
        for number in range(first, first + count):
            routes.add(number)
        outcome.done = count
        return outcome
    replaced = count - 2 * turns(count)
    for turn in range(turns(count)):
        new, old = first + turn + CHANGING_ROUTES, first + turn
        is_checked = turn % CHECK_EVERY == CHECK_EVERY - 1
        outcome.attempt("change", routes.add, new)
        if is_checked:
            outcome.attempt("change", expect_answer, kept, new, routes.status(new))
        outcome.attempt("change", routes.delete, old)
        if is_checked:
            outcome.attempt("change", expect_answer, kept, old, 404)
        if turn < replaced:
            outcome.attempt("change", routes.add, new - CHANGING_ROUTES // 2)
    outcome.done = count
    kept.close()
    api.close()
    return outcome


if __name__ == "__main__":
    run(change)
