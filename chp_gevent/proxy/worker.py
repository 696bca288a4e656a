"""The gunicorn worker: the life of one process of the data plane.

The arbiter imports this module before gevent patches anything, so it imports nothing at its top
that must be patched first.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gunicorn.arbiter import Arbiter
from gunicorn.workers import base
from gunicorn.workers.ggevent import GeventWorker
from gunicorn.workers.workertmp import WorkerTmp

from chp_gevent.config.live_tls import LiveTls, SharedTls
from chp_gevent.config.options import Options
from chp_gevent.config.privileges import forget_environment, without_secrets
from chp_gevent.config.tls_parts import API, PUBLIC, TARGETS
from chp_gevent.proxy.supervised import Supervised
from chp_gevent.runtime import allocator, logs
from chp_gevent.runtime.patching import patch_child
from chp_gevent.runtime.signals import held_signals, ignore_stop_signals
from chp_gevent.runtime.tracebacks import log_traceback
from chp_gevent.shared.journal import Journal
from chp_gevent.shared.segment import (
    ACCEPTING,
    CAME_UP,
    GENERATION,
    PID,
    STARTS,
    STOPPING,
    Segment,
    reset_gauges,
)

if TYPE_CHECKING:
    from gevent.event import Event

    from chp_gevent.http.server import HTTPServer
    from chp_gevent.proxy.access_log.batches import AccessLog
    from chp_gevent.proxy.upstream.pools import Upstream
    from chp_gevent.proxy.worker_server import WorkerEvents
    from chp_gevent.shared.subscriber import Subscriber

log = logging.getLogger("chp_gevent.server")

# How often, in seconds, a worker tells the arbiter that it lives and looks for changes.
HEARTBEAT = 1.0
# How often, in seconds, a worker that drains looks whether the whole server stops.
_DRAIN_LOOK = 0.25
# Signals that are the arbiter's business alone.
_OF_ARBITER = (signal.SIGHUP, signal.SIGUSR2)
# What libev calls "readable".
_READ = 1
# Heartbeats after which it gives memory back.
TRIM_BEATS = 30


class MemoryHeartbeat(WorkerTmp):
    """gunicorn's heartbeat of a worker, without a file system that may be full or read-only."""

    def __init__(self, cfg: Any) -> None:
        self._tmp = os.fdopen(os.memfd_create("worker-heartbeat"), "w+b", 0)
        if cfg.uid != os.geteuid() or cfg.gid != os.getegid():
            # Only its owner may set its times (``gunicorn --user``).
            os.fchown(self._tmp.fileno(), cfg.uid, cfg.gid)


# gunicorn has no setting for this.
if hasattr(os, "memfd_create"):
    base.WorkerTmp = MemoryHeartbeat


