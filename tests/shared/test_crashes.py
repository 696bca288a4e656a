"""The writer is killed at every step it can be killed at: the table survives."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from chp_gevent.routing.table import RouteTable
from chp_gevent.shared.journal import Journal
from chp_gevent.shared.publisher import Publisher
from chp_gevent.shared.segment import EPOCH, GENERATION, Segment
from chp_gevent.shared.subscriber import Subscriber
from tests.kit.crashing import (
    Life,
    Model,
    Operation,
    Writer,
    apply_to_model,
    apply_to_publisher,
    data_of,
)
from tests.kit.effort import rounds

COMPACT_AT = 200


class Server:
    """What the arbiter keeps alive, with the readers and a look at the table."""

    def __init__(self, routes: int = 100) -> None:
        self.segment = Segment(rows=1, routes=routes)
        self.journal = Journal(self.segment)

    def publisher(self) -> Publisher:
        publisher = Publisher(self.segment, self.journal, clock=lambda: 1.0, compact_at=COMPACT_AT)
        publisher.recover()
        return publisher

    def subscriber(self) -> Subscriber:
        subscriber = Subscriber(self.segment, self.journal, RouteTable())
        subscriber.catch_up()
        return subscriber


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.journal.close()


def seen_by(subscriber: Subscriber) -> Model:
    return {route.prefix: route.target for route in subscriber._table}


def recovered_by(publisher: Publisher) -> Model:
    for route in publisher.routes.values():
        assert route.data == data_of(route.target)
    slots = {route.slot for route in publisher.routes.values()}
    assert len(slots) == len(publisher.routes), "two routes share an activity slot"
    return {route.path: route.target for route in publisher.routes.values()}


def some_operations(seed: int, number: int, paths: int = 6) -> list[Operation]:
    """Operations of which each changes the table, hence raises the generation by one."""
    chance = random.Random(seed)
    operations: list[Operation] = []
    present: set[str] = set()
    for count in range(number):
        path = f"/user/{chance.randrange(paths)}"
        if path in present and chance.random() < 0.4:
            operations.append(("remove", path))
            present.discard(path)
        else:
            operations.append(("add", path, f"http://t:{count}"))
            present.add(path)
    return operations


def possible_tables(model: Model, operations: list[Operation], life: Life) -> list[Model]:
    """The tables that are right: with all answered operations, and perhaps with the next."""
    for operation in operations[: life.answered]:
        model = apply_to_model(model, operation)
    in_flight = operations[life.answered : life.answered + 1]
    return [model, *(apply_to_model(model, operation) for operation in in_flight)]


@pytest.mark.parametrize("seed", range(3))
def test_a_writer_killed_at_any_step_leaves_the_table_and_the_readers_right(seed: int) -> None:
    """Between any two stores, in the middle of any write, also while it compacts; for
    readers that are up to date and for such that are 1, 2 and 3 compactions late."""
    before, during = some_operations(seed, 60), some_operations(seed + 100, 14)
    steps = 0
    while True:
        server = Server()
        publisher = server.publisher()
        model: Model = {}
        readers = {}
        for operation in before:
            apply_to_publisher(publisher, operation)
            model = apply_to_model(model, operation)
            reader = server.subscriber()
            readers[server.segment.words[EPOCH]] = reader
        epoch = server.segment.words[EPOCH]
        assert epoch >= 3

        life = Writer(server.segment, server.journal, lambda _: during, die_after=steps).end()

        right = possible_tables(model, during, life)
        for lag in (0, 2):
            readers[epoch - lag].catch_up()
            assert seen_by(readers[epoch - lag]) in right
        successor = server.publisher()
        recovered = recovered_by(successor)
        assert recovered in right
        for lag in (0, 1, 2, 3):
            readers[epoch - lag].catch_up()
            assert seen_by(readers[epoch - lag]) == recovered
        for operation in some_operations(seed + 200, 20):
            apply_to_publisher(successor, operation)
        for reader in (*readers.values(), server.subscriber()):
            reader.catch_up()
            assert seen_by(reader) == recovered_by(successor)
        server.journal.close()
        if not life.killed:
            break
        steps += 1
    assert steps > 4 * len(during), "each operation has several steps to be killed at"
    assert server.segment.words[EPOCH] > epoch, "some of the steps were those of a compaction"


def test_readers_are_right_at_every_look_while_writers_write_compact_and_die(
    server: Server,
) -> None:
    """Each operation raises the generation by one, so that a reader's generation tells
    which table it must have."""
    chance = random.Random(7)
    operations = some_operations(1, 100_000, paths=12)
    readers = [server.subscriber() for _ in range(4)]
    models: list[Model] = [{} for _ in readers]
    generations = [0 for _ in readers]

    def look(number: int) -> None:
        reader = readers[number]
        reader.catch_up()
        for operation in operations[generations[number] : reader.generation]:
            models[number] = apply_to_model(models[number], operation)
        generations[number] = reader.generation
        assert seen_by(reader) == models[number]

    def from_here(publisher: Publisher) -> Iterable[Operation]:
        return operations[publisher.generation :]

    for _ in range(12):
        enough = server.segment.words[GENERATION] + chance.randrange(20, 1500)
        writer = Writer(server.segment, server.journal, from_here)
        looks = 0
        while server.segment.words[GENERATION] < enough:
            for number, interval in enumerate((1, 3, 20, 100)):
                if looks % interval == 0:
                    look(number)
            looks += 1
        writer.kill()
        assert writer.end().killed
        look(0)
    successor = server.publisher()
    for number in range(len(readers)):
        look(number)
        assert seen_by(readers[number]) == recovered_by(successor)
        assert readers[number].generation == successor.generation
    assert server.segment.words[EPOCH] > 100


PATHS = st.integers(0, 7).map("/user/{}".format)
OPERATIONS = st.one_of(
    st.tuples(st.just("add"), PATHS, st.integers(1, 999).map("http://t:{}".format)),
    st.tuples(st.just("remove"), PATHS),
)


class ChannelUnderCrashes(RuleBasedStateMachine):
    """Writers live and die, readers look now and then, workers note activity; the model
    is what a single process without crashes would have."""

    def __init__(self) -> None:
        super().__init__()
        self.server = Server(routes=12)
        self.model: Model = {}
        self.activity: dict[str, float] = {}
        self.now = 1.0
        self.readers = [self.server.subscriber()]

    def teardown(self) -> None:
        self.server.journal.close()

    @rule(operations=st.lists(OPERATIONS, max_size=12), steps=st.integers(0, 60))
    def a_writer_dies_at_a_step(self, operations: list[Operation], steps: int) -> None:
        self._after(operations, self._writer(operations, steps).end())

    @rule(operations=st.lists(OPERATIONS, max_size=40))
    def a_writer_does_its_work(self, operations: list[Operation]) -> None:
        self._after(operations, self._writer(operations).end())

    def _writer(self, operations: list[Operation], die_after: int | None = None) -> Writer:
        self.now += 1
        now = self.now
        return Writer(
            self.server.segment,
            self.server.journal,
            lambda _: operations,
            die_after,
            COMPACT_AT,
            clock=lambda: now,
        )

    def _after(self, operations: list[Operation], life: Life) -> None:
        """Check what a successor finds, and go on with it."""
        assert life.killed or life.answered == len(operations)
        right = possible_tables(self.model, operations, life)
        successor = self.server.publisher()
        recovered = recovered_by(successor)
        assert recovered in right
        self.model = recovered
        for operation in operations[: life.answered]:
            self.activity[operation[1]] = self.now
        for operation in operations[life.answered : life.answered + 1]:
            # It may or may not have got as far as the activity.
            path = operation[1]
            if path in recovered:
                noted = successor.last_activity(path)
                assert noted in (self.now, self.activity.get(path))
                self.activity[path] = noted
        self.activity = {path: self.activity[path] for path in recovered}

    @rule(data=st.data())
    def a_reader_looks(self, data: st.DataObject) -> None:
        reader = data.draw(st.sampled_from(self.readers))
        reader.catch_up()
        assert seen_by(reader) == self.model
        assert reader.generation == self.server.segment.words[GENERATION]

    @precondition(lambda self: len(self.readers) < 5)
    @rule()
    def a_worker_starts(self) -> None:
        self.readers.append(self.server.subscriber())
        assert seen_by(self.readers[-1]) == self.model

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def a_worker_notes_activity(self, data: st.DataObject) -> None:
        reader = data.draw(st.sampled_from(self.readers))
        reader.catch_up()
        path = data.draw(st.sampled_from(sorted(self.model)))
        route = reader._table.get(path)
        assert route is not None
        self.now += 1
        self.server.segment.activity[route.slot] = self.activity[path] = self.now

    @invariant()
    def no_activity_is_lost(self) -> None:
        publisher = self.server.publisher()
        assert {path: publisher.last_activity(path) for path in publisher.routes} == self.activity


ChannelUnderCrashes.TestCase.settings = settings(
    max_examples=rounds(20, 60),
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestChannelUnderCrashes = ChannelUnderCrashes.TestCase
