"""Running cases against a server, and writing down what its client and its target see."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scripts.lib.compare.case import GROUPS, NO_TOKEN, ROUTES, Case
from tests.kit.peers import BadMessage, Incomplete, RawClient, RawTarget
from tests.kit.peers.messages import Head
from tests.kit.peers.raw_target import OK, Reply
from tests.kit.server import TOKEN, Proxy, free_ports, start_proxy

ANSWER_TIMEOUT = 2.0
SETTLE = 0.2
"""Seconds in which a connection that the server closes behind an answer is closed."""

LAST_ACTIVITY = re.compile(r'("last_activity":\s*)"[^"]*"')
FIXED_DATE = "Sun, 06 Nov 1994 08:49:37 GMT"
PAGES = {"404.html": "<p>own 404</p>", "error.html": "<p>own error</p>"}


@dataclass
class Message:
    """A request or response, with ports and times replaced by names."""

    start: str
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: str = ""
    trailers: list[tuple[str, str]] = field(default_factory=list)
    interim: list[str] = field(default_factory=list)
    fate: str = "complete"


@dataclass
class Observation:
    """What one case showed: answers to the client, requests at the target, the table."""

    client: list[Message]
    connection: str
    target: list[Message]
    table: dict[str, Any] | None = None


class Bench:
    """One server with its target, on which the cases of a group run one after another."""

    def __init__(self, group: str, command: Sequence[str] | None, servers: ExitStack) -> None:
        self.target = servers.enter_context(RawTarget())
        (dead_port,) = free_ports(1)
        folder = Path(servers.enter_context(tempfile.TemporaryDirectory()))
        for name, text in PAGES.items():
            (folder / name).write_text(text, encoding="utf-8")
        self._places = {
            "target": self.target.url,
            "error_target": self.target.url + "/errors",
            "folder": str(folder),
            "dead_port": str(dead_port),
        }
        flags = [flag.format(**self._places) for flag in GROUPS[group]]
        self.proxy: Proxy = servers.enter_context(
            start_proxy(
                *flags,
                "--log-level",
                "error",
                command=command,
                token=None if group == NO_TOKEN else TOKEN,
            )
        )
        self._names = {
            f"127.0.0.1:{self.target.port}": "TARGET",
            f"127.0.0.1:{dead_port}": "DEAD",
            f"127.0.0.1:{self.proxy.port}": "PROXY",
            f"127.0.0.1:{self.proxy.api_port}": "API",
        }
        self.routes = {path: url.format(**self._places) for path, url in ROUTES.items()}
        self.reset_table()

    def reset_table(self) -> None:
        """Make the table what every case begins with."""
        for path in set(self.proxy.api.routes()) - set(self.routes):
            # CHP does not answer a DELETE of the root route without its slash.
            self.proxy.api.delete(self.proxy.api.route_url(path), timeout=5)
        for path, url in self.routes.items():
            self.proxy.api.add(path, url)

    def run(self, case: Case) -> Observation:
        """Run one case."""
        self.target.script(self._reply(case.reply))
        address = self.proxy.api_address if case.to == "api" else self.proxy.address
        with RawClient(address, timeout=ANSWER_TIMEOUT) as client:
            client.send(case.sent)
            answers = self._read_answers(client, case)
            connection = _rest(client)
        requests = [
            Message(
                self._named(request.start),
                [(name, self._named(value)) for name, value in request.headers],
                self._named(request.body.decode("latin-1")),
                request.trailers,
                fate="complete" if request.complete else "incomplete",
            )
            # CHP sends pipelined requests on at the same time: in what order is chance.
            for request in sorted(self.target.requests, key=lambda request: request.start)
        ]
        for error in self.target.errors:
            requests.append(Message(f"nonsense: {self._named(str(error))}"))
        observation = Observation(answers, self._named(connection), requests)
        if case.to == "api":
            table = self._named(json.dumps(self.proxy.api.routes(), ensure_ascii=False))
            observation.table = json.loads(table)
            self.reset_table()
        # What a request left on a connection must not reach the next case.
        self.target.drop_connections()
        self.target.wait_for_connections(0)
        return observation

    def _reply(self, reply: Reply) -> Reply:
        if isinstance(reply, bytes):
            return reply.replace(b"TARGET", f"127.0.0.1:{self.target.port}".encode())
        return reply

    def _read_answers(self, client: RawClient, case: Case) -> list[Message]:
        method = case.sent.split(b" ", 1)[0].decode("latin-1")
        answers: list[Message] = []
        for _ in range(case.answers):
            message = self._read_answer(client, method)
            answers.append(message)
            if message.fate != "complete":
                break
        return answers

    def _read_answer(self, client: RawClient, method: str) -> Message:
        try:
            head = client.read_head(method)
            message = self._message(head, [part.start for part in head.interim])
        except TimeoutError:
            return Message("no answer", fate="missing")
        except Incomplete as error:
            return Message("closed without an answer", body=str(error), fate="missing")
        except (BadMessage, ValueError) as error:
            return Message(f"nonsense: {error}", fate="missing")
        body = bytearray()
        try:
            for piece in client.iter_body(head):
                body += piece
            message.trailers = head.trailers
        except TimeoutError:
            message.fate = "hangs in the body"
        except Incomplete:
            message.fate = "cut off in the body"
        except BadMessage as error:
            message.fate = f"nonsense in the body: {error}"
        message.body = self._named(body.decode("latin-1"))
        return message

    def _message(self, head: Head, interim: list[str]) -> Message:
        headers = []
        for name, value in head.headers:
            generated = name.lower() == "date" and value != FIXED_DATE
            headers.append((name, "DATE" if generated else self._named(value)))
        return Message(head.start, headers, interim=interim)

    def _named(self, text: str) -> str:
        for port, name in self._names.items():
            text = text.replace(port, name)
        return LAST_ACTIVITY.sub(r'\1"TIME"', text)


def _rest(client: RawClient) -> str:
    """Return what becomes of the connection: open or closed, and what else came on it."""
    client.socket.settimeout(SETTLE)
    extra = client.source.pending()
    try:
        extra += client.read_to_end()[len(extra) :] if extra else client.read_to_end()
        state = "closed"
    except TimeoutError:
        extra = client.source.pending()
        state = "open"
    return f"{state}, after {extra[:200]!r}" if extra else state


def observe(
    group: str,
    cases: Sequence[Case],
    command: Sequence[str] | None,
    report: Callable[[], None],
) -> dict[str, Observation]:
    """Run cases of one group on a server of their own; ``command`` None is ours.

    ``report`` is called after each case.
    """
    observations = {}
    with ExitStack() as servers:
        bench = Bench(group, command, servers)
        for case in cases:
            observations[case.name] = bench.run(case)
            report()
        bench.target.script(OK)
    return observations