class ProxyWorker(Supervised, GeventWorker):
    """A worker that serves the proxy application with ``http.server``.

    gunicorn's life cycle, settings and signals are kept; only its HTTP layer is not used:
    it costs 230 µs of CPU for a request where a whole proxied one must cost 160.

    Attributes:
        beats: heartbeats so far.
    """

    server: HTTPServer
    upstream: Upstream
    subscriber: Subscriber
    events: WorkerEvents
    live_tls: LiveTls
    beats: int = 0
    # The server that redirects to HTTPS, if there is one.
    redirect: HTTPServer | None = None
    # The access log, if there is one.
    access: AccessLog | None = None
    redirect_sockets: Sequence[socket.socket] = ()
    # Set when the worker is to stop, once it serves.
    _stopping: Event | None = None

    def take(
        self,
        options: Options,
        tls: SharedTls,
        segment: Segment,
        journal: Journal,
        row: int,
        redirect_sockets: Sequence[socket.socket],
    ) -> None:
        """Take what the arbiter shares with this worker; called before the fork."""
        self.options = without_secrets(options)
        self.tls = tls
        self.segment = segment
        self.journal = journal
        self.row_index = row
        self.redirect_sockets = redirect_sockets
        self.row = segment.row(row)
        self.row[ACCEPTING] = self.row[CAME_UP] = 0
        self.made_at = time.monotonic()

    def init_process(self) -> None:
        """Serve; leave with gunicorn's status for workers that can't boot, after one line."""
        try:
            super().init_process()
        except Exception as error:
            if self.booted:
                raise
            log.error("worker could not start: %s: %s", type(error).__name__, error)
            log_traceback(log, error)
            sys.exit(Arbiter.WORKER_BOOT_ERROR)

    def patch(self) -> None:
        """Finish what ``preloading`` has begun; the sockets are only accepted from."""
        patch_child()

    def load_wsgi(self) -> None:
        """Build the data plane, then take the application that wraps it, if any does."""
        import gevent

        from chp_gevent.http.open_tunnels import OpenTunnels
        from chp_gevent.http.server import HTTPServer
        from chp_gevent.proxy import wsgi
        from chp_gevent.proxy.app import ProxyApplication
        from chp_gevent.proxy.first_certificate import FirstCertificate
        from chp_gevent.proxy.https_only import HttpsOnly
        from chp_gevent.proxy.logged_app import LoggedProxyApplication
        from chp_gevent.proxy.tunnels.upgrades import TunnelStarter
        from chp_gevent.proxy.upstream.pools import Upstream
        from chp_gevent.proxy.worker_server import (
            WorkerEvents,
            access_log,
            redirect_server,
            server_settings,
        )
        from chp_gevent.routing.table import RouteTable
        from chp_gevent.runtime.event_loop_errors import look_after
        from chp_gevent.shared.subscriber import Subscriber

        forget_environment(self.cfg.env_orig)
        self.journal.give_up_writing()
        if API in self.tls.files:
            self.tls.files[API].close()
        allocator.keep_read_buffers()
        row = self.row
        reset_gauges(row)
        row[PID] = os.getpid()
        row[STARTS] += 1
        self.upstream = upstream = Upstream(
            self.tls.contexts.targets, self.options.proxy.connect_timeout
        )
        table = RouteTable()
        self.subscriber = Subscriber(self.segment, self.journal, table, upstream.retire)
        self.subscriber.catch_up()
        self.access = access = access_log(self.options, gevent.get_hub().loop)
        tunnels = OpenTunnels()
        proxy: Any = (ProxyApplication if access is None else LoggedProxyApplication)(
            self.options.proxy,
            table,
            self.subscriber,
            self.segment,
            row,
            upstream,
            TunnelStarter(self.segment, row, tunnels, access),
        )
        if self.options.proxy.https_port is not None:
            proxy = HttpsOnly(proxy, self.options.proxy.https_port, row)
        wsgi.install(proxy)
        super().load_wsgi()
        app: Any = proxy if self.wsgi is wsgi.application else self.wsgi
        self.events = events = WorkerEvents(row, self._other_rows())
        look_after(gevent.get_hub(), events.log)
        public = self.tls.contexts.public
        first: FirstCertificate | None = None
        if self.options.acme is not None and public is not None and not public.has_certificate:
            first = FirstCertificate(self.options.acme, self._look_for_certificates, events.log)
        settings = server_settings(
            self.options, public.context if public is not None else None, first
        )
        self.server = HTTPServer(
            app, settings, self.sockets, events, tunnels=tunnels, access=access
        )
        use_public = self.server.use_tls if first is None else first.passed_to(self.server.use_tls)
        uses = {PUBLIC: use_public, TARGETS: upstream.use_tls}
        self.live_tls = LiveTls(self.options, self.tls, uses)
        if self.redirect_sockets:
            self.redirect = redirect_server(self.options, self.redirect_sockets, access)

    def _look_for_certificates(self) -> None:
        self.live_tls.look()

    def _other_rows(self) -> list[memoryview[int]]:
        """Return the rows that other workers have, or may have after reloads."""
        if self.options.workers == 1:
            return []
        rows = range(self.segment.rows - 1)
        return [self.segment.row(index) for index in rows if index != self.row_index]

    def run(self) -> None:
        """Serve until told to stop, then let what is in flight finish."""
        from gevent.event import Event

        self._stopping = stopping = Event()
        self._wake_up_for_signals()
        servers = [self.server, self.redirect] if self.redirect is not None else [self.server]
        for server in servers:
            server.start()
        while self.alive:
            self._beat()
            stopping.wait(HEARTBEAT)
        for server in servers:
            server.drain()
        for sock in (*self.sockets, *self.redirect_sockets):
            sock.close()
        self._drain()
        self._log_what_is_cut_off()
        for server in servers:
            server.stop()
        self.upstream.close()
        if self.access is not None:
            self.access.close()
        # A second signal would end it in the middle of Python's own end, with a traceback.
        ignore_stop_signals()

    def _wake_up_for_signals(self) -> None:
        """Have the event loop wake up for a signal: Python calls its handler when it runs again.

        One that arrives just before the loop waits would be handled at the next heartbeat only.
        gunicorn has Python write to a pipe when one arrives, for its own workers that wait.
        """
        import gevent

        self._signals = gevent.get_hub().loop.io(self.PIPE[0], _READ)
        self._signals.start(self._take_signals)

    def _take_signals(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self.PIPE[0], 4096)

    def _drain(self) -> None:
        """Wait for requests in flight, and for tunnels as long as other workers serve.

        When the whole server stops, tunnels would keep everybody out for as long as one is
        open: they are closed with the last request. A server may begin to stop while this
        worker drains because of a reload.
        """
        stops = bool(self.segment.words[STOPPING])
        if stops:
            self.server.give_up_heads()
        timeout = self.options.drain_timeout if stops else self.options.reload_drain_timeout
        deadline = time.monotonic() + timeout
        while (left := deadline - time.monotonic()) > 0:
            if not stops and self.segment.words[STOPPING]:
                stops = True
                self.server.give_up_heads()
                deadline = min(deadline, time.monotonic() + self.options.drain_timeout)
                continue
            self._beat()
            if self.server.join(min(_DRAIN_LOOK, left), tunnels=not stops) and (
                self.redirect is None or self.redirect.join(min(_DRAIN_LOOK, left))
            ):
                break

    def _log_what_is_cut_off(self) -> None:
        tunnels = len(self.server.tunnels)
        if tunnels and self.segment.words[STOPPING] and not self.server.open_connections:
            log.info("%d WebSockets closed, since the server stops", tunnels)
        elif self.server.busy:
            log.warning("%d connections cut off after the drain timeout", self.server.busy)

    def init_signals(self) -> None:
        """Ignore what means something to the arbiter only, and ends who does not know it.

        A whole group gets it when a terminal is closed, or from ``kill -HUP -- -PGID``.
        """
        with held_signals(_OF_ARBITER):
            # For a moment, gunicorn has them end the process.
            super().init_signals()
            for number in _OF_ARBITER:
                signal.signal(number, signal.SIG_IGN)

    def handle_quit(self, signal_number: int, frame: Any) -> None:
        """Leave at once (SIGINT, SIGQUIT); the kernel closes what is open."""
        logs.finish()
        os._exit(0)

    def handle_exit(self, signal_number: int, frame: Any) -> None:
        """Stop, and not at the next heartbeat only (SIGTERM)."""
        import gevent

        super().handle_exit(signal_number, frame)
        if self._stopping is not None:
            # A signal may come at any point of the program.
            gevent.get_hub().loop.run_callback_threadsafe(self._stopping.set)

    def handle_usr1(self, signal_number: int, frame: Any) -> None:
        """Open the access log anew (SIGUSR1)."""
        if self.access is not None:
            self.access.reopen()

    def _beat(self) -> None:
        self.notify()
        logs.tell_losses()
        if self.access is not None:
            self.access.look_after(time.monotonic())
        self.events.look_around()
        self.live_tls.look()
        if self.segment.words[GENERATION] != self.subscriber.generation:
            self.subscriber.catch_up()
        self.upstream.close_idle(time.monotonic())
        self.beats += 1
        if self.beats % TRIM_BEATS == 0:
            allocator.give_back()
