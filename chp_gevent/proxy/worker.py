"""The gunicorn worker: the life of one process of the data plane.

This module is imported by the arbiter, so it imports at its top nothing that must be
monkey-patched first; everything else comes in :meth:`ProxyWorker.load_wsgi`.
"""

from __future__ import annotations

import os
import time
from typing import Any

from gunicorn.workers.ggevent import GeventWorker

from chp_gevent import allocator
from chp_gevent.channel.journal import Journal
from chp_gevent.channel.segment import GENERATION, PID, STARTS, Segment, reset_gauges
from chp_gevent.options import Options
from chp_gevent.patching import plugins_read_once
from chp_gevent.privileges import forget_environment, without_secrets

# How often, in seconds, a worker tells the arbiter that it lives and looks for changes.
HEARTBEAT = 1.0
# Heartbeats after which it gives memory back.
TRIM_BEATS = 30


class ProxyWorker(GeventWorker):
    """A worker that serves the proxy application with ``http.server``.

    gunicorn's life cycle, settings and signals are kept; only its HTTP layer is not used:
    it costs 230 µs of CPU for a request where a whole proxied one must cost 160.

    Attributes:
        row_index: the worker's row in the segment; set by the arbiter before the fork.
        requests_before: requests in that row before this worker; the arbiter's to use.
        beats: heartbeats so far.
    """

    row_index: int = 0
    beats: int = 0
    requests_before: int = 0
    # Set when the worker is to stop, once it serves.
    _stopping: Any = None

    def equip(self, options: Options, segment: Segment, journal: Journal, row: int) -> None:
        """Take what the arbiter shares with this worker; called before the fork."""
        self.options = without_secrets(options)
        self.segment = segment
        self.journal = journal
        self.row_index = row

    def patch(self) -> None:
        """Patch the standard library for gevent, and make the sockets gevent's."""
        with plugins_read_once():
            super().patch()

    def load_wsgi(self) -> None:
        """Build the data plane, then load the application that wraps it, if any does."""
        import gevent

        from chp_gevent.channel.subscriber import Subscriber
        from chp_gevent.http.mishaps import look_after
        from chp_gevent.http.server import HTTPServer
        from chp_gevent.proxy import wsgi
        from chp_gevent.proxy.app import ProxyApplication
        from chp_gevent.proxy.serving import WorkerHooks, server_settings
        from chp_gevent.proxy.upgrades import Upgrades
        from chp_gevent.proxy.upstream import Upstream
        from chp_gevent.routing.table import Route, RouteTable

        forget_environment(self.cfg.env_orig)
        self.journal.give_up_writing()
        allocator.keep_read_buffers()
        row = self.segment.row(self.row_index)
        reset_gauges(row)
        row[PID] = os.getpid()
        row[STARTS] += 1
        self.upstream = upstream = Upstream(self.options.proxy)

        def retire(route: Route) -> None:
            upstream.retire(route.target)

        table = RouteTable()
        self.subscriber = Subscriber(self.segment, self.journal, table, retire)
        self.subscriber.catch_up()
        upgrades = Upgrades(self.segment, row)
        proxy = ProxyApplication(
            self.options.proxy,
            table,
            self.subscriber,
            self.segment,
            row,
            upstream,
            upgrades.hand_over,
        )
        wsgi.install(proxy)
        super().load_wsgi()
        app: Any = proxy if self.wsgi is wsgi.application else self.wsgi
        hooks = WorkerHooks(row, self._other_rows())
        look_after(gevent.get_hub(), hooks.log)
        self.server = HTTPServer(app, server_settings(self.options), self.sockets, hooks)
        upgrades.server = self.server

    def _other_rows(self) -> list[memoryview[int]]:
        """Return the rows of the other workers, and those that a reload may put there."""
        if self.options.workers == 1:
            return []
        rows = range(min(2 * self.options.workers, self.segment.rows - 1))
        return [self.segment.row(index) for index in rows if index != self.row_index]

    def run(self) -> None:
        """Serve until told to stop, then let what is in flight finish."""
        from gevent.event import Event

        self._stopping = stopping = Event()
        self.server.start()
        while self.alive:
            self._beat()
            stopping.wait(HEARTBEAT)
        self.server.drain()
        for sock in self.sockets:
            sock.close()
        deadline = time.monotonic() + self.options.drain_timeout
        while (left := deadline - time.monotonic()) > 0:
            self._beat()
            if self.server.join(min(HEARTBEAT, left)):
                break
        if self.server.busy:
            self.log.warning("%d connections cut off after the drain timeout", self.server.busy)
        self.server.stop()
        self.upstream.close()

    def handle_exit(self, signal_number: int, frame: Any) -> None:
        """Stop, and not at the next heartbeat only (SIGTERM)."""
        import gevent

        super().handle_exit(signal_number, frame)
        if self._stopping is not None:
            # A signal may come at any point of the program.
            gevent.get_hub().loop.run_callback_threadsafe(self._stopping.set)

    def _beat(self) -> None:
        self.notify()
        if self.segment.words[GENERATION] != self.subscriber.generation:
            self.subscriber.catch_up()
        self.upstream.close_idle(time.monotonic())
        self.beats += 1
        if self.beats % TRIM_BEATS == 0:
            allocator.give_back()
