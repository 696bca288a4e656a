"""What is remembered of attempts to get a certificate, and what that says of the next. Pure.

All times are Unix times, in seconds: they are kept in a file and compared after a restart.
"""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

# Times that lie so far ahead have been written by a clock that was wrong, in seconds.
_CLOCK_TOLERANCE: Final = 60.0


class Fault(Enum):
    """What kind of failure it was, which says how long to wait."""

    UNREACHABLE = "unreachable"
    """The CA was not there, or had a failure of its own: that costs nothing of any limit."""

    REFUSED = "refused"
    """The CA said no, or found no proof: Let's Encrypt allows 5 such an hour for each name."""

    LOCAL = "local"
    """The storage could not be written."""


# Seconds before the next attempt, after the first failure in a row, the second … In an hour four
# attempts that the CA refuses, and two a day later on.
_PAUSES: Final = {
    Fault.UNREACHABLE: (5, 10, 20, 40, 80, 160, 320, 640, 1280, 3600),
    Fault.REFUSED: (300, 900, 1800, 3600, 7200, 14400, 28800, 43200),
    Fault.LOCAL: (10, 30, 60, 300, 900, 3600),
}
# So much longer, at the most, is a pause: not everybody asks at the same moment.
_JITTER: Final = 0.1
# What a CA can have us wait for with Retry-After, in seconds.
_LONGEST_PAUSE: Final = 8 * 86_400.0


@dataclass(frozen=True)
class State:
    """What is kept between attempts, and between starts of the server.

    Attributes:
        wanted: what certificate it is about: directory and names. For another one all begins anew.
        failures: failed attempts in a row.
        fault: the kind of the last failure.
        error: what was said of it.
        failed_at: when that was.
        not_before: when the next attempt may be.
        succeeded_at: when a certificate was last issued.
        order: URL of an order that has been begun.
        serial: of the certificate that ``renew_at`` and ``ask_at`` are about, in hexadecimal.
        renew_at: when to renew it.
        ask_at: when to ask the CA next what it thinks of that (RFC 9773).
    """

    wanted: str = ""
    failures: int = 0
    fault: str = ""
    error: str = ""
    failed_at: float = 0.0
    not_before: float = 0.0
    succeeded_at: float = 0.0
    order: str = ""
    serial: str = ""
    renew_at: float = 0.0
    ask_at: float = 0.0

    def wanting(self, wanted: str) -> State:
        """Return what of this counts for a certificate like ``wanted``."""
        return self if self.wanted == wanted else State(wanted=wanted)

    def failed(
        self,
        fault: Fault,
        error: str,
        now: float,
        retry_after: float = 0.0,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> State:
        """Return the state after another failure.

        ``retry_after`` is the pause that the CA asks for, in seconds.
        """
        # The pauses of one kind are no reason for those of another.
        failures = self.failures + 1 if fault.value == self.fault else 1
        pauses = _PAUSES[fault]
        pause = pauses[min(failures, len(pauses)) - 1] * uniform(1.0, 1.0 + _JITTER)
        pause = max(pause, min(retry_after, _LONGEST_PAUSE))
        return dataclasses.replace(
            self,
            failures=failures,
            fault=fault.value,
            error=error,
            failed_at=now,
            not_before=now + pause,
        )

    def succeeded(self, now: float) -> State:
        """Return the state after a certificate was issued."""
        return State(wanted=self.wanted, succeeded_at=now, failed_at=self.failed_at)

    def pause(self, now: float) -> float:
        """Return for how many seconds no attempt may be made; 0 if one may."""
        if self.failed_at > now + _CLOCK_TOLERANCE:
            return 0.0
        return max(0.0, self.not_before - now)

    def dump(self) -> str:
        """Return it as JSON."""
        return json.dumps(dataclasses.asdict(self), indent=1) + "\n"


def load(text: str) -> State:
    """Return a state from JSON. Raises ``ValueError`` if it is none."""
    values: Any = json.loads(text)
    if not isinstance(values, dict):
        raise ValueError("no object")
    known: dict[str, Any] = {}
    for each in dataclasses.fields(State):
        value = values.get(each.name, each.default)
        # JSON has whole numbers, too.
        kind = (int, float) if isinstance(each.default, float) else type(each.default)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise ValueError(f"{each.name} is {value!r}")
        known[each.name] = value
    return State(**known)


def renewal_time(
    not_before: float,
    not_after: float,
    uniform: Callable[[float, float], float] = random.uniform,
) -> float:
    """Return when to renew a certificate: with a third of its lifetime left, or a bit more."""
    lifetime = not_after - not_before
    return not_after - lifetime / 3 * uniform(1.0, 1.0 + _JITTER)


def earliest_renewal_time(succeeded_at: float, not_before: float, not_after: float) -> float:
    """Return when to renew a certificate at the earliest: our clock, or the CA's, may be wrong."""
    return succeeded_at + (not_after - not_before) / 6


def latest_renewal_time(not_before: float, not_after: float) -> float:
    """Return when to renew a certificate at the latest, whatever the CA suggests."""
    return not_after - (not_after - not_before) / 6
