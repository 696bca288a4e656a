"""Turns: a connection that never has to wait lets all others be served nevertheless."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

from gevent import get_hub, getcurrent

# Seconds that the event loop may be kept from looking who is ready.
TURN = 0.001


class Turns:
    """Ends the turn of a greenlet that could go on for ever.

    Greenlets run until they wait. One that finds data each time it reads, and room each time
    it writes, never does, and nobody else is served. So whoever could go on without waiting
    calls :meth:`give_way` first: when the event loop has not looked who is ready for ``TURN``,
    the greenlet has to wait in line until it has. Then those in line go on, one after the
    other, until it is time to look again.

    It is the loop's time that counts, not each connection's: when many are ready, each that
    has to wait in line has moved less, and the loop looks as often.

    (``gevent.sleep(0)`` is no way to wait: what it calls is called without the loop looking in
    between, for 5 ms and always 50 times.)

    Args:
        loop: the event loop.
        clock: returns the time in seconds that ``loop.now()`` would, had the loop just looked.
    """

    def __init__(self, loop: Any, clock: Callable[[], float] = time.time) -> None:
        self._now: Callable[[], float] = loop.now
        self._clock = clock
        self._line: OrderedDict[Any, None] = OrderedDict()
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
            self.wait_in_line()

    def wait_in_line(self) -> None:
        """Let the event loop look, and serve whoever is ready, before the greenlet goes on."""
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
            greenlet, _ = line.popitem(last=False)
            greenlet.switch()
            if self.is_over():
                break
        if not line:
            self._looked.stop()


_turns: WeakKeyDictionary[Any, Turns] = WeakKeyDictionary()


def turns(hub: Any) -> Turns:
    """Return the turns of a hub's event loop."""
    found = _turns.get(hub)
    if found is None:
        found = _turns[hub] = Turns(hub.loop)
    return found
