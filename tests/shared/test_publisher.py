"""The publisher: the one writer of the table, and what a new one finds after a crash."""

from __future__ import annotations

import errno
import itertools
import logging
import os
from collections.abc import Iterator

import pytest

from chp_gevent.routing.route_options import RouteOptions
from chp_gevent.shared.journal import Journal
from chp_gevent.shared.publisher import Publisher, RouteLimitReached
from chp_gevent.shared.segment import EPOCH, GENERATION, Segment


class Channel:
    """A segment for 8 routes, its journal, and publishers on them whose clock ticks."""

    def __init__(self) -> None:
        self.segment = Segment(rows=1, routes=8)
        self.journal = Journal(self.segment)
        self.now = itertools.count(1000.0)

    def publisher(self, **sizes: int) -> Publisher:
        return Publisher(self.segment, self.journal, clock=self.now.__next__, **sizes)

    def recovered(self) -> Publisher:
        publisher = self.publisher()
        publisher.recover()
        return publisher


@pytest.fixture
def channel() -> Iterator[Channel]:
    channel = Channel()
    yield channel
    channel.journal.close()


def test_a_fresh_server_has_no_routes(channel: Channel) -> None:
    publisher = channel.publisher()
    assert publisher.recover() == 0
    assert publisher.routes == {}
    assert publisher.generation == channel.segment.words[GENERATION] == 0


def test_each_change_raises_the_generation_by_one(channel: Channel) -> None:
    publisher = channel.publisher()
    publisher.add("/a", "http://a", b"{}")
    publisher.add("/a", "http://a", b"{}")
    assert publisher.remove("/a") is True
    assert publisher.remove("/a") is False
    assert publisher.generation == channel.segment.words[GENERATION] == 3


def test_a_route_can_be_read_back(channel: Channel) -> None:
    publisher = channel.publisher()
    added = publisher.add("/user/秀樹", "http://a", b'{"user":"x"}')
    assert publisher.get("/user/秀樹") is added is publisher.routes["/user/秀樹"]
    assert (added.path, added.target, added.data) == ("/user/秀樹", "http://a", b'{"user":"x"}')
    assert publisher.get("/user") is None
    publisher.remove("/user/秀樹")
    assert publisher.get("/user/秀樹") is None


def test_the_activity_of_a_new_route_is_now(channel: Channel) -> None:
    publisher = channel.publisher()
    publisher.add("/a", "http://a", b"{}")
    publisher.add("/b", "http://b", b"{}")
    assert publisher.last_activity("/a") == 1000.0
    assert publisher.last_activity("/b") == 1001.0
    with pytest.raises(KeyError):
        publisher.last_activity("/c")


def test_adding_a_route_again_keeps_its_slot_and_sets_its_activity_to_now(
    channel: Channel,
) -> None:
    publisher = channel.publisher()
    slot = publisher.add("/a", "http://a", b"{}").slot
    assert publisher.add("/a", "http://other", b"{}").slot == slot
    assert publisher.last_activity("/a") == 1001.0
    assert len(publisher.routes) == 1


def test_a_path_that_has_a_route_again_has_its_slot_again(channel: Channel) -> None:
    publisher = channel.publisher()
    slots = {path: publisher.add(path, "http://t", b"{}").slot for path in ("/a", "/b", "/c")}
    for path in slots:
        assert publisher.remove(path)
    assert {path: publisher.add(path, "http://t", b"{}").slot for path in ("/c", "/a")} == {
        "/c": slots["/c"],
        "/a": slots["/a"],
    }
    assert publisher.add("/d", "http://t", b"{}").slot == 3


def test_a_new_publisher_knows_the_slots_of_paths_that_went(channel: Channel) -> None:
    old = channel.publisher()
    slots = {path: old.add(path, "http://t", b"{}").slot for path in ("/a", "/b", "/c")}
    old.remove("/b")
    assert channel.recovered().add("/b", "http://t", b"{}").slot == slots["/b"]


def test_a_slot_that_somebody_else_has_taken_is_not_given_back(channel: Channel) -> None:
    publisher = channel.publisher(resting_slots=1)
    slot = publisher.add("/a", "http://t", b"{}").slot
    publisher.remove("/a")
    assert publisher.add("/b", "http://t", b"{}").slot == slot
    assert publisher.add("/a", "http://t", b"{}").slot != slot


