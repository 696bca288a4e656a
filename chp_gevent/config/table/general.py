"""Options: general."""

from __future__ import annotations

from typing import Final

from chp_gevent.config.option import Option
from chp_gevent.config.readers import parsed, required, switch, text
from chp_gevent.config.values import log_format, log_level

TITLE: Final = "General"

HELP = Option(
    "--help",
    switch,
    alias="-h",
    help="Show this text.",
    meaning="Show the options.",
    since="0.0",
)

VERSION = Option(
    "--version",
    switch,
    alias="-V",
    help="Show the version.",
    meaning="Show the version.",
    since="0.0",
    difference="That of chp-gevent.",
)

LOG_LEVEL = Option(
    "--log-level",
    required(parsed(log_level)),
    metavar="LEVEL",
    default="info",
    help="debug, info, warn or error.",
    meaning="`debug`, `info`, `warn` or `error`, in any case.",
    since="0.0",
    difference=(
        "Other levels of CHP's logger are taken as the next one that we have; anything else is "
        "an error (CHP then logs nothing)."
    ),
)

LOG_FORMAT = Option(
    "--log-format",
    required(parsed(log_format)),
    metavar="FORMAT",
    default="chp",
    help="chp (lines as CHP's) or json (an object a line).",
    meaning=(
        "`chp`: lines as those of CHP 5.3. `json`: one object a line. [What is in "
        "them](operations.md#the-log)."
    ),
    since="ours",
)

ACCESS_LOG = Option(
    "--access-log",
    text,
    metavar="FILE",
    help=(
        "Write a line for each request to this file, or - for the log's output (default: no "
        "access log)."
    ),
    shown_default="none",
    meaning=(
        "Write a line for each request to this file, or with `-` to where the log goes. [More "
        "on it](operations.md#the-access-log)."
    ),
    since="ours",
    difference="CHP has none.",
)

PID_FILE = Option(
    "--pid-file",
    text,
    metavar="FILE",
    help="Write the process id to this file while serving.",
    meaning=(
        "The process id is written here before the server says that it is ready, and the file "
        "removed at the end."
    ),
    since="1.3",
    difference="Whoever finds the file finds the whole id in it: it is renamed into its place.",
)
