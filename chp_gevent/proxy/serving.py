"""How a worker serves clients: its server's settings, its accounts, its fair share."""

from __future__ import annotations

import logging
import resource
import sys
from collections.abc import Sequence

from chp_gevent.channel.segment import ACCEPTING, OPEN_CONNECTIONS, STATUS
from chp_gevent.http.hooks import ServerHooks
from chp_gevent.http.peer import Peer
from chp_gevent.http.section import WireError
from chp_gevent.http.settings import ServerSettings
from chp_gevent.http.wire import RequestHead
from chp_gevent.options import Options
from chp_gevent.proxy.fairness import FairShare
from chp_gevent.tls import server_context

# Descriptors that are not connections: listeners, event loop, journal, log, resolver …
_OTHER_DESCRIPTORS = 48


def server_settings(options: Options) -> ServerSettings:
    """Return the settings of a worker's server. Raises ``OptionError`` (TLS files)."""
    proxy = options.proxy
    return ServerSettings(
        limits=proxy.limits,
        max_connections=min(options.worker_connections, _room_for_connections()),
        idle_timeout=proxy.keep_alive_timeout,
        client_timeout=proxy.timeout,
        application_timeout=proxy.proxy_timeout,
        tls=server_context(options.tls) if options.tls is not None else None,
        trusted_proxies=proxy.trusted_proxies,
        multiprocess=options.workers > 1,
        server_name=getattr(options.listen, "ip", "") or "localhost",
        server_port=str(getattr(options.listen, "port", "")),
    )


def _room_for_connections() -> int:
    """Return how many connections the limit of open files leaves room for.

    Each may need a second descriptor, for its target; some are for other things.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return sys.maxsize
    return max(1, (limit - _OTHER_DESCRIPTORS) // 2)


class WorkerHooks(ServerHooks):
    """Keeps the account of a worker's connections in its row, and looks at those of others.

    ``row`` is the worker's row in the segment, ``others`` those of the other workers.
    """

    def __init__(self, row: memoryview[int], others: Sequence[memoryview[int]]) -> None:
        super().__init__("proxy", logging.getLogger("chp_gevent.proxy"))
        self.shares_sockets = bool(others)
        self._row = row
        self._share = FairShare(row, others)

    def on_connections(self, count: int) -> None:
        """See ``ServerHooks``."""
        self._row[OPEN_CONNECTIONS] = count

    def on_accepting(self, accepting: bool) -> None:
        """See ``ServerHooks``."""
        self._row[ACCEPTING] = accepting

    def pause_before_accepting(self, full: bool) -> float:
        """See ``ServerHooks``."""
        return self._share.pause(full)

    def on_refused(self, peer: Peer, head: RequestHead | None, error: WireError) -> None:
        """See ``ServerHooks``."""
        self._row[STATUS + error.status] += 1
        super().on_refused(peer, head, error)
