"""What scripts/fuzz looks for is found."""

from __future__ import annotations

import os
import random
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from chp_gevent.http.h1.bodies import ChunkedDecoder
from chp_gevent.http.h1.heads import PartialHead, parse_request_head
from chp_gevent.http.limits import LimitOptions
from scripts.lib.fuzz import clients, coverage_guide, live, parsers
from scripts.lib.fuzz.clients import MutatingClient, Prober, targets
from scripts.lib.fuzz.corpus import request_corpus
from scripts.lib.fuzz.coverage_guide import NoGuideError, python_path
from scripts.lib.fuzz.findings import NAME, Conversation, Findings, Script, read
from scripts.lib.fuzz.grammar import Grammar
from scripts.lib.fuzz.mutation import Mutator
from scripts.lib.fuzz.target import CalmTarget, FuzzTarget, is_unasked
from tests.kit.llhttp_oracle import check_request
from tests.kit.peers.loopback import LoopbackServer

ONE, TWO, OTHER = (b"c-%016x" % number for number in (1, 2, 3))


class Mixer(LoopbackServer):
    """Answers each connection with what came on the one before."""

    def __init__(self) -> None:
        super().__init__()
        self.before = b""

    def serve(self, connection: socket.socket, index: int) -> None:
        received = connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n" + self.before)
        self.before = received


class Reverser(LoopbackServer):
    """Answers the requests of a connection in the wrong order."""

    def serve(self, connection: socket.socket, index: int) -> None:
        connection.sendall(b"".join(reversed(NAME.findall(connection.recv(65536)))))


class Echo(LoopbackServer):
    """Answers each connection with what came on it."""

    def serve(self, connection: socket.socket, index: int) -> None:
        connection.sendall(connection.recv(65536))


class Leaver(LoopbackServer):
    """Takes connections, and closes them."""

    def serve(self, connection: socket.socket, index: int) -> None:
        connection.recv(65536)


class Silent(LoopbackServer):
    """Takes connections, and says nothing."""

    def serve(self, connection: socket.socket, index: int) -> None:
        while connection.recv(65536):
            pass


def sent(*names: bytes, known: tuple[str, ...] = ()) -> Conversation:
    data = b"".join(b"GET /%s HTTP/1.1\r\nHost: a\r\n\r\n" % name for name in names)
    return Conversation(list(names), Script([(data, 0.0)]), set(known) or targets(data))


def connect(server: LoopbackServer, times: int) -> Findings:
    findings = Findings()
    with server:
        client = MutatingClient((server.host, server.port), findings, "1", threading.Event())
        for _ in range(times):
            client.connect_once()
    assert findings.counts["connections of clients"] == times
    return findings


def test_a_client_that_gets_what_belongs_to_another_is_a_finding() -> None:
    found = connect(Mixer(), 20).found
    assert found
    assert "what belongs to another" in found[0]


def test_a_client_that_gets_its_own_is_none() -> None:
    assert connect(Echo(), 20).found == []


def test_answers_in_another_order_are_a_finding() -> None:
    findings = Findings()
    with Reverser() as server:
        clients.converse((server.host, server.port), sent(ONE, TWO), findings)
    assert len(findings.found) == 1
    assert "another order" in findings.found[0]


@pytest.mark.parametrize("server", [Silent, Leaver, Echo])
def test_a_server_that_does_not_answer_others_is_a_finding(
    monkeypatch: pytest.MonkeyPatch, server: type[LoopbackServer]
) -> None:
    monkeypatch.setattr(clients, "PATIENCE", 0.1)
    findings = Findings()
    with server() as running:
        Prober((running.host, running.port), findings, threading.Event()).probe()
    assert len(findings.found) == 1
    assert "a probe after 0." in findings.found[0]


def test_a_server_that_answers_others_is_none() -> None:
    findings = Findings()
    with CalmTarget() as server:
        Prober((server.host, server.port), findings, threading.Event()).probe()
    assert findings.found == []


@pytest.mark.parametrize(("began", "count"), [(1.0, 0), (3.0, 1)])
def test_an_answer_that_was_not_there_when_its_request_was_sent_is_excused(
    began: float, count: int
) -> None:
    """What a target sends unasked is an answer to the next request, if that has been sent."""
    findings = Findings()
    findings.remember(sent(ONE, OTHER))
    findings.excuse_until(OTHER, 2.0)
    conversation = sent(TWO)
    conversation.began = began
    findings.judge_received(conversation, OTHER)
    assert len(findings.found) == count
    findings.judge_received(conversation, ONE)
    assert len(findings.found) == count + 1


