"""What a server tells its owner."""

from __future__ import annotations

import logging
import ssl

from gevent import GreenletExit

from chp_gevent.http.errors import WireError
from chp_gevent.http.h1.heads import RequestHead
from chp_gevent.http.peer import Peer
from chp_gevent.runtime.tls_errors import describe_failure
from chp_gevent.runtime.tracebacks import log_traceback


class ServerEvents:
    """What a server asks its owner and tells him; this one only writes the log.

    Args:
        name: what the log calls the server.
        log: its logger.

    Attributes:
        shares_sockets: whether other processes accept from the same sockets.
    """

    shares_sockets = False

    def __init__(self, name: str, log: logging.Logger) -> None:
        self.name = name
        self.log = log

    def on_connections(self, count: int) -> None:
        """Take note of how many connections are open."""

    def on_accepting(self, accepting: bool) -> None:
        """Take note that the server accepts connections from now on, or never again."""

    def pause_before_accepting(self, full: bool) -> float:
        """Return for how many seconds to leave what arrives to processes that share the sockets.

        Asked before each connection is accepted, if ``shares_sockets``. ``full`` says whether
        another connection would have to be closed for it.
        """
        return 0.0

    def on_refused(self, peer: Peer, head: RequestHead | None, error: WireError) -> None:
        """Take note of a request that is refused; ``head`` is None if it is what was wrong."""
        self.log.warning("%s refused a request from %s: %s", error.status, peer, error)

    def on_crash(self, head: RequestHead | None, error: BaseException) -> None:
        """Take note of an error that is nobody's fault but the application's (or ours)."""
        if isinstance(error, GreenletExit):
            return
        request = f"{head.method} {head.target.partition('?')[0]}" if head else "a connection"
        reason = f"{type(error).__name__}: {error}"
        self.log.error("Error in handler for %s: %s", request, reason)
        log_traceback(self.log, error)

    def on_handshake(self, resumed: bool) -> None:
        """Take note of a connection on which TLS was agreed upon."""

    def on_handshake_failed(self, peer: Peer, error: OSError) -> None:
        """Take note of a connection on which TLS was not agreed upon."""
        # Who connects and leaves at once, as health checks do, is no reason for a warning.
        gone = isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError | ConnectionError)
        self.log.log(
            logging.DEBUG if gone else logging.WARNING,
            "TLS handshake of %s with the %s failed: %s",
            peer,
            self.name,
            describe_failure(error),
        )

    def on_full(self, made_room: bool) -> None:
        """Take note that the server has all the connections it may have; called once a minute.

        ``made_room`` says whether a silent one could be closed for one that waits.
        """
        consequence = "silent ones are closed to take others" if made_room else "others wait"
        self.log.warning("The %s has as many connections as it may: %s", self.name, consequence)

    def on_accept_failed(self, error: OSError) -> None:
        """Take note that there are no descriptors for connections; called once a minute."""
        self.log.error(
            "The %s can't accept connections: %s; raise the limit of open files", self.name, error
        )
