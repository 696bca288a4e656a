"""Options: processes and limits."""

from __future__ import annotations

from typing import Final

from chp_gevent.config.option import Option
from chp_gevent.config.readers import required, seconds, whole

_MAX_WORKERS: Final = 256
# Seconds. The kernel gives up connecting after 127; more is a number of milliseconds.
_MAX_CONNECT_TIMEOUT: Final = 300.0

TITLE: Final = "Processes and limits"

WORKERS = Option(
    "--workers",
    whole(1, _MAX_WORKERS),
    metavar="N",
    help="Proxy processes (default: usable CPUs, at most 8).",
    shown_default="usable CPUs, at most 8",
    meaning=(
        "Number of proxy processes, 256 at most. Usable are those of the affinity (`taskset`, "
        "cpusets), or fewer if a control group has a smaller quota (`docker --cpus`, "
        "`CPUQuota=`): a started CPU counts."
    ),
    since="ours",
    difference="CHP has one.",
)

DRAIN_TIMEOUT = Option(
    "--drain-timeout",
    required(seconds(0)),
    metavar="SECONDS",
    default="30",
    help=(
        "Time for requests to finish when the server stops; tunnels are closed with the last "
        "request."
    ),
    meaning=(
        "Time that requests have to finish when the server stops. WebSockets, which never end "
        "by themselves, are closed with the last request."
    ),
    since="ours",
    difference="CHP cuts them off.",
)

RELOAD_DRAIN_TIMEOUT = Option(
    "--reload-drain-timeout",
    required(seconds(0, 30 * 86_400)),
    metavar="SECONDS",
    default="86400",
    help="Time for requests and tunnels of workers that are replaced.",
    meaning=(
        "Time that requests and WebSockets have on a worker that is being replaced (`SIGHUP`, "
        "`--max-requests`); new workers serve meanwhile."
    ),
    since="ours",
)

MAX_DRAINING = Option(
    "--max-draining",
    required(whole(1, 100)),
    metavar="N",
    default="8",
    help=(
        "Times --workers: the most that may drain; beyond, those that have drained for longest "
        "are cut off."
    ),
    meaning=(
        "At most N × `--workers` workers drain; beyond that, those that have drained for "
        "longest are ended."
    ),
    since="ours",
)

MAX_REQUESTS = Option(
    "--max-requests",
    required(whole(0, 10**9)),
    metavar="N",
    default="0",
    help="Replace a worker after this many; 0 is never.",
    meaning="A worker is replaced after this many requests; 0 is never.",
    since="ours",
)

WORKER_CONNECTIONS = Option(
    "--worker-connections",
    required(whole(1, 1_000_000)),
    metavar="N",
    default="10000",
    help="Open client connections per worker.",
    meaning=(
        "Open client connections per worker, WebSockets included. For more, those that have "
        "been silent for longest are closed, but none that is being answered."
    ),
    since="ours",
    difference="CHP has no limit.",
)

BACKLOG = Option(
    "--backlog",
    required(whole(1, 65535)),
    metavar="N",
    default="2048",
    help="Connections waiting to be accepted.",
    meaning="Connections that wait to be accepted; the kernel's `net.core.somaxconn` is the limit.",
    since="ours",
    difference="CHP: 511.",
)

MAX_REQUEST_LINE = Option(
    "--max-request-line",
    required(whole(256, 2**20)),
    metavar="BYTES",
    default="16384",
    help="Longer ones are answered 414.",
    meaning="A longer request line is answered 414.",
    since="ours",
    difference="Node has one limit for both: see the next one.",
)

MAX_HEADER_SIZE = Option(
    "--max-header-size",
    required(whole(256, 2**24)),
    metavar="BYTES",
    default="65536",
    help="Larger header sections are answered 431.",
    meaning="A larger header section is answered 431.",
    since="ours",
    difference="Node: 16 KiB, with the request line.",
)

MAX_HEADERS = Option(
    "--max-headers",
    required(whole(1, 10_000)),
    metavar="N",
    default="128",
    help="More header fields are answered 431.",
    meaning="More header fields are answered 431.",
    since="ours",
    difference="Node drops all after 2000 in silence.",
)

HEADER_TIMEOUT = Option(
    "--header-timeout",
    required(seconds(0.1)),
    metavar="SECONDS",
    default="60",
    help="Time to receive a header section, else 408.",
    meaning="A header section that takes longer to arrive is answered 408.",
    since="ours",
    difference="The same in Node.",
)

BODY_TIMEOUT = Option(
    "--body-timeout",
    required(seconds(0)),
    metavar="SECONDS",
    default="300",
    help=(
        "Give up a client that sends nothing more of a body, or takes nothing more of an "
        "answer; 0 is never."
    ),
    meaning=(
        "A client that sends nothing more of a body for so long is answered 408; one that takes "
        "nothing more of its answer (or sends nothing while it is being answered) is "
        "disconnected. It counts from the last byte: what moves, however slowly, is never cut "
        "off. 0 is never."
    ),
    since="ours",
    difference=(
        "Node gives the whole request 300 s, and waits for ever for a client that does not read."
    ),
)

CONNECT_TIMEOUT = Option(
    "--connect-timeout",
    required(seconds(0.1, _MAX_CONNECT_TIMEOUT)),
    metavar="SECONDS",
    default="10",
    help="Time to connect to a target, its name and TLS included, else 503.",
    meaning=(
        "Time to connect to a target, with the look-up of its name and the TLS handshake; "
        "longer is a 503. 300 at most. [Why 10](#connecting-to-targets)."
    ),
    since="ours",
    difference="CHP waits for the kernel's limit (127 s), and for ever in a handshake.",
)
