"""What systemd's journal expects of those who write to it (sd-daemon(3), systemd.exec(5))."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping, MutableMapping
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
# Where systemd waits to hear of the server.
_NOTIFY_SOCKET = "NOTIFY_SOCKET"


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


class Notifier:
    """Tells systemd what state the server is in (``Type=notify``, sd_notify(3)).

    Takes the address of systemd out of the environment: gunicorn would say that the server is
    ready before anything is served.

    Args:
        environ: the environment, which may have the address.
        log: for what goes wrong.
    """

    def __init__(self, environ: MutableMapping[str, str], log: logging.Logger) -> None:
        self._address = environ.pop(_NOTIFY_SOCKET, None)
        self._environ = environ
        self._log = log

    @property
    def variables(self) -> dict[str, str]:
        """What the environment had of it."""
        return {} if self._address is None else {_NOTIFY_SOCKET: self._address}

    def tell(self, *assignments: str) -> None:
        """Send assignments such as ``READY=1``, if systemd has started the server."""
        if self._address is not None:
            from gunicorn.systemd import sd_notify

            self._environ.update(self.variables)
            sd_notify("\n".join(assignments), self._log, unset_environment=True)

    def tell_reloading(self) -> None:
        """Say that a reload has begun; ``READY=1`` ends it (``Type=notify-reload``)."""
        self.tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")


def error_line(text: str) -> str:
    """Return a line for standard error, as an error if that is the journal."""
    return PRIORITIES[logging.ERROR] + text if is_journal(_STDERR) else text
