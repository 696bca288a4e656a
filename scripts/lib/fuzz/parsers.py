"""The parsers, and what must hold whatever they are given.

A program: ``python -m scripts.lib.fuzz.parsers SECONDS SEED FOLDER``; coverage-guided by atheris
where that is installed. An input's first byte chooses the parser.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import ipaddress
import os
import random
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from scripts.lib.fuzz.corpus import named, request_corpus, response_corpus
from scripts.lib.fuzz.grammar import Grammar
from scripts.lib.fuzz.mutation import Mutator

HAS_ATHERIS = importlib.util.find_spec("atheris") is not None

if HAS_ATHERIS:
    import atheris

    _instrumented: Any = atheris.instrument_imports(include=["chp_gevent"])
else:
    _instrumented = contextlib.nullcontext()

with _instrumented:
    from chp_gevent.http import proxy_protocol
    from chp_gevent.http.errors import WireError
    from chp_gevent.http.h1.bodies import (
        BodyDecoder,
        ChunkedDecoder,
        LengthDecoder,
        body_decoder,
        chunk,
        last_chunk,
    )
    from chp_gevent.http.h1.fields import (
        REQUEST_SECTIONS,
        Field,
        ResponseFields,
        parse_section,
        serialise_fields,
    )
    from chp_gevent.http.h1.heads import (
        HEAD_END,
        PartialHead,
        RequestHead,
        ResponseHead,
        parse_request_head,
        parse_response_head,
        serialise_head,
        take_request_head,
    )
    from chp_gevent.http.limits import LimitOptions
    from chp_gevent.proxy.upstream.target import (
        joined_path,
        origin_form,
        parse_target,
        without_prefix,
    )
    from chp_gevent.routing.paths import is_utf8, request_path, route_path
    from chp_gevent.routing.route_options import RouteOptions, route_options
    from tests.kit.llhttp_oracle import LIMITS, check_request, check_response, decoded, pairs

_NAME = b"c-0123456789abcdef"
# So that short inputs reach them.
_NARROW = LimitOptions(max_request_line=48, max_header_size=160, max_headers=8)


def _requests(data: bytes) -> None:
    _check_beginnings(data)
    if HEAD_END not in data:
        return
    verdict = check_request(data)
    if verdict == "accepted":
        block, _, behind = data.partition(HEAD_END)
        head = parse_request_head(block, LIMITS)
        line = f"{head.method} {head.target} {_version(head)}"
        written = _check_round_trip(
            line, head, behind, lambda again: parse_request_head(again, LIMITS)
        )
        assert written is None or check_request(written) == "accepted"


def _responses(data: bytes) -> None:
    if HEAD_END not in data:
        return
    verdict = check_response(data)
    if verdict.startswith("accepted"):
        block, _, behind = data.partition(HEAD_END)
        head = parse_response_head(block, "GET")
        fields = ResponseFields(pairs(head.fields))
        bodiless = head.status in (204, 304)
        assert bodiless or fields.content_length == head.content_length
        written = _check_round_trip(
            f"{_version(head)} {head.status} {head.reason}",
            head,
            behind,
            lambda again: parse_response_head(again, "GET"),
        )
        assert written is None or check_response(written) == verdict


def _check_beginnings(data: bytes) -> None:
    """A request that is taken as a whole has no beginning that would be refused."""
    try:
        taken = take_request_head(data, _NARROW)
    except WireError:
        return
    if taken is None:
        return
    size = len(data) - len(taken[1])
    head = PartialHead(b"")
    for byte in data[: size - 1]:
        head.add(bytes([byte]))
        assert not head.complete or head.received == HEAD_END
        assert head.error(_NARROW) is None
    head.add(data[size - 1 : size])
    assert head.complete


def _version(head: RequestHead | ResponseHead) -> str:
    return "HTTP/1.0" if head.http_1_0 else "HTTP/1.1"


def _check_round_trip(
    first_line: str,
    head: RequestHead | ResponseHead,
    behind: bytes,
    parse: Callable[[bytes], RequestHead | ResponseHead],
) -> bytes | None:
    """What was read, when written, is read in the same way; return it, None if incomplete."""
    decoder = body_decoder(head)
    body = decoded(decoder, behind)
    written_head = serialise_head(first_line, pairs(head.fields))
    again = parse(written_head.removesuffix(HEAD_END))
    assert written_head.endswith(HEAD_END)
    assert _meaning(again) == _meaning(head)
    if not decoder.done:
        return None
    written = body
    if head.chunked:
        pieces = [body[at : at + 7] for at in range(0, len(body), 7)]
        written = b"".join(part for piece in pieces for part in chunk(piece))
        written += last_chunk(pairs(decoder.trailers))
    assert _outcome(lambda: body_decoder(again), [written]) == (body, True, b"", decoder.trailers)
    return written_head + written


def _meaning(head: RequestHead | ResponseHead) -> tuple[object, ...]:
    """All that a head says."""
    first: tuple[object, ...]
    if isinstance(head, RequestHead):
        first = (head.method, head.target, head.has_body, head.upgrade)
    else:
        first = (head.status, head.reason)
    framing = (head.content_length, head.chunked, head.keep_alive)
    return (*first, head.http_1_0, pairs(head.fields), head.connection_options, *framing)


Outcome = tuple[bytes, bool, bytes, list[Field]]


def _decoded(decoder: BodyDecoder, pieces: list[bytes]) -> Outcome:
    """Return a body, whether it is complete, what is behind it, and its trailers."""
    body = rest = b""
    for number, piece in enumerate(pieces):
        body += decoded(decoder, piece)
        if decoder.done:
            rest = bytes(decoder.rest) + b"".join(pieces[number + 1 :])
            break
    return body, decoder.done, rest, decoder.trailers


def _outcome(make: Callable[[], BodyDecoder], pieces: list[bytes]) -> Outcome | str:
    try:
        return _decoded(make(), pieces)
    except WireError:
        return "refused"


def _bodies(data: bytes) -> None:
    """A body is the same however it is cut into pieces, and refused in any case or none."""
    cut, coded = data[:2], data[2:]
    half = int.from_bytes(cut, "big") % (len(coded) + 1)
    cuts = random.Random(cut)
    ends = sorted(cuts.randint(0, len(coded)) for _ in range(cuts.randrange(8)))
    some = [coded[a:b] for a, b in zip([0, *ends], [*ends, len(coded)], strict=True)]
    makers: list[Callable[[], BodyDecoder]] = [ChunkedDecoder, lambda: LengthDecoder(half)]
    for make in makers:
        whole = _outcome(make, [coded])
        assert _outcome(make, [coded[:half], coded[half:]]) == whole
        assert _outcome(make, some) == whole
        assert _outcome(make, [bytes([byte]) for byte in coded]) == whole


def _proxy_protocol(data: bytes) -> None:
    """A header is the same however it arrives, and what it tells is an address and a port."""
    whole = _client(data, 1 << 16)
    assert _client(data, 1) == whole
    if isinstance(whole, proxy_protocol.Client):
        ipaddress.ip_address(whole.address)
        assert 0 <= whole.port <= 65535


def _client(data: bytes, most: int) -> proxy_protocol.Client | str | None:
    """Return what a header tells that is read in pieces of so many bytes at the most."""
    header = b""
    try:
        while size := proxy_protocol.missing(header):
            piece = data[len(header) : len(header) + min(size, most)]
            if not piece:
                return "incomplete"
            header += piece
        return proxy_protocol.parse(header)
    except WireError:
        return "refused"


def _paths(data: bytes) -> None:
    """Whatever target a request has, its path is one, and what is forwarded is a target, too."""
    with contextlib.suppress(WireError):
        head = parse_request_head(b"GET " + data + b" HTTP/1.1\r\nHost: a", LIMITS)
        path = request_path(head.target)
        assert path.startswith("/")
        asked = origin_form(head.target, head.method)
        prefix = route_path(path.partition("/")[2].partition("/")[0])
        if is_utf8(prefix):
            asked = without_prefix(asked, prefix)
        _check_target(asked)
    url = data.decode("latin-1")
    try:
        target = parse_target(url)
    except ValueError:
        return
    assert target.host
    assert 0 < target.port < 65536
    parse_request_head(f"GET / HTTP/1.1\r\nHost: {target.origin}".encode("latin-1"), LIMITS)
    _check_target(joined_path(target.path, "/a?b"))


def _check_target(asked: str) -> None:
    """Fail if a target that we would write is none that we would read; slashes begin it."""
    assert asked == "*" or asked.startswith("/")
    method = "OPTIONS" if asked == "*" else "GET"
    limits = LimitOptions(max_request_line=1 << 20)
    head = parse_request_head(f"{method} {asked} HTTP/1.1\r\nHost: a".encode("latin-1"), limits)
    assert head.target == asked


def _route_options(data: bytes) -> None:
    """Options that are taken can be written: to the journal, and as header lines."""
    try:
        found = msgspec.json.decode(data)
        options = route_options(found) if isinstance(found, dict) else None
    except ValueError:  # msgspec's errors are that, too
        return
    if options is None:
        return
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(options), type=RouteOptions) == options
    lines = b"Host: a\r\n" + serialise_fields(
        pair for pair in options.headers if pair[0].lower() != "host"
    )
    section = parse_section(lines.removesuffix(b"\r\n"), False, REQUEST_SECTIONS)
    assert section.content_length is None
    assert not section.chunked


PARSERS = [_requests, _responses, _bodies, _proxy_protocol, _paths, _route_options]


def test_one_input(data: bytes) -> None:
    """Give one input to the parser that it chooses. Raises anything for a finding."""
    if data:
        PARSERS[data[0] % len(PARSERS)](data[1:])


test_one_input.__test__ = False  # type: ignore[attr-defined]


def inputs() -> list[bytes]:
    """Return what to begin with."""
    found = [b"\0" + named(raw, _NAME) for raw in request_corpus()]
    grammar = Grammar(random.Random(0))
    found += [b"\0" + named(grammar.request(), _NAME) for _ in range(200)]
    found += [b"\1" + named(raw, _NAME) for raw in response_corpus()]
    found += [b"\2\0\5" + b"5\r\nabcde\r\n3;x=y\r\nfgh\r\n0\r\nX: y\r\n\r\nGET /"]
    found += [b"\3PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n"]
    found += [b"\3\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x14" + bytes(12) + b"\x20\0\5\1\0\0\0\0"]
    found += [b"\4/a/%2e%2e/b%c3%a9//c?d", b"\4http://[::1]:80/x", b"\4http+unix://%2fa%2fb/c"]
    found += [b'\5{"target": "http://a:1", "strip_prefix": true, "headers": {"X": "y"}}']
    return found


def _at_random(seconds: float, seed: int, folder: Path) -> int:
    chance = random.Random(seed)
    mutator = Mutator(inputs(), chance, lambda: b"\0" + named(Grammar(chance).request(), _NAME))
    end, count, status = time.monotonic() + seconds, 0, 0
    while time.monotonic() < end and not status:
        data = mutator.message()
        count += 1
        try:
            test_one_input(data)
        except Exception:
            traceback.print_exc()
            (folder / f"crash-{hashlib.sha1(data).hexdigest()}").write_bytes(data)
            status = 1
    print(f"inputs at random: {count}", flush=True)
    return status


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
    flags = [f"-max_total_time={seconds:.0f}", f"-seed={seed or 1}", "-max_len=4096", "-timeout=20"]
    flags += [f"-artifact_prefix={folder}{os.sep}", "-print_final_stats=1", "-verbosity=1"]
    atheris.Setup([sys.argv[0], *flags, str(corpus)], test_one_input)
    atheris.Fuzz()  # exits
    return 0


if __name__ == "__main__":
    sys.exit(main())
