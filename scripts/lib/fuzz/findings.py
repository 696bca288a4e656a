"""What was done and found with a server, in a form that can be kept in a file and done again."""

from __future__ import annotations

import json
import re
import threading
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

NAME = re.compile(rb"c-[0-9a-f]{16}")
"""The name of a request, which its answer has too."""

_REMEMBERED = 20_000
# In a file: what came before a finding may be its cause.
_KEPT = 200


@dataclass
class Script:
    """What one side of a connection sends.

    Attributes:
        pieces: what it sends, each with the seconds that it waits afterwards.
        ending: ``reset``, ``end`` (it sends no more) or ``stay``.
        quiet: seconds without anything from the other side, after which a client leaves.
    """

    pieces: list[tuple[bytes, float]]
    ending: str = "stay"
    quiet: float = 0.3

    @property
    def data(self) -> bytes:
        """All that is sent."""
        return b"".join(data for data, _ in self.pieces)


@dataclass
class Conversation:
    """A client's connection, and what the target answered.

    Attributes:
        names: of its requests, in their order.
        sent: what the client sends.
        targets: of those requests that are in there, in origin-form.
        answers: what the target sends to a request, by its name; the same if it comes again.
        began: when its client connected, in seconds of the monotonic clock.
        excused: names of requests with answers behind which the target sent something that nobody
            had asked for, and when that had arrived. A request that the proxy sent before has it
            for an answer, for no fault of the proxy's.
    """

    names: list[bytes]
    sent: Script
    targets: set[str] = field(default_factory=set)
    answers: dict[bytes, Script] = field(default_factory=dict)
    began: float = 0.0
    excused: dict[bytes, float] = field(default_factory=dict)


@dataclass
class Findings:
    """What was found, and what was done.

    Attributes:
        found: what went wrong, in a line each.
        counts: of requests, responses, probes.
    """

    found: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    _conversations: dict[bytes, Conversation] = field(default_factory=dict)
    _involved: list[Conversation] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, text: str, names: Iterable[bytes] = ()) -> None:
        """Take note of a finding, and of the requests that it is about."""
        with self._lock:
            if len(self.found) < 100:
                self.found.append(text)
                known = map(self._conversations.get, names)
                self._involved += [each for each in known if each is not None]

    def count(self, what: str) -> None:
        """Count something."""
        with self._lock:
            self.counts[what] += 1

    def remember(self, conversation: Conversation) -> None:
        """Remember what a client is about to send."""
        with self._lock:
            for name in conversation.names:
                self._conversations[name] = conversation
                if len(self._conversations) > _REMEMBERED:
                    del self._conversations[next(iter(self._conversations))]

    def conversation(self, name: bytes) -> Conversation | None:
        """Return the one that a request belongs to, if it is known."""
        with self._lock:
            return self._conversations.get(name)

    def excuse_until(self, name: bytes, when: float) -> None:
        """Excuse clients that connected before, and got what belongs to this request."""
        conversation = self.conversation(name)
        if conversation is not None:
            conversation.excused[name] = when

    def judge_received(self, conversation: Conversation, received: bytes) -> None:
        """Look whether a client has received answers to its requests only, in their order."""
        own = conversation.names
        seen = NAME.findall(received)
        said = f"sent {conversation.sent.data[:2000]!r}, received {received[:2000]!r}"
        if foreign := self._foreign(set(seen) - set(own), conversation.began):
            self.add(f"a client got what belongs to another: {said}", [*own, *foreign])
        order = [own.index(each) for each in seen if each in own]
        if order != sorted(order):
            self.add(f"a client got answers in another order: {said}", own)

    def _foreign(self, names: set[bytes], began: float) -> set[bytes]:
        """Return those names of requests that a client which connected then must not see."""
        found = set()
        for name in names:
            # Mutation makes names that are nobody's.
            conversation = self.conversation(name)
            if conversation is None:
                continue
            if began < conversation.excused.get(name, 0.0):
                self.count("answers to others excused")
            else:
                found.add(name)
        return found

    def write(self, path: Path) -> None:
        """Write what was found, with the conversations that it is about and the last others."""
        with self._lock:
            others = list({id(each): each for each in self._conversations.values()}.values())
            kept = {id(each): each for each in [*self._involved, *others[-_KEPT:]]}
            about = list(kept.values())
            content = {
                "found": self.found,
                "involved": len({id(each) for each in self._involved}),
                "conversations": [_as_json(each) for each in about],
            }
        path.write_text(json.dumps(content, indent=1) + "\n", "utf-8")


def read(path: Path) -> tuple[list[Conversation], list[Conversation]]:
    """Return the conversations of a file: those that its findings are about, and others."""
    content = json.loads(path.read_text("utf-8"))
    conversations = [_from_json(each) for each in content["conversations"]]
    return conversations[: content["involved"]], conversations[content["involved"] :]


def _as_json(conversation: Conversation) -> dict[str, Any]:
    return {
        "names": [name.decode("latin-1") for name in conversation.names],
        "sent": _script_as_json(conversation.sent),
        "targets": sorted(conversation.targets),
        "answers": {
            name.decode("latin-1"): _script_as_json(script)
            for name, script in conversation.answers.items()
        },
    }


def _script_as_json(script: Script) -> dict[str, Any]:
    pieces = [[data.decode("latin-1"), seconds] for data, seconds in script.pieces]
    return {"pieces": pieces, "ending": script.ending, "quiet": script.quiet}


def _from_json(content: dict[str, Any]) -> Conversation:
    return Conversation(
        [name.encode("latin-1") for name in content["names"]],
        _script_from_json(content["sent"]),
        set(content["targets"]),
        {
            name.encode("latin-1"): _script_from_json(script)
            for name, script in content["answers"].items()
        },
    )


def _script_from_json(content: dict[str, Any]) -> Script:
    pieces = [(data.encode("latin-1"), float(seconds)) for data, seconds in content["pieces"]]
    return Script(pieces, content["ending"], content["quiet"])
