"""Connections that are gone although nobody reads them."""

from __future__ import annotations

import logging
import select
from typing import Any, Protocol
from weakref import WeakKeyDictionary

from gevent import get_hub
from gevent.monkey import get_original

from chp_gevent.http.stream import READ, Stream
from chp_gevent.runtime.event_loop_errors import report

log = logging.getLogger("chp_gevent.proxy")


class Watched(Protocol):
    """What wants to know: whether the end of ``source`` has been read, and whom to tell."""

    source: Stream
    at_end: bool

    def source_broke(self) -> None: ...


class HangupWatch:
    """Notices that a connection which nobody reads at the moment is gone.

    For the loop it is "readable" without end when data has to wait in it or when its stream
    has ended, so that the loop can't tell. A set of its own asks the kernel for no events but
    those that are always told: errors, and "hung up", which is the end of both directions.
    """

    def __init__(self, hub: Any) -> None:
        self._flows: dict[int, Watched] = {}
        self._epoll = get_original("select", "epoll")()
        self._watcher = hub.loop.io(self._epoll.fileno(), READ, ref=False)
        self._watcher.start(self._on_events)

    def add(self, flow: Watched) -> None:
        """Tell ``flow`` when its source is gone. No news if that is watched already."""
        descriptor = flow.source.sock.fileno()
        if descriptor not in self._flows:
            self._flows[descriptor] = flow
            # Edge-triggered: a hang-up that is no reason to act would be told without end.
            self._epoll.register(descriptor, select.EPOLLET)

    def remove(self, flow: Watched) -> None:
        """Forget ``flow``, before its source is closed."""
        descriptor = flow.source.sock.fileno()
        if self._flows.pop(descriptor, None) is not None:
            self._epoll.unregister(descriptor)

    def _on_events(self) -> None:
        for descriptor, events in self._epoll.poll(0):
            flow = self._flows.get(descriptor)
            # Until the end of its stream has been read, a peer that hung up may have left data.
            if flow is not None and (flow.at_end or events & select.EPOLLERR):
                try:
                    flow.source_broke()
                except Exception as error:
                    # The others' events would not be told a second time.
                    report(flow.source_broke, error, log)


_watches: WeakKeyDictionary[Any, HangupWatch] = WeakKeyDictionary()


def hangup_watch() -> HangupWatch:
    """Return the one of this thread's event loop."""
    hub = get_hub()
    watch = _watches.get(hub)
    if watch is None:
        watch = _watches[hub] = HangupWatch(hub)
    return watch
