"""The subscriber: a worker's table is the publisher's, whenever it looks."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

from chp_gevent.routing.route_options import RouteOptions
from chp_gevent.routing.table import Route, RouteTable
from chp_gevent.shared import journal as journal_module
from chp_gevent.shared.journal import Journal, JournalDamaged
from chp_gevent.shared.publisher import Publisher
from chp_gevent.shared.segment import END, EPOCH, GENERATION, Segment
from chp_gevent.shared.subscriber import Subscriber

PREAD = os.pread


def published_by(publisher: Publisher) -> dict[str, tuple[str, int]]:
    return {route.path: (route.target, route.slot) for route in publisher.routes.values()}


def seen_by(subscriber: Subscriber) -> dict[str, tuple[str, int]]:
    return {route.prefix: (route.target, route.slot) for route in subscriber._table}


class Channel:
    """A publisher that compacts often, and subscribers on the same segment."""

    def __init__(self, compact_at: int = 400, routes: int = 1000) -> None:
        self.segment = Segment(rows=1, routes=routes)
        self.journal = Journal(self.segment)
        self.publisher = Publisher(self.segment, self.journal, compact_at=compact_at)
        self.changes = 0
        # What a worker must know at each generation.
        self.tables: list[dict[str, tuple[str, int]]] = [{}]

    def subscriber(self, on_unused: Callable[[str], None] | None = None) -> Subscriber:
        return Subscriber(self.segment, self.journal, RouteTable(), on_unused)

    def change(self) -> None:
        """Publish some change or other."""
        self.changes += 1
        path = f"/user/{self.changes * 7 % 10}"
        if self.changes % 4 == 0 and path in self.publisher.routes:
            self.publisher.remove(path)
        else:
            self.publisher.add(path, f"http://t:{self.changes}", b'{"data":"not for workers"}')
        self.tables.append(published_by(self.publisher))

    def compactions(self, number: int) -> None:
        """Publish changes until the journal has been compacted so many times."""
        epoch = self.segment.words[EPOCH] + number
        while self.segment.words[EPOCH] < epoch:
            self.change()


@pytest.fixture
def channel() -> Iterator[Channel]:
    channel = Channel()
    yield channel
    channel.journal.close()


def assert_in_step(subscriber: Subscriber, publisher: Publisher) -> None:
    assert seen_by(subscriber) == published_by(publisher)
    assert subscriber.generation == publisher.generation


def test_follows_every_change(channel: Channel) -> None:
    subscriber = channel.subscriber()
    for _ in range(200):
        channel.change()
        assert subscriber.generation != channel.segment.words[GENERATION]
        subscriber.catch_up()
        assert_in_step(subscriber, channel.publisher)
    assert channel.segment.words[EPOCH] > 3


def test_a_new_worker_gets_the_whole_table(channel: Channel) -> None:
    for _ in range(100):
        channel.change()
        subscriber = channel.subscriber()
        subscriber.catch_up()
        assert_in_step(subscriber, channel.publisher)


def test_a_new_worker_gets_it_from_a_server_without_management_process(channel: Channel) -> None:
    child = os.fork()
    if child == 0:
        for number in range(50):
            channel.publisher.add(f"/{number}", "http://t", b"{}")
        os._exit(0)
    os.waitpid(child, 0)
    subscriber = channel.subscriber()
    subscriber.catch_up()
    assert {route.prefix for route in subscriber._table} == {f"/{n}" for n in range(50)}


@pytest.mark.parametrize("changes", [0, 1, 5])
@pytest.mark.parametrize("compactions", [0, 1, 2, 3, 4])
def test_catches_up_over_any_number_of_compactions(
    channel: Channel, compactions: int, changes: int
) -> None:
    channel.compactions(1)
    subscriber = channel.subscriber()
    subscriber.catch_up()
    for _ in range(changes):
        channel.change()
    channel.compactions(compactions)
    for _ in range(changes):
        channel.change()
    subscriber.catch_up()
    assert_in_step(subscriber, channel.publisher)


def test_catches_up_with_a_table_that_has_become_empty(channel: Channel) -> None:
    channel.publisher.add("/a", "http://a", b"{}")
    subscriber = channel.subscriber()
    subscriber.catch_up()
    channel.compactions(3)
    for path in list(channel.publisher.routes):
        channel.publisher.remove(path)
    channel.publisher._writer.compact([])
    subscriber.catch_up()
    assert_in_step(subscriber, channel.publisher)
    assert len(subscriber._table) == 0


def test_an_up_to_date_reader_does_not_read_the_snapshot(
    channel: Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    subscriber = channel.subscriber()
    channel.compactions(1)
    subscriber.catch_up()
    pread = os.pread
    sizes: list[int] = []

    def counting(file: int, size: int, offset: int) -> bytes:
        sizes.append(size)
        return pread(file, size, offset)

    epoch = channel.segment.words[EPOCH]
    while channel.segment.words[EPOCH] < epoch + 3:
        channel.change()
        with monkeypatch.context() as patch:
            patch.setattr(os, "pread", counting)
            subscriber.catch_up()
    assert max(sizes) < 100


class Disturbed:
    """Counts a reader's steps, looks at words and reads of files, and comes in between."""

    def __init__(
        self, words: memoryview[int], at: tuple[int, ...], disturb: Callable[[], None]
    ) -> None:
        self.words = words
        self.at = at
        self.disturb = disturb
        self.steps = 0

    def step(self) -> None:
        self.steps += 1
        if self.steps - 1 in self.at:
            self.disturb()

    def __getitem__(self, index: int) -> int:
        self.step()
        return self.words[index]

    def pread(self, file: int, size: int, offset: int) -> bytes:
        self.step()
        data = PREAD(file, size, offset)
        self.step()
        return data


