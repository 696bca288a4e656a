"""What scripts/fuzz looks for is found."""

from __future__ import annotations

import random
import socket
import threading

import pytest

from chp_gevent.http.h1.bodies import ChunkedDecoder
from chp_gevent.http.h1.heads import parse_request_head
from chp_gevent.http.limits import LimitOptions
from scripts.lib.fuzz import parsers
from scripts.lib.fuzz.corpus import request_corpus
from scripts.lib.fuzz.live import Findings, MutatingClient, MutatingTarget
from scripts.lib.fuzz.mutation import Mutator
from tests.kit.peers.loopback import LoopbackServer


class Mixer(LoopbackServer):
    """Answers each connection with what came on the one before."""

    def __init__(self) -> None:
        super().__init__()
        self.before = b""

    def serve(self, connection: socket.socket, index: int) -> None:
        received = connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n" + self.before)
        self.before = received


class Echo(LoopbackServer):
    """Answers each connection with what came on it."""

    def serve(self, connection: socket.socket, index: int) -> None:
        connection.sendall(connection.recv(65536))


def connect(server: LoopbackServer, times: int) -> list[str]:
    findings = Findings()
    with server:
        client = MutatingClient((server.host, server.port), findings, "1", threading.Event())
        for _ in range(times):
            client.connect_once()
    assert findings.counts["connections of clients"] == times
    return findings.found


def test_a_client_that_gets_what_belongs_to_another_is_a_finding() -> None:
    found = connect(Mixer(), 20)
    assert found
    assert "what belongs to another" in found[0]


def test_a_client_that_gets_its_own_is_none() -> None:
    assert connect(Echo(), 20) == []


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
    findings = Findings()
    message = f"GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n".encode()
    head = parse_request_head(message[:-4], LimitOptions())
    MutatingTarget(findings, 0, "token").judge(head, message)
    assert len(findings.found) == (1 if finding else 0)
    assert all(finding in text for text in findings.found)


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


def test_a_head_that_llhttp_reads_otherwise_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("tests.kit.llhttp_oracle", "scripts.lib.fuzz.parsers"):
        monkeypatch.setattr(f"{module}.HEAD_END", b"\n\n")
    with pytest.raises(AssertionError):
        parsers.test_one_input(b"\0GET / HTTP/1.1\r\nHost: a\n\n")


def test_the_same_seed_makes_the_same_messages() -> None:
    made = [
        [Mutator(request_corpus(), random.Random(seed)).message() for _ in range(3)]
        for seed in (1, 1, 2)
    ]
    assert made[0] == made[1] != made[2]
    mutator = Mutator(request_corpus(), random.Random(3))
    for _ in range(200):
        message = mutator.message()
        assert b"".join(mutator.pieces(message)) == message
