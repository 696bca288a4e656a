"""Options: timeouts."""

from __future__ import annotations

from typing import Final

from chp_gevent.config.option import Option
from chp_gevent.config.readers import milliseconds

TITLE: Final = "Timeouts (milliseconds)"

TIMEOUT = Option(
    "--timeout",
    milliseconds,
    metavar="N",
    help="Drop a client connection that is silent during a request (default: never).",
    shown_default="never",
    meaning=(
        "Milliseconds after which a client that is silent during a request is disconnected. 0 "
        "is never."
    ),
    since="4.2",
)

PROXY_TIMEOUT = Option(
    "--proxy-timeout",
    milliseconds,
    metavar="N",
    help="Answer 503 when a target is silent (default: never).",
    shown_default="never",
    meaning="Milliseconds after which a silent target is a 503. 0 is never.",
    since="2.0",
)

KEEP_ALIVE_TIMEOUT = Option(
    "--keep-alive-timeout",
    milliseconds,
    metavar="N",
    default="5000",
    help="Close a client connection without requests.",
    meaning=(
        "Milliseconds after which a client connection without requests is closed. 0 is the default."
    ),
    since="4.6",
)
