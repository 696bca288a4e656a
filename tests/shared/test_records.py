"""Records of the journal: whatever is encoded comes out again, at any cut."""

from __future__ import annotations

import contextlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chp_gevent.routing.route_options import RouteOptions
from chp_gevent.shared import records as messages
from chp_gevent.shared.records import Add, AddWithRawData, Remove

# A machine that is busy with something else must not fail a test.

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
FLAGS = st.none() | st.booleans()
OPTIONS = st.builds(
    RouteOptions,
    strip_prefix=FLAGS,
    change_origin=FLAGS,
    timeout=st.none() | st.floats(0, 86_400),
    headers=st.lists(st.tuples(TEXT, TEXT), max_size=3).map(tuple),
)
MESSAGES = st.one_of(
    st.builds(
        Add,
        path=TEXT,
        target=TEXT,
        slot=st.integers(0, 2**40),
        data=st.binary(),
        options=st.none() | OPTIONS,
    ),
    st.builds(Remove, path=TEXT),
)


def decoded(block: bytes) -> list[Add | Remove]:
    return [messages.decode(record) for record in messages.split(block)[0]]


@given(st.lists(MESSAGES))
def test_records_decode_to_what_was_encoded(changes: list[Add | Remove]) -> None:
    block = b"".join(map(messages.encode, changes))
    assert decoded(block) == changes
    assert messages.split(block)[1] == len(block)


@given(st.lists(MESSAGES, min_size=1, max_size=5), st.data())
def test_a_cut_block_yields_its_whole_records(
    changes: list[Add | Remove], data: st.DataObject
) -> None:
    encoded = list(map(messages.encode, changes))
    block = b"".join(encoded)
    cut = data.draw(st.integers(0, len(block)))
    records, taken = messages.split(block[:cut])
    assert decoded(block[:cut]) == changes[: len(records)]
    assert taken == sum(map(len, encoded[: len(records)]))
    assert cut - taken < len([*encoded, b"x"][len(records)])


@given(MESSAGES)
def test_the_length_of_a_record_is_known_from_its_first_bytes(change: Add | Remove) -> None:
    record = messages.encode(change)
    assert messages.needed(record[: messages.LENGTH_BYTES]) == len(record)
    assert messages.needed(record + b"more") == len(record)


def only(message: object) -> memoryview[int]:
    """Return the record of a message of whatever layout, without its length."""
    return memoryview(msgspec.msgpack.encode(message))


@pytest.mark.parametrize("options", [None, RouteOptions(strip_prefix=True, timeout=2.5)])
def test_a_worker_reads_the_same_record_without_its_data(options: RouteOptions | None) -> None:
    record = only(Add("/a", "http://t", 5, b'{"user":"a"}', options))
    read = messages.decode_with_raw_data(record)
    assert isinstance(read, AddWithRawData)
    assert (read.path, read.target, read.slot, read.options) == ("/a", "http://t", 5, options)
    assert messages.decode_with_raw_data(only(Remove("/a"))) == Remove("/a")


def test_records_may_grow_at_their_ends() -> None:
    class Short(msgspec.Struct, array_like=True, tag=0):
        path: str
        target: str
        slot: int
        data: bytes

    class Long(msgspec.Struct, array_like=True, tag=0):
        path: str
        target: str
        slot: int
        data: bytes
        options: tuple[bool, None, float, tuple[()], str]
        more: str

    old, new = (
        only(Short("/a", "http://t", 5, b"{}")),
        only(
            Long("/a", "http://t", 5, b"{}", (True, None, 2.0, (), "of the route"), "of the record")
        ),
    )
    known = RouteOptions(strip_prefix=True, timeout=2.0)
    for decode in (messages.decode, messages.decode_with_raw_data):
        for record, options in ((old, None), (new, known)):
            read = decode(record)
            assert not isinstance(read, Remove)
            assert (read.path, read.slot, read.options) == ("/a", 5, options)
    decode_short = msgspec.msgpack.Decoder(Short).decode
    assert decode_short(only(Add("/a", "http://t", 5, b"{}", known))) == decode_short(old)


@given(st.binary())
def test_nonsense_is_refused_with_one_exception(nonsense: bytes) -> None:
    for decode in (messages.decode, messages.decode_with_raw_data):
        with contextlib.suppress(msgspec.DecodeError):
            assert isinstance(decode(nonsense), Add | AddWithRawData | Remove)


@given(st.binary())
def test_nonsense_is_split_without_an_exception(nonsense: bytes) -> None:
    records, taken = messages.split(nonsense)
    assert taken == sum(messages.LENGTH_BYTES + len(record) for record in records)


def test_a_text_that_is_no_unicode_is_refused() -> None:
    with pytest.raises(UnicodeEncodeError):
        messages.encode(Remove("/\ud800"))
