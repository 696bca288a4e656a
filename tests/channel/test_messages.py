"""Records of the journal: whatever is encoded comes out again, at any cut."""

from __future__ import annotations

import contextlib

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chp_gevent.channel import messages
from chp_gevent.channel.messages import Add, AddWithoutData, Remove

# A machine that is busy with something else must not fail a test.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
MESSAGES = st.one_of(
    st.builds(Add, path=TEXT, target=TEXT, slot=st.integers(0, 2**40), data=st.binary()),
    st.builds(Remove, path=TEXT),
)


def decoded(block: bytes) -> list[Add | Remove]:
    return [messages.decode(record) for record in messages.split(block)[0]]


@unhurried
@given(st.lists(MESSAGES))
def test_records_decode_to_what_was_encoded(changes: list[Add | Remove]) -> None:
    block = b"".join(map(messages.encode, changes))
    assert decoded(block) == changes
    assert messages.split(block)[1] == len(block)


@unhurried
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


@unhurried
@given(MESSAGES)
def test_the_length_of_a_record_is_known_from_its_first_bytes(change: Add | Remove) -> None:
    record = messages.encode(change)
    assert messages.needed(record[: messages.LENGTH_BYTES]) == len(record)
    assert messages.needed(record + b"more") == len(record)


def test_a_worker_reads_the_same_record_without_its_data() -> None:
    record = messages.split(messages.encode(Add("/a", "http://t", 5, b'{"user":"a"}')))[0][0]
    assert messages.decode_without_data(record) == AddWithoutData("/a", "http://t", 5)
    record = messages.split(messages.encode(Remove("/a")))[0][0]
    assert messages.decode_without_data(record) == Remove("/a")


@unhurried
@given(st.binary())
def test_nonsense_is_refused_with_one_exception(nonsense: bytes) -> None:
    for decode in (messages.decode, messages.decode_without_data):
        with contextlib.suppress(msgspec.DecodeError):
            assert isinstance(decode(nonsense), Add | AddWithoutData | Remove)


@unhurried
@given(st.binary())
def test_nonsense_is_split_without_an_exception(nonsense: bytes) -> None:
    records, taken = messages.split(nonsense)
    assert taken == sum(messages.LENGTH_BYTES + len(record) for record in records)


def test_a_text_that_is_no_unicode_is_refused() -> None:
    with pytest.raises(UnicodeEncodeError):
        messages.encode(Remove("/\ud800"))