@pytest.mark.parametrize(
    ("pieces", "method", "unasked"),
    [
        ([b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", b"ok"], "GET", False),
        ([b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", b"ok"], "HEAD", True),
        ([b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", b"more"], "GET", True),
        ([b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokmore"], "GET", False),
        ([b"HTTP/1.1 103 X\r\n\r\n", b"HTTP/1.1 204 X\r\n\r\n", b"more"], "GET", True),
        ([b"HTTP/1.1 103 X\r\n\r\n", b"HTTP/1.1 204 X\r\n\r\n"], "GET", False),
        ([b"HTTP/1.1 200 OK\r\n\r\nok", b"more"], "GET", False),
        ([b"no response\r\n\r\n", b"more"], "GET", False),
    ],
)
def test_what_nobody_asks_for_is_known(pieces: list[bytes], method: str, unasked: bool) -> None:
    assert is_unasked(Script([(piece, 0.0) for piece in pieces]), method) == unasked


def judged(message: bytes, *conversations: Conversation) -> list[str]:
    findings = Findings()
    for conversation in conversations:
        findings.remember(conversation)
    head = parse_request_head(message[:-4], LimitOptions())
    FuzzTarget(findings, 0, "token").judge(head, message)
    return findings.found


@pytest.mark.parametrize(
    ("fields", "finding"),
    [
        ("X-Written-By-The-Proxy: token\r\n", ""),
        ("", "has not written"),
        ("X-Written-By-The-Proxy: other\r\n", "has not written"),
        ("X-Written-By-The-Proxy: token\r\n" * 2, "has not written"),
    ],
)
def test_a_request_that_the_proxy_has_not_written_is_a_finding(fields: str, finding: str) -> None:
    found = judged(f"GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n".encode())
    assert len(found) == (1 if finding else 0)
    assert all(finding in text for text in found)


@pytest.mark.parametrize(("target", "count"), [(b"/%s", 0), (b"/inside-%s", 1)])
def test_a_request_that_its_client_has_not_sent_is_a_finding(target: bytes, count: int) -> None:
    head = b"GET " + target % ONE + b" HTTP/1.1\r\nHost: a\r\nX-Written-By-The-Proxy: token\r\n\r\n"
    found = judged(head, sent(ONE))
    assert len(found) == count
    assert all("its client has not sent" in text for text in found)


def test_what_is_in_a_body_is_no_request_of_a_client() -> None:
    inside = b"GET /inside HTTP/1.1\r\nHost: a\r\n\r\n"
    head = b"POST http://a/b?c HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n"
    behind = b"GET /behind HTTP/1.1\r\nHost: a\r\n\r\n"
    assert targets(head % len(inside) + inside + behind) == {"/b?c", "/behind"}
    assert targets(head % 0 + inside + b"no request") == {"/b?c", "/inside"}


@pytest.mark.parametrize(
    ("workers", "rss", "descriptors", "finding"),
    [
        (1, 0, 0, ""),
        (2, 0, 0, "workers "),
        (1, live.MOST_GROWTH + 1, 0, "has grown by 60 MiB"),
        (1, 0, live.MOST_DESCRIPTORS + 1, "33 descriptors more"),
    ],
)
def test_workers_that_die_or_grow_are_a_finding(
    monkeypatch: pytest.MonkeyPatch, workers: int, rss: int, descriptors: int, finding: str
) -> None:
    own = os.getpid()
    before = {own: live.Usage(1 << 20, 10)}
    now = {own: live.Usage((1 << 20) + rss, 10 + descriptors)}
    monkeypatch.setattr(live, "_usage", lambda _: now)
    findings = Findings()
    pids = {own} if workers == 1 else {own + 1}
    live.judge_processes(pids, before, before, findings, settling=0.0)
    assert len(findings.found) == (1 if finding else 0)
    assert all(finding in text for text in findings.found)


def test_a_log_that_complains_is_a_finding() -> None:
    findings = Findings()
    live.judge_log("a line\nError in the event loop: KeyError\nanother", findings)
    assert findings.found == ["log: Error in the event loop: KeyError"]


def test_a_thread_of_the_fuzzer_that_fails_is_a_finding() -> None:
    findings = Findings()
    with live._watched_threads(findings):
        thread = threading.Thread(target=int, args=("none",))
        thread.start()
        thread.join()
    assert len(findings.found) == 1
    assert "a thread of the fuzzer failed: ValueError(" in findings.found[0]


def test_what_was_found_can_be_done_again(tmp_path: Path) -> None:
    about = Conversation(
        [ONE, TWO],
        Script([(b"GET \xff", 0.0), (b"/", 0.25)], "end", 3.0),
        {"/a"},
        {ONE: Script([(b"HTTP/1.1 200 OK\r\n\r\n", 0.0)], "reset")},
    )
    other = sent(OTHER)
    findings = Findings()
    for conversation in (about, other):
        findings.remember(conversation)
    findings.add("something", [TWO])
    findings.write(tmp_path / "live.json")
    assert read(tmp_path / "live.json") == ([about], [other])


def test_a_finding_is_found_again_in_a_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client's conversation says that the request in its target is none of its own."""
    conversation = sent(ONE, known=("/other",))
    findings = Findings()
    findings.remember(conversation)
    findings.add("something", [ONE])
    findings.write(tmp_path / "before.json")
    found = live.replay(tmp_path / "before.json", tmp_path).found
    assert found
    assert all("its client has not sent" in text for text in found)
    assert read(tmp_path / "live.json")[0][0].names == [ONE]


# -- the parsers


def test_what_the_parsers_begin_with_is_as_it_should_be() -> None:
    inputs = parsers.inputs()
    assert {data[0] for data in inputs} == set(range(len(parsers.PARSERS)))
    for data in inputs:
        parsers.test_one_input(data)


class Forgetful(ChunkedDecoder):
    """Takes a piece that ends in a size line for the end of the body."""

    def feed(self, data: bytes) -> bytes:
        if data.endswith(b"5\r"):
            return b"?"
        return super().feed(data)


def test_a_body_that_depends_on_how_it_is_cut_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parsers, "ChunkedDecoder", Forgetful)
    with pytest.raises(AssertionError):
        parsers.test_one_input(b"\2\0\2" + b"5\r\nabcde\r\n0\r\n\r\n")


class Hasty(PartialHead):
    """Refuses a head because of what has not arrived."""

    def error(self, limits: LimitOptions) -> Any:
        return ValueError() if self.received.endswith(b"\r") else super().error(limits)


def test_a_head_that_depends_on_how_it_is_cut_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parsers, "PartialHead", Hasty)
    with pytest.raises(AssertionError):
        parsers.test_one_input(b"\0GET / HTTP/1.1\r\nHost: a\r\n\r\n")


def test_a_head_that_llhttp_reads_otherwise_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("tests.kit.llhttp_oracle", "scripts.lib.fuzz.parsers"):
        monkeypatch.setattr(f"{module}.HEAD_END", b"\n\n")
    with pytest.raises(AssertionError):
        parsers.test_one_input(b"\0GET / HTTP/1.1\r\nHost: a\n\n")


@pytest.mark.parametrize("message", [b"\0GET / HTTP/1.1\r\nHost: a", b"\1HTTP/1.1 200 OK\r\nX: y"])
def test_a_head_that_is_written_otherwise_is_a_finding(
    monkeypatch: pytest.MonkeyPatch, message: bytes
) -> None:
    def wrong(first_line: str, headers: list[tuple[str, str]]) -> bytes:
        lines = [first_line, *(f"{name}: {value}." for name, value in headers)]
        return "\r\n".join([*lines, "", ""]).encode()

    monkeypatch.setattr(parsers, "serialise_head", wrong)
    with pytest.raises(AssertionError):
        parsers.test_one_input(message + b"\r\n\r\n")


def test_a_body_that_is_written_otherwise_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        parsers, "chunk", lambda data: (b"%d\r\n" % len(data), data + b".", b"\r\n")
    )
    with pytest.raises(AssertionError):
        parsers.test_one_input(
            b"\0POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"5\r\nabcde\r\n0\r\n\r\n"
        )


def test_the_bodies_of_many_chunks_are_read_to_their_end() -> None:
    head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert check_request(head + b"1\r\na\r\n" * 1000 + b"0\r\n\r\n") == "accepted"


def test_inputs_at_random_find_as_well(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(data: bytes) -> None:
        raise KeyError(data)

    monkeypatch.setattr(parsers, "PARSERS", [broken])
    monkeypatch.setattr(parsers, "HAS_ATHERIS", False)
    monkeypatch.setattr("sys.argv", ["parsers", "60", "1", str(tmp_path)])
    assert parsers.main() == 1
    assert "inputs at random: 1\n" in capsys.readouterr().out
    assert len(list(tmp_path.glob("crash-*"))) == 1


def test_without_atheris_one_line_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    with pytest.raises(NoGuideError, match="No matching distribution found for atheris"):
        python_path(tmp_path / "cache")
    assert list(tmp_path.iterdir()) == []


def test_an_atheris_that_was_installed_before_is_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    monkeypatch.setattr(coverage_guide, "_install", lambda _: pytest.fail("installs again"))
    (tmp_path / "atheris").mkdir()
    assert python_path(tmp_path) == [str(tmp_path)]


# -- messages


def test_the_same_seed_makes_the_same_messages() -> None:
    made = []
    for seed in (1, 1, 2):
        chance = random.Random(seed)
        mutator = Mutator(request_corpus(), chance, Grammar(chance).request)
        made.append([mutator.message() for _ in range(10)])
    assert made[0] == made[1] != made[2]
    mutator = Mutator(request_corpus(), random.Random(3))
    for _ in range(200):
        message = mutator.message()
        assert b"".join(mutator.pieces(message)) == message


def test_the_grammar_makes_what_is_accepted_and_what_is_refused() -> None:
    grammar = Grammar(random.Random(0))
    verdicts = {check_request(grammar.request().replace(b"%s", ONE)) for _ in range(300)}
    assert {"accepted", "refused"} <= verdicts
