"""What systemd's journal expects of those who write to it (sd-daemon(3), systemd.exec(5))."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Final

PRIORITIES: Final = {
    logging.DEBUG: "<7>",
    logging.INFO: "<6>",
    logging.WARNING: "<4>",
    logging.ERROR: "<3>",
    logging.CRITICAL: "<2>",
}
"""What a line begins with to have its priority in the journal; without it, it is information."""

_STDERR = 2


def is_journal(descriptor: int, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether a descriptor is a stream to the journal.

    ``JOURNAL_STREAM`` is inherited by programs whose output goes elsewhere: it names the stream by
    device and inode, so that they can tell.
    """
    named = environ.get("JOURNAL_STREAM")
    if not named:
        return False
    try:
        status = os.fstat(descriptor)
    except OSError:
        return False
    return named == f"{status.st_dev}:{status.st_ino}"


def error_line(text: str) -> str:
    """Return a line for standard error, as an error if that is the journal."""
    return PRIORITIES[logging.ERROR] + text if is_journal(_STDERR) else text
