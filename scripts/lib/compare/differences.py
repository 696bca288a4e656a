"""What differs between two observations of the same case."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from scripts.lib.compare.observe import Message, Observation

MISSING = Message("nothing", fate="missing")


@dataclass(frozen=True)
class Difference:
    """``where`` is client, target or table; ``kind`` says what differs in ``part``."""

    case: str
    where: str
    kind: str
    part: str
    chp: str
    ours: str


def compare(name: str, chp: Observation, ours: Observation) -> list[Difference]:
    """Return every difference between what was seen with CHP and with us."""
    found = _compare_lists(name, "client", chp.client, ours.client)
    if chp.connection != ours.connection:
        found.append(
            Difference(name, "client", "connection", "afterwards", chp.connection, ours.connection)
        )
    found += _compare_lists(name, "target", chp.target, ours.target)
    if chp.table != ours.table:
        found += _compare_tables(name, chp.table or {}, ours.table or {})
    return found


def _compare_lists(
    name: str, where: str, chp: list[Message], ours: list[Message]
) -> list[Difference]:
    if len(chp) != len(ours):
        texts = [" + ".join(m.start for m in messages) or "nothing" for messages in (chp, ours)]
        return [Difference(name, where, "number of messages", "", *texts)]
    found = []
    for one, other in zip(chp, ours, strict=True):
        found += _compare_messages(name, where, one, other)
    return found


def _compare_messages(name: str, where: str, chp: Message, ours: Message) -> list[Difference]:
    if MISSING.fate in (chp.fate, ours.fate):
        if chp.start == ours.start:
            return []
        return [Difference(name, where, "start line", "", chp.start, ours.start)]
    found = []

    def add(kind: str, part: str, one: object, other: object) -> None:
        if one != other:
            found.append(Difference(name, where, kind, part, str(one), str(other)))

    add("start line", "", chp.start, ours.start)
    add("fate", "", chp.fate, ours.fate)
    add("interim answers", "", chp.interim, ours.interim)
    add("trailers", "", chp.trailers, ours.trailers)
    if chp.body != ours.body:
        kind = "JSON spelling" if _same_json(chp.body, ours.body) else "body"
        add(kind, "", _shown(chp.body), _shown(ours.body))
    for kind, part, one, other in _compare_headers(chp.headers, ours.headers):
        add(kind, part, one, other)
    return found


def _compare_headers(
    chp: list[tuple[str, str]], ours: list[tuple[str, str]]
) -> list[tuple[str, str, object, object]]:
    found: list[tuple[str, str, object, object]] = []
    theirs, own = _by_name(chp), _by_name(ours)
    for key in theirs | own:
        if key not in own:
            found.append(("header missing", key, _values(theirs[key]), "absent"))
        elif key not in theirs:
            found.append(("header added", key, "absent", _values(own[key])))
        else:
            found.append(("header value", key, _values(theirs[key]), _values(own[key])))
            names = [[name for name, _ in pairs] for pairs in (theirs[key], own[key])]
            if len(names[0]) == len(names[1]):
                found.append(("header case", key, names[0], names[1]))
    common = set(theirs) & set(own)
    orders = [
        list(dict.fromkeys(name.lower() for name, _ in pairs if name.lower() in common))
        for pairs in (chp, ours)
    ]
    found.append(("header order", "", orders[0], orders[1]))
    return found


def _by_name(headers: list[tuple[str, str]]) -> dict[str, list[tuple[str, str]]]:
    grouped: dict[str, list[tuple[str, str]]] = {}
    for name, value in headers:
        grouped.setdefault(name.lower(), []).append((name, value))
    return grouped


def _values(pairs: list[tuple[str, str]]) -> list[str]:
    return [value for _, value in pairs]


def _same_json(one: str, other: str) -> bool:
    try:
        parsed: list[Any] = [json.loads(text.encode("latin-1")) for text in (one, other)]
    except ValueError:
        return False
    return bool(parsed[0] == parsed[1])


def _shown(body: str) -> str:
    return body if len(body) < 300 else f"{body[:300]}… ({len(body)} bytes)"


def _compare_tables(name: str, chp: dict[str, Any], ours: dict[str, Any]) -> list[Difference]:
    return [
        Difference(
            name,
            "table",
            "route",
            path,
            str(chp.get(path, "absent")),
            str(ours.get(path, "absent")),
        )
        for path in sorted(set(chp) | set(ours))
        if chp.get(path) != ours.get(path)
    ]