def test_a_route_that_could_not_be_published_leaves_its_slot_to_its_path(
    channel: Channel,
) -> None:
    publisher = channel.publisher()
    slot = publisher.add("/a", "http://t", b"{}").slot
    publisher.remove("/a")
    with pytest.raises(UnicodeEncodeError):
        publisher.add("/a", "http://\ud800", b"{}")
    assert publisher.add("/a", "http://t", b"{}").slot == slot


def test_what_a_worker_notes_is_the_activity(channel: Channel) -> None:
    publisher = channel.publisher()
    slot = publisher.add("/a", "http://a", b"{}").slot
    channel.segment.activity[slot] = 2000.5
    assert publisher.last_activity("/a") == 2000.5


def test_fresh_slots_are_used_first_and_freed_ones_longest_free_first(channel: Channel) -> None:
    publisher = channel.publisher()
    slots = {name: publisher.add(f"/{name}", "http://t", b"{}").slot for name in "abcdef"}
    for name in "cab":
        publisher.remove(f"/{name}")
    reused = [publisher.add(f"/new/{number}", "http://t", b"{}").slot for number in range(5)]
    fresh = [6, 7]
    assert reused == [*fresh, slots["c"], slots["a"], slots["b"]]


def test_a_slot_is_reused_when_enough_others_rest(channel: Channel) -> None:
    publisher = channel.publisher(resting_slots=2)
    slots = []
    for number in range(6):
        slots.append(publisher.add(f"/{number}", "http://t", b"{}").slot)
        publisher.remove(f"/{number}")
    assert slots == [0, 1, 0, 1, 0, 1]


def test_one_route_more_than_slots_is_refused_and_changes_nothing(channel: Channel) -> None:
    publisher = channel.publisher()
    for number in range(8):
        publisher.add(f"/{number}", "http://t", b"{}")
    with pytest.raises(RouteLimitReached):
        publisher.add("/8", "http://t", b"{}")
    assert publisher.generation == len(publisher.routes) == 8
    publisher.add("/0", "http://again", b"{}")
    publisher.remove("/3")
    assert publisher.add("/8", "http://t", b"{}").slot == 3


def test_a_new_publisher_has_the_routes_their_fields_and_their_activity(channel: Channel) -> None:
    old = channel.publisher()
    for name in ("a", "b", "c"):
        old.add(f"/{name}", f"http://{name}", f'{{"user":"{name}"}}'.encode())
    old.add("/b", "http://b2", b'{"user":"b2"}')
    old.remove("/a")
    channel.segment.activity[old.routes["/c"].slot] = 5000.0
    new = channel.publisher()
    assert new.recover() == 2
    assert new.routes == old.routes
    assert new.generation == old.generation
    assert new.last_activity("/b") == old.last_activity("/b")
    assert new.last_activity("/c") == 5000.0


def test_a_new_publisher_reuses_slots_in_the_order_of_the_old_one(channel: Channel) -> None:
    old = channel.publisher()
    for name in "abcdefgh":
        old.add(f"/{name}", "http://t", b"{}")
    for name in "hcf":
        old.remove(f"/{name}")
    new = channel.recovered()
    assert [new.add(f"/{n}", "http://t", b"{}").slot for n in range(3)] == [7, 2, 5]
    with pytest.raises(RouteLimitReached):
        new.add("/x", "http://t", b"{}")


def test_slots_freed_before_a_compaction_are_found_again(channel: Channel) -> None:
    old = channel.publisher(compact_at=100)
    for name in "abcdefgh":
        old.add(f"/{name}", "http://t", b"{}")
    old.remove("/c")
    while channel.segment.words[EPOCH] == 0:
        old.add("/a", "http://t", b"{}")
    old.remove("/d")
    new = channel.recovered()
    assert [new.add(f"/{n}", "http://t", b"{}").slot for n in range(2)] == [2, 3]


def test_a_change_that_was_committed_but_not_announced_is_announced(channel: Channel) -> None:
    publisher = channel.publisher()
    publisher.add("/a", "http://a", b"{}")
    publisher.add("/b", "http://b", b"{}")
    channel.segment.words[GENERATION] = 1
    recovered = channel.recovered()
    assert set(recovered.routes) == {"/a", "/b"}
    assert channel.segment.words[GENERATION] == recovered.generation == 2