@pytest.mark.parametrize("block", [16, 100, 1 << 20])
@pytest.mark.parametrize("again", [0, 1, 3], ids=["once", "twice", "twice, later"])
@pytest.mark.parametrize("late", [0, 1, 2])
@pytest.mark.parametrize("compactions", [0, 1, 2, 3])
def test_a_writer_between_any_two_steps_of_a_reader_does_no_harm(
    monkeypatch: pytest.MonkeyPatch, block: int, again: int, late: int, compactions: int
) -> None:
    monkeypatch.setattr(journal_module, "BLOCK_BYTES", block)
    at = 0
    while True:
        channel = Channel()
        channel.compactions(1)
        subscriber = channel.subscriber()
        subscriber.catch_up()
        channel.compactions(late)
        channel.change()

        def disturb(channel: Channel = channel) -> None:
            channel.compactions(compactions)
            channel.change()

        published = channel.publisher.generation
        disturbed = Disturbed(channel.segment.words, (at, at + again), disturb)
        with monkeypatch.context() as patch:
            patch.setattr(os, "pread", disturbed.pread)
            patch.setattr(subscriber, "_words", disturbed)
            patch.setattr(subscriber._reader, "_words", disturbed)
            subscriber.catch_up()
        assert published <= subscriber.generation <= channel.publisher.generation
        assert seen_by(subscriber) == channel.tables[subscriber.generation]
        subscriber.catch_up()
        assert_in_step(subscriber, channel.publisher)
        channel.journal.close()
        if at > disturbed.steps:
            break
        at += 1
    assert at > 10


def test_reports_the_targets_that_no_route_leads_to() -> None:
    channel = Channel(compact_at=1 << 20)
    gone: list[str] = []
    subscriber = channel.subscriber(gone.append)
    channel.publisher.add("/a", "http://a", b"{}")
    channel.publisher.add("/b", "http://b", b"{}")
    subscriber.catch_up()
    channel.publisher.add("/a", "http://a", b'{"only":"data"}')
    subscriber.catch_up()
    assert gone == []
    channel.publisher.add("/a", "http://a2", b"{}")
    channel.publisher.remove("/b")
    subscriber.catch_up()
    assert gone == ["http://a", "http://b"]


