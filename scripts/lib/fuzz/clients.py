"""The clients of a fuzzed server: some that send nonsense, and one that wants to be served."""

from __future__ import annotations

import contextlib
import random
import select
import socket
import threading
import time

from chp_gevent.http.errors import WireError
from chp_gevent.http.h1.bodies import body_decoder
from chp_gevent.http.h1.heads import HEAD_END, take_request_head
from chp_gevent.http.limits import LimitOptions
from chp_gevent.proxy.upstream.target import origin_form
from scripts.lib.fuzz.corpus import named, requests_to_send
from scripts.lib.fuzz.findings import Conversation, Findings, Script
from scripts.lib.fuzz.grammar import Grammar
from scripts.lib.fuzz.mutation import Mutator
from tests.kit.llhttp_oracle import decoded
from tests.kit.peers import Incomplete, RawClient
from tests.kit.peers.loopback import reset_on_close

PATIENCE = 2.0
"""Seconds that a request of somebody else may take."""

_LIMITS = LimitOptions()
_ENDINGS = ("reset", *["end"] * 5, *["stay"] * 4)


def targets(data: bytes) -> set[str]:
    """Return the targets of the requests that a connection's bytes are, in origin-form.

    Behind what is refused there is none. Behind an upgrade there are some if it is not granted.
    """
    found: set[str] = set()
    with contextlib.suppress(WireError):
        while taken := take_request_head(data, _LIMITS):
            head, data = taken
            found.add(origin_form(head.target, head.method))
            decoder = body_decoder(head)
            if not decoder.done:
                decoded(decoder, data)
                if not decoder.done:
                    break
                data = bytes(decoder.rest)
    return found


def converse(address: tuple[str, int], conversation: Conversation, findings: Findings) -> None:
    """Send what a client has to send, and look whose answers come."""
    conversation.began = time.monotonic()
    findings.remember(conversation)
    findings.count("connections of clients")
    script = conversation.sent
    with contextlib.suppress(OSError), socket.create_connection(address, 3) as sock:
        for data, seconds in script.pieces:
            sock.sendall(data)
            time.sleep(seconds)
        if script.ending == "reset":
            reset_on_close(sock)
            return
        if script.ending == "end":
            sock.shutdown(socket.SHUT_WR)
        findings.judge_received(conversation, _received(sock, script.quiet))


def _received(sock: socket.socket, quiet: float) -> bytes:
    """Return what comes until the end, or until nothing comes for so many seconds."""
    received = b""
    with contextlib.suppress(OSError):
        while select.select([sock], [], [], quiet)[0]:
            data = sock.recv(65536)
            received += data
            if not data or len(received) > 1 << 20:
                break
    return received


class MutatingClient(threading.Thread):
    """Sends mutated requests, on one connection after another."""

    def __init__(
        self, address: tuple[str, int], findings: Findings, seed: str, stop: threading.Event
    ) -> None:
        super().__init__(daemon=True)
        self._address = address
        self._findings = findings
        self._chance = random.Random(seed)
        make = Grammar(self._chance).request
        self._mutator = Mutator(requests_to_send(), self._chance, make)
        self._stop_event = stop

    def run(self) -> None:
        """Go on until told to stop."""
        while not self._stop_event.is_set():
            self.connect_once()

    def connect_once(self) -> None:
        """Send up to four requests on a connection, and look whose answers come."""
        converse(self._address, self.conversation(), self._findings)

    def conversation(self) -> Conversation:
        """Return something new to send."""
        chance = self._chance
        names = [b"c-%016x" % chance.getrandbits(64) for _ in range(chance.choice((1, 1, 1, 2, 4)))]
        messages = [named(self._mutator.message(), name) for name in names]
        pieces = [
            (piece, chance.random() / 20 if chance.random() < 0.05 else 0.0)
            for piece in self._mutator.pieces(b"".join(messages))
        ]
        if chance.random() < 0.1:
            # The body, or what else is behind a head, when that may have been answered.
            head, end, behind = messages[-1].partition(HEAD_END)
            first = b"".join(messages[:-1]) + head + end
            pieces = [(first, chance.random() / 20), (behind, 0.0)]
        quiet = 3.0 if chance.random() < 0.1 else 0.3
        return Conversation(
            names, Script(pieces, chance.choice(_ENDINGS), quiet), targets(b"".join(messages))
        )


class Prober(threading.Thread):
    """Somebody else, whose requests have to be answered meanwhile."""

    def __init__(self, address: tuple[str, int], findings: Findings, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self._address = address
        self._findings = findings
        self._stop_event = stop

    def run(self) -> None:
        """Ask five times a second."""
        while not self._stop_event.wait(0.2):
            self.probe()

    def probe(self) -> None:
        """Ask once, on a new connection."""
        began = time.monotonic()
        try:
            with RawClient(self._address, timeout=PATIENCE) as client:
                answer = client.request("GET /probe HTTP/1.1\r\nHost: probe\r\n\r\n")
            good = (answer.status, answer.body) == (200, b"probe")
            outcome = f"{answer.status} {answer.body[:100]!r}"
        except (OSError, ValueError, AssertionError, Incomplete) as error:
            good, outcome = False, f"{type(error).__name__}: {error}"
        self._findings.count("probes")
        seconds = time.monotonic() - began
        if not good or seconds > PATIENCE:
            self._findings.add(f"a probe after {seconds:.1f} s: {outcome}")
