"""Turns: a connection that never has to wait lets all others be served nevertheless."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from gevent import get_hub, getcurrent

# Seconds for which the event loop may be kept from looking who is ready. A read and a write of
# 256 KB take 0.15 ms, with TLS 0.4. Less than this costs downloads more than it saves others.
TURN = 0.002

# Seconds of CPU after which another one in the line has its turns; those who are not in the
# line are served between two turns in any case. What a download goes on with is in the
# processor's cache: 8 at once took 15% more CPU when each turn was another one's.
SHARE = 0.008


class Turns:
    """Ends the turn of a greenlet that could go on for ever.

    Greenlets run until they wait. One that finds data each time it reads, and room each time
    it writes, never does, and nobody else is served. So whoever could go on without waiting
    calls :meth:`give_way` first: when the event loop has not looked who is ready for ``TURN``,
    the greenlet has to wait in line until it has. Then the first in line goes on, and more if
    that did not take until it is time to look again; the first stays so until it has had its
    ``SHARE``.

    It is the loop's time that counts, not each connection's: the more are ready, the less each
    of those who could go on for ever moves before the loop looks again.

    (``gevent.sleep(0)`` is no way to wait: what it calls is called without the loop looking in
    between, for 5 ms and always 50 times.)

    Args:
        loop: the event loop.
        clock: returns the time in seconds that ``loop.now()`` would, had the loop just looked.
        cpu: returns the CPU time of this thread in seconds. Shares are of that, since a busy
            machine may take the processor away for longer than a turn.
    """

    def __init__(
        self,
        loop: Any,
        clock: Callable[[], float] = time.time,
        cpu: Callable[[], float] = time.thread_time,
    ) -> None:
        self._now: Callable[[], float] = loop.now
        self._clock = clock
        self._cpu = cpu
        self._line: OrderedDict[Any, None] = OrderedDict()
        # Who went on last, and what is left of its share.
        self._last: Any = None
        self._left = 0.0
        # Called each time the loop has looked, and makes it look without waiting. Idle watchers
        # are called when no others of their priority are; nobody else has the highest.
        self._looked = loop.idle(priority=loop.MAXPRI)

    def is_over(self) -> bool:
        """Whether the event loop has to look who is ready before anybody goes on (0.15 µs)."""
        # Less than nothing: somebody has set the clock.
        return not 0.0 <= self._clock() - self._now() < TURN

    def give_way(self) -> None:
        """Wait in line if the turn is over."""
        if self.is_over():
            self._wait_in_line()

    def _wait_in_line(self) -> None:
        me = getcurrent()
        self._line[me] = None
        if not self._looked.active:
            self._looked.start(self._go_on)
        try:
            get_hub().switch()
        finally:
            # Still there if an exception has been thrown into the greenlet.
            self._line.pop(me, None)

    def _go_on(self) -> None:
        line = self._line
        while line:
            first, _ = line.popitem(last=False)
            if first is not self._last or self._left <= 0.0:
                self._last, self._left = first, SHARE
            began = self._cpu()
            first.switch()
            self._left -= self._cpu() - began
            if first in line and self._left > 0.0:
                line.move_to_end(first, last=False)
            if self.is_over():
                break
        if not line:
            self._looked.stop()
            self._last = None


def turns(hub: Any) -> Turns:
    """Return the turns of a hub's event loop; kept with the hub, where it is found soonest."""
    try:
        found: Turns = hub.turns_of_connections
    except AttributeError:
        found = hub.turns_of_connections = Turns(hub.loop)
    return found
