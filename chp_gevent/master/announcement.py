"""What the log says of a server that is ready: CHP's lines."""

from __future__ import annotations

import logging
import socket
from collections.abc import Sequence

from chp_gevent.config.options import Options
from chp_gevent.master.listeners import described

log = logging.getLogger("chp_gevent.server")


def announce(options: Options, redirect_sockets: Sequence[socket.socket]) -> None:
    """Say where the server listens."""
    if options.redirect is not None:
        port = redirect_sockets[0].getsockname()[1]
        log.info("Added HTTP to HTTPS redirection from %s to %s", port, options.redirect.to_port)
    scheme = "https" if options.tls else "http"
    default = options.default_target or "(no default)"
    log.info("Proxying %s://%s to %s", scheme, described(options.listen), default)
    scheme = "https" if options.api_tls else "http"
    log.info("Proxy API at %s://%s/api/routes", scheme, described(options.api))
    if options.metrics is not None:
        log.info("Serve metrics at http://%s/metrics", described(options.metrics))
