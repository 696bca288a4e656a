"""Several processes look like one: an answered API call holds for every later request."""

from __future__ import annotations

import json
import threading
from collections import Counter

from tests.kit.effort import rounds
from tests.kit.peers import EchoTarget, RawClient, get
from tests.kit.server import OTHER_COMMAND, TOKEN, Proxy, start_proxy

WORKERS = 4
CLIENTS = 8
ROUNDS = rounds(150, 500)
LOOK_AT_WORKER_EVERY = 50


class Hammer:
    """One client: adds a route, uses it, removes it, uses it again, ROUNDS times."""

    def __init__(self, proxy: Proxy, number: int, targets: list[EchoTarget]) -> None:
        self.proxy = proxy
        self.number = number
        self.targets = targets
        self.outcomes: Counter[str] = Counter()
        self.workers: set[int] = set()

    def run(self) -> None:
        """Do all rounds; every outcome but ``right`` is a broken promise."""
        with RawClient(self.proxy.api_address) as api:
            for number in range(ROUNDS):
                try:
                    self._round(api, number)
                except Exception as error:
                    self.outcomes[f"{type(error).__name__}: {error}"] += 1
                    return

    def _round(self, api: RawClient, number: int) -> None:
        path = f"/user/{self.number}-{number}"
        target = self.targets[number % len(self.targets)]
        assert self._call(api, "POST", path, json.dumps({"target": target.url})) == 201
        with self.proxy.client() as client:
            answer = client.request(get(path + "/page"))
            if number % LOOK_AT_WORKER_EVERY == 0:
                self.workers.add(self.proxy.worker_of(client))
        if answer.status != 200:
            self.outcomes[f"{answer.status} after the route was added"] += 1
        elif json.loads(answer.body)["name"] != target.name:
            self.outcomes["wrong target"] += 1
        else:
            self.outcomes["right"] += 1
        assert self._call(api, "DELETE", path) == 204
        status = self.proxy.get(path + "/page").status
        self.outcomes["right" if status == 404 else f"{status} after the route was removed"] += 1

    def _call(self, api: RawClient, method: str, path: str, body: str = "") -> int:
        return api.request(
            f"{method} /api/routes{path} HTTP/1.1\r\nHost: a\r\nAuthorization: token {TOKEN}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n{body}"
        ).status


def test_every_worker_obeys_a_change_as_soon_as_the_api_has_answered() -> None:
    with (
        EchoTarget("one") as one,
        EchoTarget("two") as two,
        EchoTarget("three") as three,
        start_proxy("--log-level", "error", workers=WORKERS) as proxy,
    ):
        hammers = [Hammer(proxy, number, [one, two, three]) for number in range(CLIENTS)]
        threads = [threading.Thread(target=hammer.run) for hammer in hammers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    outcomes = sum((hammer.outcomes for hammer in hammers), Counter())
    assert outcomes == {"right": 2 * CLIENTS * ROUNDS}
    workers = set().union(*(hammer.workers for hammer in hammers))
    assert OTHER_COMMAND or len(workers) > 1, "all requests came to one worker: nothing was shown"