def test_options_of_a_route_come_change_and_go_with_it() -> None:
    channel = Channel(compact_at=1 << 20)
    gone: list[str] = []
    subscriber = channel.subscriber(gone.append)
    for options in (RouteOptions(strip_prefix=True), RouteOptions(timeout=2.0), None):
        channel.publisher.add("/a", "http://a", b'{"data":1}', options)
        late = channel.subscriber()
        for reader in (subscriber, late):
            reader.catch_up()
            (route,) = reader._table
            assert route == Route("/a", "http://a", 0, options)
    assert gone == [], "the connections to its target are as good as before"


def test_reports_the_targets_that_no_route_leads_to_when_it_is_late(channel: Channel) -> None:
    gone: list[str] = []
    subscriber = channel.subscriber(gone.append)
    for name in ("a", "b", "c"):
        channel.publisher.add(f"/{name}", f"http://{name}", b"{}")
    subscriber.catch_up()
    channel.publisher.remove("/a")
    channel.publisher.add("/b", "http://b2", b"{}")
    channel.compactions(3)
    subscriber.catch_up()
    assert sorted(gone) == ["http://a", "http://b"]


def test_a_failing_callback_costs_no_change(channel: Channel) -> None:
    def fail(target: str) -> None:
        raise LookupError(target)

    subscriber = channel.subscriber(fail)
    channel.publisher.add("/a", "http://a", b"{}")
    subscriber.catch_up()
    channel.publisher.remove("/a")
    channel.publisher.add("/b", "http://b", b"{}")
    with pytest.raises(LookupError):
        subscriber.catch_up()
    assert_in_step(subscriber, channel.publisher)


def test_an_announced_change_that_is_not_there_is_an_error(channel: Channel) -> None:
    channel.change()
    channel.segment.words[GENERATION] += 1
    with pytest.raises(JournalDamaged):
        channel.subscriber().catch_up()


def test_a_committed_end_without_a_whole_record_is_an_error(channel: Channel) -> None:
    channel.change()
    channel.segment.words[END] -= 1
    with pytest.raises(JournalDamaged):
        channel.subscriber().catch_up()


def test_routes_with_one_target_share_its_text() -> None:
    channel = Channel(compact_at=1 << 20)
    for number in range(10):
        channel.publisher.add(f"/{number}", "http://the-same", b"{}")
    subscriber = channel.subscriber()
    subscriber.catch_up()
    assert len({id(route.target) for route in subscriber._table}) == 1


def test_a_new_worker_reads_a_table_of_100_000_routes() -> None:
    channel = Channel(compact_at=8 << 20, routes=100_000)
    data = b'{"user":"name","hub":false,"jupyterhub":true,"target":"http://10.0.0.1:8888"}'
    for number in range(100_000):
        channel.publisher.add(f"/user/name-{number}", f"http://10.0.0.1:{number}", data)
    subscriber = channel.subscriber()
    subscriber.catch_up()
    assert len(subscriber._table) == 100_000
    assert_in_step(subscriber, channel.publisher)
    channel.journal.close()


def test_a_target_is_told_of_when_its_last_route_goes(channel: Channel) -> None:
    unused: list[str] = []
    subscriber = channel.subscriber(unused.append)
    publisher = channel.publisher

    def told() -> list[str]:
        subscriber.catch_up()
        found, unused[:] = unused[:], []
        return found

    publisher.add("/a", "http://one", b"{}")
    publisher.add("/b", "http://one", b"{}")
    assert told() == []
    publisher.remove("/a")
    assert told() == []
    publisher.remove("/b")
    assert told() == ["http://one"]
    publisher.add("/a", "http://one", b"{}")
    publisher.add("/a", "http://one", b"{}")
    assert told() == []
    publisher.add("/a", "http://two", b"{}")
    assert told() == ["http://one"]
    # Another server may have come to its port meanwhile.
    publisher.remove("/a")
    publisher.add("/a", "http://two", b"{}")
    assert told() == ["http://two"]
