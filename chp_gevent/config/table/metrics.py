"""Options: metrics."""

from __future__ import annotations

from typing import Final

from chp_gevent.config.option import Option
from chp_gevent.config.readers import host, parsed, port, required, socket_path
from chp_gevent.config.values import statsd_prefix

TITLE: Final = "Metrics"

METRICS_IP = Option(
    "--metrics-ip",
    host,
    metavar="IP",
    help="Address or host name; all interfaces when not given or empty.",
    shown_default="all interfaces",
    meaning="Address or host name of the Prometheus metrics.",
    since="4.4",
)

METRICS_PORT = Option(
    "--metrics-port",
    port(),
    metavar="N",
    help="Port of the Prometheus metrics (default: no metrics server).",
    shown_default="no metrics",
    meaning="Port of the Prometheus metrics, at `/metrics`.",
    since="4.4",
)

METRICS_SOCKET = Option(
    "--metrics-socket",
    socket_path,
    metavar="PATH",
    help="UNIX socket, instead of an address and a port.",
    meaning="UNIX socket of the Prometheus metrics. Wins over `--metrics-ip` and `--metrics-port`.",
    since="5.2",
    difference="The two without effect are a warning.",
)

STATSD_HOST = Option(
    "--statsd-host",
    host,
    metavar="HOST",
    help="Send metrics to statsd (default: no statsd).",
    shown_default="no statsd",
    meaning="Host to send statsd metrics to.",
    since="1.2",
    difference="CHP dropped it after 4.3.2.",
)

STATSD_PORT = Option(
    "--statsd-port",
    required(port(1)),
    metavar="N",
    default="8125",
    help="UDP port.",
    meaning="UDP port of statsd.",
    since="1.2",
    difference="As before.",
)

STATSD_PREFIX = Option(
    "--statsd-prefix",
    required(parsed(statsd_prefix)),
    metavar="PREFIX",
    default="chp",
    help="What the names begin with.",
    meaning="What the names of the statsd metrics begin with.",
    since="1.2",
    difference="As before.",
)
