"""What one version of the arbiter leaves to the next."""

from __future__ import annotations

import os

import msgspec
import pytest

from chp_gevent import __version__
from chp_gevent.master import handover
from chp_gevent.master.handover import CannotTakeOver, Handover, WorkerState
from chp_gevent.shared import records
from chp_gevent.shared.memory_file import memory_file
from chp_gevent.shared.segment import LAYOUT

STATE = Handover(
    format=handover.FORMAT,
    version="0.9",
    pid=1,
    layout=LAYOUT,
    records=records.FORMAT,
    rows=3,
    routes=10,
    segment=7,
    journal=(8, 9),
    sockets={"public": [10, 11], "api": [12]},
    workers=[WorkerState(20, 0, 13, 1, 0, 1.5, drains=False)],
    worker_age=1,
    num_workers=1,
    unix_sockets={"/run/socket": (1, 2)},
    management=21,
    management_ready=14,
    ticket_secrets=15,
)


def environment(data: bytes) -> dict[str, str]:
    file = memory_file("test")
    os.write(file, data)
    return {handover.VARIABLE: str(file)}


def test_what_is_written_is_taken_once() -> None:
    file = handover.write(STATE)
    environ = {handover.VARIABLE: str(file), "OTHER": "x"}
    assert handover.take(environ) == STATE
    assert environ == {"OTHER": "x"}
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(file)
    assert handover.take(environ) is None


def test_every_descriptor_is_named() -> None:
    assert sorted(STATE.descriptors()) == list(range(7, 16))


def test_what_is_not_known_is_ignored_and_what_is_missing_has_a_default() -> None:
    fields = msgspec.to_builtins(STATE)
    for name in ("unix_sockets", "management", "management_ready", "ticket_secrets"):
        del fields[name]
    data = msgspec.msgpack.encode({**fields, "of_the_future": [1, 2]})
    state = handover.take(environment(data))
    assert state is not None
    assert (state.management, state.ticket_secrets, state.unix_sockets) == (None, None, {})
    assert state.workers == STATE.workers


@pytest.mark.parametrize(
    ("field", "what"),
    [
        ("format", "handover format"),
        ("layout", "layout of shared memory"),
        ("records", "format of the journal"),
    ],
)
def test_another_number_is_refused_and_says_what_to_do(field: str, what: str) -> None:
    fields = {**msgspec.to_builtins(STATE), field: 99, "workers": "of another form"}
    with pytest.raises(CannotTakeOver) as caught:
        handover.take(environment(msgspec.msgpack.encode(fields)))
    known = msgspec.to_builtins(STATE)[field]
    assert str(caught.value) == (
        f"{__version__} can't take over from 0.9, whose {what} is 99 and not {known}: "
        "restart the server"
    )


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x90", msgspec.msgpack.encode({"format": 1})])
def test_what_is_no_state_is_one_line(data: bytes) -> None:
    with pytest.raises(CannotTakeOver, match=r"^CHP_GEVENT_HANDOVER is of no use: [^\n]+$"):
        handover.take(environment(data))
