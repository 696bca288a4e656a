"""Options: one table for several servers."""

from __future__ import annotations

from typing import Final

from chp_gevent.config import storage_options
from chp_gevent.config.option import Option
from chp_gevent.config.readers import parsed, required, seconds, text, whole

TITLE: Final = "Routes that several servers share (needs pip install 'chp-gevent[redis]')"

STORAGE_PREFIX = Option(
    "--storage-prefix",
    required(parsed(storage_options.prefix)),
    metavar="NAME",
    default="chp",
    help="What the keys in Redis begin with; servers of another hub have another one.",
    meaning=(
        "What the keys in Redis begin with. Servers of one hub have the same, those of another hub "
        "another one: JupyterHub deletes routes that it does not know."
    ),
    since="ours",
    difference="CHP has none of this.",
)

STORAGE_LEASE = Option(
    "--storage-lease",
    required(seconds(2, 60)),
    metavar="SECONDS",
    default="5",
    help="How long a change waits for a server that has gone silent; the same for all servers.",
    meaning=(
        "For how many seconds (2 to 60) a change waits for a server that has gone silent. After "
        "three fifths of it without Redis, a server no longer calls itself current. All servers "
        "have the same."
    ),
    since="ours",
)

STORAGE_WAIT = Option(
    "--storage-wait",
    required(whole(0, 100)),
    metavar="N",
    default="0",
    help="How many replicas of Redis must have a change before it is answered.",
    meaning=(
        "How many replicas of Redis must have a change before it is answered (`WAIT`); with fewer, "
        "the answer is 503."
    ),
    since="ours",
)

STORAGE_START_TIMEOUT = Option(
    "--storage-start-timeout",
    required(seconds(1, 3600)),
    metavar="SECONDS",
    default="30",
    help="How long to wait for Redis at the start; then the server ends.",
    meaning="For how many seconds the server waits for Redis when it starts, before it ends.",
    since="ours",
)

STORAGE_SSL_CA = Option(
    "--storage-ssl-ca",
    text,
    metavar="FILE",
    help="Authorities that the certificate of Redis is checked with.",
    shown_default="the system's",
    meaning="File with the authorities that vouch for the certificate of Redis (`rediss://`).",
    since="ours",
)

STORAGE_SSL_CERT = Option(
    "--storage-ssl-cert",
    text,
    metavar="FILE",
    help="Certificate that Redis is shown.",
    shown_default="none",
    meaning="File with the certificate that Redis is shown, if it asks for one.",
    since="ours",
)

STORAGE_SSL_KEY = Option(
    "--storage-ssl-key",
    text,
    metavar="FILE",
    help="The private key of that.",
    shown_default="none",
    meaning="File with the private key of `--storage-ssl-cert`.",
    since="ours",
)

REPLICA_NAME = Option(
    "--replica-name",
    parsed(storage_options.server_name),
    metavar="NAME",
    help="What this server is called among those that share its routes (default: the host's name).",
    shown_default="the host's name",
    meaning="What this server is called in log, metrics and Redis.",
    since="ours",
)
