"""The parsers, and what must hold whatever they are given.

A program: ``python -m scripts.lib.fuzz.parsers SECONDS SEED FOLDER``; coverage-guided by atheris
where that is installed. An input's first byte chooses the parser.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import random
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from scripts.lib.fuzz.corpus import named, request_corpus, response_corpus
from scripts.lib.fuzz.mutation import Mutator

HAS_ATHERIS = importlib.util.find_spec("atheris") is not None

if HAS_ATHERIS:
    import atheris

    _instrumented: Any = atheris.instrument_imports(include=["chp_gevent"])
else:
    _instrumented = contextlib.nullcontext()

with _instrumented:
    from chp_gevent.http import proxy_protocol
    from chp_gevent.http.errors import IncompleteMessage, WireError
    from chp_gevent.http.h1.bodies import BodyDecoder, ChunkedDecoder, LengthDecoder
    from chp_gevent.http.h1.heads import HEAD_END, parse_request_head
    from chp_gevent.routing.paths import request_path
    from chp_gevent.routing.route_options import route_options
    from chp_gevent.routing.target_url import check_target_url
    from tests.kit.llhttp_oracle import LIMITS, check_request, check_response

_NAME = b"c-0123456789abcdef"


def _requests(data: bytes) -> None:
    if HEAD_END in data:
        check_request(data)


def _responses(data: bytes) -> None:
    if HEAD_END in data:
        check_response(data)


def _decoded(decoder: BodyDecoder, pieces: list[bytes]) -> tuple[bytes, bool, bytes]:
    """Return a body, whether it is complete, and what is behind it; ``WireError`` ends it."""
    body = rest = b""
    for number, piece in enumerate(pieces):
        body += decoder.feed(piece)
        while decoder.backlog:
            body += decoder.feed(b"")
        if decoder.done:
            rest = bytes(decoder.rest) + b"".join(pieces[number + 1 :])
            break
    return body, decoder.done, rest


def _outcome(make: Callable[[], BodyDecoder], pieces: list[bytes]) -> object:
    try:
        return _decoded(make(), pieces)
    except WireError:
        return "refused"


def _bodies(data: bytes) -> None:
    """A body is the same however it is cut into pieces, and refused in any case or none."""
    cut, coded = data[:2], data[2:]
    half = int.from_bytes(cut, "big") % (len(coded) + 1)
    makers: list[Callable[[], BodyDecoder]] = [ChunkedDecoder, lambda: LengthDecoder(half)]
    for make in makers:
        whole = _outcome(make, [coded])
        assert _outcome(make, [coded[:half], coded[half:]]) == whole
        assert _outcome(make, [bytes([byte]) for byte in coded]) == whole


def _proxy_protocol(data: bytes) -> None:
    header = b""
    with contextlib.suppress(WireError):
        while size := proxy_protocol.missing(header):
            piece = data[len(header) : len(header) + size]
            if not piece:
                return
            header += piece
        client = proxy_protocol.parse(header)
        assert client is None or (client.address and 0 <= client.port <= 65535)


def _paths(data: bytes) -> None:
    with contextlib.suppress(WireError):
        head = parse_request_head(b"GET " + data + b" HTTP/1.1\r\nHost: a", LIMITS)
        assert request_path(head.target).startswith("/")
    with contextlib.suppress(ValueError):
        check_target_url(data.decode("latin-1"))


def _route_options(data: bytes) -> None:
    import msgspec

    with contextlib.suppress(ValueError):  # msgspec's errors are that, too
        found = msgspec.json.decode(data)
        if isinstance(found, dict):
            route_options(found)


PARSERS = [_requests, _responses, _bodies, _proxy_protocol, _paths, _route_options]


def test_one_input(data: bytes) -> None:
    """Give one input to the parser that it chooses. Raises anything for a finding."""
    if data:
        with contextlib.suppress(IncompleteMessage):
            PARSERS[data[0] % len(PARSERS)](data[1:])


test_one_input.__test__ = False  # type: ignore[attr-defined]


def inputs() -> list[bytes]:
    """Return what to begin with."""
    found = [b"\0" + named(raw, _NAME) for raw in request_corpus()]
    found += [b"\1" + named(raw, _NAME) for raw in response_corpus()]
    found += [b"\2\0\5" + b"5\r\nabcde\r\n3;x=y\r\nfgh\r\n0\r\nX: y\r\n\r\nGET /"]
    found += [b"\3PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n"]
    found += [b"\3\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x14" + bytes(12) + b"\x20\0\5\1\0\0\0\0"]
    found += [b"\4/a/%2e%2e/b%c3%a9//c?d", b"\4http://[::1]:80/x", b"\4http+unix://%2fa%2fb/c"]
    found += [b'\5{"target": "http://a:1", "strip_prefix": true, "headers": {"X": "y"}}']
    return found


def _at_random(seconds: float, seed: int, folder: Path) -> int:
    mutator = Mutator(inputs(), random.Random(seed))
    end, count = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        data = mutator.message()
        count += 1
        try:
            test_one_input(data)
        except Exception:
            traceback.print_exc()
            path = folder / f"crash-{hashlib.sha1(data).hexdigest()}"
            path.write_bytes(data)
            print(f"found: {path}", flush=True)
            return 1
    print(f"parsers: {count:,} inputs at random, nothing found", flush=True)
    return 0


def main() -> int:
    """Fuzz; with a file alone, show again what it does."""
    if len(sys.argv) == 2:
        test_one_input(Path(sys.argv[1]).read_bytes())
        print("nothing: it is as it should be")
        return 0
    seconds, seed, folder = float(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    if not HAS_ATHERIS:
        return _at_random(seconds, seed, folder)
    corpus = folder / "corpus"
    corpus.mkdir(exist_ok=True)
    for number, data in enumerate(inputs()):
        (corpus / f"{number:04}").write_bytes(data)
    flags = [f"-max_total_time={seconds:.0f}", f"-seed={seed or 1}", "-max_len=4096"]
    flags += [f"-artifact_prefix={folder}{os.sep}", "-print_final_stats=1", "-verbosity=1"]
    atheris.Setup([sys.argv[0], *flags, str(corpus)], test_one_input)
    atheris.Fuzz()  # exits
    return 0


if __name__ == "__main__":
    sys.exit(main())
