"""What the management process does from its start to its end.

Imported after monkey patching only.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import gevent
from gevent.event import Event

from chp_gevent.config.acme_options import AcmeOptions
from chp_gevent.config.live_tls import LiveTls
from chp_gevent.config.tls_parts import API
from chp_gevent.http.server import HTTPServer
from chp_gevent.management.api import Api
from chp_gevent.management.context import ManagementContext, leave
from chp_gevent.management.counters import take_management_row
from chp_gevent.management.foreign_pages import own_names
from chp_gevent.management.management_server import ManagementEvents, WholeBodies, server_settings
from chp_gevent.management.metrics import Metrics, MetricsApp
from chp_gevent.management.routes import InvalidRoute, Routes, StoreWriteError
from chp_gevent.management.shared_table import PublishedTable
from chp_gevent.management.statsd import StatsdReporter
from chp_gevent.runtime import logs
from chp_gevent.runtime.event_loop_errors import look_after
from chp_gevent.runtime.tracebacks import log_traceback
from chp_gevent.shared.publisher import Publisher, RouteLimitReached
from chp_gevent.shared.segment import (
    CURRENT_UNTIL,
    FOR_EVER,
    HEARTBEAT,
    OPEN_CONNECTIONS,
    STARTS,
    STOPPING,
    TABLE_LOADED,
)
from chp_gevent.stores import (
    SharedStore,
    Store,
    StoreSetupError,
    StoreUnavailable,
    open_shared_store,
    open_store,
)

if TYPE_CHECKING:
    from chp_gevent.acme.keeper import CertificateKeeper

DRAIN_TIMEOUT: Final = 5.0
"""Seconds that calls in flight have to finish when the server stops."""

REPLACED_TIMEOUT: Final = 0.7
"""The same when another management process waits to take over, and clients for it."""

# Seconds between two looks at the clock and the arbiter, two packets to statsd, and two calls
# of a storage backend's save_activity.
TICK_INTERVAL: Final = 1.0
STATSD_INTERVAL: Final = 1.0
ACTIVITY_INTERVAL: Final = 10.0


class ManagementService:
    """The management process's parts, put together.

    Args:
        context: what the arbiter gave it.
    """

    def __init__(self, context: ManagementContext) -> None:
        self._context = context
        self._options = context.options
        self._log = context.log
        self._segment = context.segment
        self._stopping = Event()
        self._servers: list[HTTPServer] = []
        self._activity_failed = False
        self._live_tls: LiveTls | None = None
        self._keeper: CertificateKeeper | None = None

    def run(self) -> int:
        """Serve until SIGTERM has been obeyed; return the exit status.

        SIGINT, SIGQUIT and the end of the arbiter end the process from within.
        """
        look_after(gevent.get_hub(), self._log)
        self._watch_signals()
        self._row = take_management_row(self._segment)
        self._restarted = self._row[STARTS] > 1
        routines = [gevent.spawn(self._repeat, TICK_INTERVAL, self._tick)]
        try:
            self._routes = self._take_over_routes()
        except (StoreSetupError, StoreWriteError, StoreUnavailable) as error:
            self._log.error("%s", error)
            return os.EX_CONFIG
        options = self._options.statsd
        self._statsd = StatsdReporter(options, self._segment, self._log) if options else None
        if self._options.acme is not None:
            self._keeper = self._certificate_keeper(self._options.acme)
        self._serve()
        routines += self._start_reporting()
        self._report_ready()
        self._stopping.wait()
        gevent.killall(routines)
        self._stop()
        return os.EX_OK

    # -- the routing table

    def _take_over_routes(self) -> Routes:
        """Return the table: as a predecessor left it, or as the server starts with it."""
        publisher = Publisher(self._segment, self._context.journal)
        recovered = publisher.recover()
        published_before = publisher.generation > 0
        shared = self._open_shared_store()
        routes = Routes(
            publisher,
            self._segment.activity,
            self._log,
            host_routing=self._options.proxy.host_routing,
            store=None if shared else self._open_store(),
            shared=shared,
        )
        if self._restarted:
            self._log.info("The management process is back, with %d routes", recovered)
        if shared is not None and self._options.shared_store is not None:
            shared.start(PublishedTable(publisher, self._segment, self._log))
            if not published_before:
                shared.wait_until_loaded(self._options.shared_store.start_timeout)
        try:
            routes.load()
        except StoreWriteError as error:
            if not published_before:
                raise
            self._log.error("%s; going on with the routes there are", error)
        if shared is None:
            self._segment.words[TABLE_LOADED] = 1
            self._segment.words[CURRENT_UNTIL] = FOR_EVER
        # A default route that was deleted since the server started stays so.
        if not published_before and self._options.default_target is not None:
            self._add_default_route(routes, self._options.default_target)
        return routes

    def _open_shared_store(self) -> SharedStore | None:
        options = self._options.shared_store
        return open_shared_store(options, self._segment.words, self._log) if options else None

    def _open_store(self) -> Store | None:
        backend = self._options.storage_backend
        return open_store(backend, self._options) if backend else None

    def _add_default_route(self, routes: Routes, target: str) -> None:
        try:
            routes.add_default(target)
        except (InvalidRoute, RouteLimitReached, OSError, StoreWriteError) as error:
            self._log.error("--default-target: %s", error)

    # -- servers

    def _serve(self) -> None:
        sockets = self._context.sockets
        if sockets.get("api"):
            self._servers.append(self._api_server(sockets["api"]))
        if sockets.get("metrics"):
            self._servers.append(self._metrics_server(sockets["metrics"]))
        for server in self._servers:
            server.start()

    def _api_server(self, listeners: list[socket.socket]) -> HTTPServer:
        options = self._options
        names = own_names(listeners, options.api)
        api = Api(
            self._routes, options.auth_token, self._segment.words, self._row, self._log, names
        )
        tls = self._context.tls.contexts.api
        events = ManagementEvents("API", self._log, self._row)
        settings = server_settings(listeners, tls.context if tls is not None else None)
        server = HTTPServer(WholeBodies(api), settings, listeners, events)
        if tls is not None:
            self._live_tls = LiveTls(options, self._context.tls, {API: server.use_tls})
        return server

    def _metrics_server(self, listeners: list[socket.socket]) -> HTTPServer:
        metrics = Metrics(
            self._segment,
            self._routes.__len__,
            self._context.parent_pid,
            self._keeper,
            self._routes.store_figures,
        )
        events = ManagementEvents("metrics server", self._log)
        return HTTPServer(MetricsApp(metrics), server_settings(listeners), listeners, events)

    def _report_ready(self) -> None:
        ready_fd = self._context.ready_fd
        if ready_fd is not None:
            # An arbiter that no longer listens is gone, which the next tick will notice.
            with contextlib.suppress(OSError):
                os.write(ready_fd, b"1")
            os.close(ready_fd)

    # -- what comes again and again

    def _start_reporting(self) -> list[Any]:
        """Start telling others what happens; one greenlet each, so that none waits for another."""
        routines: list[Any] = []
        if self._statsd is not None:
            routines.append(gevent.spawn(self._repeat, STATSD_INTERVAL, self._flush_statsd))
        if self._routes.saves_activity:
            routines.append(gevent.spawn(self._repeat, ACTIVITY_INTERVAL, self._save_activity))
        if self._keeper is not None:
            routines.append(gevent.spawn(self._keeper.run))
        return routines

    def _repeat(self, interval: float, action: Callable[[], None]) -> None:
        while True:
            gevent.sleep(interval)
            try:
                action()
            except Exception as error:
                self._log.error("Housekeeping failed: %s: %s", type(error).__name__, error)
                log_traceback(self._log, error)

    def _certificate_keeper(self, options: AcmeOptions) -> CertificateKeeper:
        # Needs an extra, and takes memory: nobody else loads it.
        from chp_gevent.acme.keeper import CertificateKeeper

        return CertificateKeeper(options, self._log)

    def _tick(self) -> None:
        if os.getppid() != self._context.parent_pid:
            leave(os.EX_OK)
        self._segment.words[HEARTBEAT] = int(time.monotonic() * 1000)
        logs.tell_losses()
        if self._live_tls is not None:
            self._live_tls.look()
        self._row[OPEN_CONNECTIONS] = sum(server.open_connections for server in self._servers)

    def _flush_statsd(self) -> None:
        if self._statsd is not None:
            self._statsd.flush(time.monotonic())

    def _save_activity(self) -> None:
        try:
            self._routes.save_activity()
            self._activity_failed = False
        except StoreWriteError as error:
            if not self._activity_failed:
                self._activity_failed = True
                self._log.error("Can't save the activity of routes: %s", error)

    # -- the end

    def _watch_signals(self) -> None:
        gevent.signal_handler(signal.SIGTERM, self._stopping.set)
        gevent.signal_handler(signal.SIGINT, leave, os.EX_OK)
        gevent.signal_handler(signal.SIGQUIT, leave, os.EX_OK)

    def _stop(self) -> None:
        try:
            for server in self._servers:
                server.drain()
                server.give_up_heads()
            stops = self._segment.words[STOPPING]
            timeout = DRAIN_TIMEOUT if stops else REPLACED_TIMEOUT
            gevent.joinall([gevent.spawn(each.join, timeout) for each in self._servers])
            self._flush_statsd()
            self._save_activity()
            self._routes.close_store(for_good=bool(stops))
        except StoreWriteError as error:
            self._log.error("%s", error)
