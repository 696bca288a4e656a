"""What the management process is given, and how it is left.

Imported before gevent patches anything, as ``main`` is.
"""

from __future__ import annotations

import logging
import os
import socket
from dataclasses import dataclass
from typing import NoReturn

from chp_gevent.config.live_tls import SharedTls
from chp_gevent.config.options import Options
from chp_gevent.runtime import logs
from chp_gevent.shared.journal import Journal
from chp_gevent.shared.segment import Segment


@dataclass
class ManagementContext:
    """What the arbiter gives its management process.

    Attributes:
        options: the options of the server.
        tls: the contexts that the arbiter built from them, and what it renews them with.
        segment: the shared segment; its last row is the management process's.
        journal: the journal on that segment.
        sockets: listening sockets by ``api`` and ``metrics``.
        log: the server's logger.
        ready_fd: a descriptor that gets one byte when the API is served, and is closed then.
        parent_pid: the arbiter's process id.
    """

    options: Options
    tls: SharedTls
    segment: Segment
    journal: Journal
    sockets: dict[str, list[socket.socket]]
    log: logging.Logger
    ready_fd: int | None
    parent_pid: int


def leave(status: int) -> NoReturn:
    """End the process at once, its last lines written, without the arbiter's exit handlers."""
    logs.finish()
    os._exit(status)
