"""The target of a fuzzed server: it answers nonsense, and looks at what it is asked."""

from __future__ import annotations

import contextlib
import math
import random
import socket
import time

from chp_gevent.http.errors import WireError
from chp_gevent.http.h1.bodies import body_decoder
from chp_gevent.http.h1.heads import HEAD_END, RequestHead, parse_request_head, parse_response_head
from chp_gevent.http.limits import LimitOptions
from scripts.lib.fuzz.corpus import named, responses_to_send
from scripts.lib.fuzz.findings import NAME, Findings, Script
from scripts.lib.fuzz.mutation import Mutator
from tests.kit.llhttp_oracle import check_request, decoded
from tests.kit.peers.loopback import LoopbackServer, reset_on_close

TOKEN_FIELD = "x-written-by-the-proxy"
_NOBODY = b"c-nobody----------"
# Limits of the proxy's are for clients; what it writes is longer.
_LIMITS = LimitOptions(max_request_line=1 << 20, max_header_size=1 << 20, max_headers=10_000)


class CalmTarget(LoopbackServer):
    """Answers every request with ``probe``."""

    def serve(self, connection: socket.socket, index: int) -> None:
        """Answer the requests of a connection, none of which has a body."""
        received = b""
        while data := connection.recv(65536):
            received += data
            while HEAD_END in received:
                received = received.partition(HEAD_END)[2]
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nprobe")


def is_unasked(script: Script, method: str) -> bool:
    """Whether bytes come behind a response, and later: with it, they end its connection."""
    data = script.data
    try:
        while True:
            block, end, data = data.partition(HEAD_END)
            if not end:
                return False
            head = parse_response_head(block, method)
            if head.status >= 200 or head.status == 101:
                break
        decoder = body_decoder(head)
        if not decoder.done:
            decoded(decoder, data)
            data = bytes(decoder.rest)
    except WireError:
        return False
    return decoder.done and bool(data) and len(script.pieces) > 1


class FuzzTarget(LoopbackServer):
    """Answers as a conversation has it, or with a mutated response that it takes note of.

    ``token`` is what the proxy adds to each request, and no client knows.
    """

    def __init__(self, findings: Findings, seed: int, token: str) -> None:
        super().__init__()
        self._findings = findings
        self._seed = seed
        self._token = token
        self._corpus = responses_to_send()

    def serve(self, connection: socket.socket, index: int) -> None:
        """Answer the requests of a connection until one side has had enough."""
        chance = random.Random(f"{self._seed} {index}")
        mutator = Mutator(self._corpus, chance)
        connection.settimeout(5)
        received = b""
        with contextlib.suppress(OSError):
            while True:
                taken = self._receive_head(connection, received)
                if taken is None:
                    return
                head, block, behind = taken
                # Some targets answer before they have read all of a request.
                script = None
                if head.has_body and chance.random() < 0.2:
                    script = self._answer(connection, head, mutator, chance)
                    if script.ending != "stay":
                        return
                whole = self._receive_body(connection, head, behind)
                if whole is None:
                    return
                body, received = whole
                self.judge(head, block + body)
                if script is None:
                    script = self._answer(connection, head, mutator, chance)
                if script.ending != "stay" or head.upgrade:
                    # Behind a 101, what comes is the client's, byte for byte.
                    return
                if is_unasked(script, head.method):
                    # The next request may have its answer by now, and no other may follow that.
                    return

    def _receive_head(
        self, connection: socket.socket, received: bytes
    ) -> tuple[RequestHead, bytes, bytes] | None:
        """Return the head of a request, its bytes and what is behind it; None at the end."""
        while HEAD_END not in received:
            data = connection.recv(65536)
            if not data:
                return None
            received += data
        block, _, behind = received.partition(HEAD_END)
        try:
            return parse_request_head(block, _LIMITS), block + HEAD_END, behind
        except WireError as error:
            self._not_a_request(error, received)
            return None

    def _receive_body(
        self, connection: socket.socket, head: RequestHead, received: bytes
    ) -> tuple[bytes, bytes] | None:
        """Return a body as it was sent, and what is behind it; None if it breaks off."""
        decoder = body_decoder(head)
        if decoder.done:
            return b"", received
        body, piece = b"", received
        try:
            while True:
                decoded(decoder, piece)
                body += piece
                if decoder.done:
                    rest = bytes(decoder.rest)
                    return body[: len(body) - len(rest)], rest
                piece = connection.recv(65536)
                if not piece:
                    return None
        except WireError as error:
            self._not_a_request(error, body + piece)
            return None

    def _not_a_request(self, error: WireError, received: bytes) -> None:
        self._findings.add(
            f"the proxy wrote what is no request ({error}): {received[:2000]!r}",
            NAME.findall(received),
        )

    def judge(self, head: RequestHead, message: bytes) -> None:
        """Look whether a request is one of the proxy's, and of a client's, and llhttp's too."""
        self._findings.count("requests at the target")
        name = _name(head)
        tokens = [each.value for each in head.fields if each.lower == TOKEN_FIELD]
        if tokens != [self._token]:
            self._findings.add(
                f"a request that the proxy has not written: {message[:2000]!r}", [name]
            )
        conversation = self._findings.conversation(name)
        if conversation is not None and head.target not in conversation.targets:
            self._findings.add(
                f"a request that its client has not sent: {message[:2000]!r}, "
                f"sent {conversation.sent.data[:2000]!r}",
                [name],
            )
        try:
            check_request(message)
        except AssertionError as error:
            self._findings.add(f"llhttp reads it otherwise ({error}): {message[:2000]!r}", [name])

    def _answer(
        self,
        connection: socket.socket,
        head: RequestHead,
        mutator: Mutator,
        chance: random.Random,
    ) -> Script:
        """Answer a request; return what was sent."""
        name = _name(head)
        script = self._script(name, mutator, chance)
        unasked = is_unasked(script, head.method)
        if unasked:
            self._findings.excuse_until(name, math.inf)
        for data, seconds in script.pieces:
            connection.sendall(data)
            delivered = time.monotonic()
            time.sleep(seconds)
        if unasked:
            # On the loopback interface, what has been sent is in the proxy's buffer.
            self._findings.excuse_until(name, delivered)
        if script.ending == "reset":
            reset_on_close(connection)
        return script

    def _script(self, name: bytes, mutator: Mutator, chance: random.Random) -> Script:
        """Return what to answer: what a request was answered before, or something new."""
        pieces = [(piece, _pause(chance, 0.1)) for piece in mutator.pieces(_new(mutator, name))]
        if chance.random() < 0.2:
            # An answer that nobody asked for, when the other one may have been taken to its end.
            pieces += [(b"", chance.random() / 50), (_new(mutator, name), _pause(chance, 0.5))]
        script = Script(pieces, chance.choice(("reset", "end", "end", *["stay"] * 7)))
        conversation = self._findings.conversation(name)
        if conversation is None:
            return script
        return conversation.answers.setdefault(name, script)


def _new(mutator: Mutator, name: bytes) -> bytes:
    return named(mutator.message(), name)


def _pause(chance: random.Random, probability: float) -> float:
    """Return up to 20 ms, or mostly none."""
    return chance.random() / 50 if chance.random() < probability else 0.0


def _name(head: RequestHead) -> bytes:
    found = NAME.search(head.target.encode("latin-1"))
    return found[0] if found else _NOBODY