def test_a_full_restart_starts_empty(channel: Channel) -> None:
    channel.publisher().add("/a", "http://a", b"{}")
    other = Channel()
    assert other.recovered().routes == {}
    other.journal.close()


def test_a_record_of_several_megabytes_survives(channel: Channel) -> None:
    data = b'{"x":"%s"}' % (b"x" * 5_000_000)
    publisher = channel.publisher()
    publisher.add("/before", "http://t", b"{}")
    publisher.add("/big", "http://t", data)
    publisher.add("/after", "http://t", b"{}")
    assert channel.recovered().routes == publisher.routes


def full(*_: object) -> int:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("path", ["/a", "/new"])
def test_an_addition_that_does_not_fit_changes_no_route(
    channel: Channel, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    publisher = channel.publisher()
    publisher.add("/a", "http://a", b"{}")
    before = dict(publisher.routes)
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(OSError, match="No space"):
            publisher.add(path, "http://other", b"{}")
        with pytest.raises(OSError, match="No space"):
            publisher.remove("/a")
    assert publisher.routes == before
    assert publisher.generation == 1
    assert channel.recovered().routes == before
    for number in range(7):
        publisher.add(f"/{number}", "http://t", b"{}")
    assert channel.recovered().routes == publisher.routes


def test_a_text_that_is_no_unicode_is_refused_and_changes_nothing(channel: Channel) -> None:
    publisher = channel.publisher()
    with pytest.raises(UnicodeEncodeError):
        publisher.add("/\ud800", "http://t", b"{}")
    assert publisher.generation == 0
    for number in range(8):
        publisher.add(f"/{number}", "http://t", b"{}")


def test_a_write_in_several_pieces_is_one_change(
    channel: Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, data, at: pwrite(file, data[:7], at))
    publisher = channel.publisher(compact_at=100)
    for number in range(20):
        publisher.add(f"/{number % 3}", f"http://{number}", b"{}")
    assert channel.segment.words[EPOCH] > 0
    assert channel.recovered().routes == publisher.routes


def test_the_journal_stays_in_proportion_to_the_table(channel: Channel) -> None:
    publisher = channel.publisher(compact_at=1000)
    for number in range(2000):
        publisher.add(f"/{number % 5}", f"http://{number}", b'{"number":%d}' % number)
    assert channel.segment.words[EPOCH] > 10
    assert max(os.fstat(file).st_size for file in channel.journal.files) < 2000
    assert channel.recovered().routes == publisher.routes


def test_a_compaction_that_does_not_fit_is_put_off(
    channel: Channel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    publisher = channel.publisher(compact_at=1000)
    inactive = channel.journal.files[1]
    pwrite = os.pwrite

    def only_active(file: int, data: bytes, at: int) -> int:
        return full() if file == inactive else pwrite(file, data, at)

    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):
        patch.setattr(os, "pwrite", only_active)
        for _ in range(100):
            publisher.add("/a", "http://a", b"{}")
    assert 1 <= len(caplog.records) <= 3
    assert channel.segment.words[EPOCH] == 0
    assert os.fstat(inactive).st_size == 0
    assert channel.recovered().routes == publisher.routes
    for _ in range(100):
        publisher.add("/a", "http://b", b"{}")
    assert channel.segment.words[EPOCH] > 0
    assert channel.recovered().routes == publisher.routes


def test_options_of_routes_survive_a_publisher_and_compactions(channel: Channel) -> None:
    options = RouteOptions(strip_prefix=True, timeout=1.5, headers=(("X-A", "1"),))
    publisher = channel.publisher(compact_at=200)
    publisher.add("/with", "http://a", b"{}", options)
    publisher.add("/without", "http://a", b"{}")
    for compactions in range(3):
        recovered = channel.recovered()
        assert channel.segment.words[EPOCH] == compactions
        assert recovered.routes == publisher.routes
        assert recovered.routes["/with"].options == options
        assert recovered.routes["/without"].options is None
        while channel.segment.words[EPOCH] == compactions:
            publisher.add("/changed", "http://a", b"{}")
    publisher.add("/with", "http://a", b"{}")
    assert channel.recovered().routes["/with"].options is None
