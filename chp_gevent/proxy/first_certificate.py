"""Handshakes that come before the first certificate wait for it.

Imported after monkey patching only.
"""

from __future__ import annotations

import json
import logging
import ssl
import time
from collections.abc import Callable
from typing import Final

import gevent

from chp_gevent.config.acme_options import AcmeOptions
from chp_gevent.http.tls_stream import TLSStream

PATIENCE: Final = 6.0
"""Seconds that a handshake waits."""

# Seconds between two looks whether the certificate is there, and between two lines of the log.
_LOOK_INTERVAL = 0.1
_LOG_INTERVAL = 30.0


class NoCertificate(ConnectionError):
    """There is no certificate yet."""


class FirstCertificate:
    """Holds back handshakes until there is a certificate.

    Args:
        acme: where it comes from.
        look: makes this process look whether it is there; see ``LiveTls``.
        log: the proxy's logger.
    """

    def __init__(self, acme: AcmeOptions, look: Callable[[], None], log: logging.Logger) -> None:
        self._acme = acme
        self._look = look
        self._log = log
        self._arrived: ssl.SSLContext | None = None
        self._log_at = self._look_at = float("-inf")

    def passed_to(self, use: Callable[[ssl.SSLContext], None]) -> Callable[[ssl.SSLContext], None]:
        """Return what is to be called with each new context: ``use``, and this takes note of it."""

        def take(context: ssl.SSLContext) -> None:
            use(context)
            self._arrived = context

        return take

    def __call__(self, stream: TLSStream) -> None:
        """Wait before the handshake of a stream. Raises ``NoCertificate``."""
        if self._arrived is not None:
            return
        deadline = time.monotonic() + PATIENCE
        while (arrived := self._arrived) is None:
            now = time.monotonic()
            if now > deadline:
                self._complain(now)
                raise NoCertificate(0, "there is no certificate yet")
            if now >= self._look_at:
                self._look_at = now + _LOOK_INTERVAL
                self._look()
            if self._arrived is None:
                gevent.sleep(_LOOK_INTERVAL)
        # The stream was made with the context of before.
        stream.use(arrived)

    def _complain(self, now: float) -> None:
        if now >= self._log_at:
            self._log_at = now + _LOG_INTERVAL
            self._log.warning(
                "TLS handshakes fail, since there is no certificate for %s yet: %s",
                self._acme.names,
                self._reason(),
            )

    def _reason(self) -> str:
        """Return what has become of the last attempt to get one."""
        try:
            with open(self._acme.state, encoding="utf-8") as file:
                return str(json.load(file)["error"] or "it is being asked for")
        except (OSError, ValueError, KeyError, TypeError):
            return "it is being asked for"
