"""What tests of any part may ask for: a logger, and the lines that it wrote."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from chp_gevent.runtime.logs import LineHandler

# A busy machine is no reason to fail.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")


class Lines(LineHandler):
    """Keeps what is logged, as the server would print it, without the time."""

    def __init__(self) -> None:
        super().__init__(-1)
        self.lines: list[str] = []

    def handle(self, record: logging.LogRecord) -> bool:
        self.lines.append(self.line(record).split("[ConfigProxy] ", 1)[1])
        return True


@pytest.fixture
def log() -> Iterator[logging.Logger]:
    """A logger of its own, at the default level."""
    logger = logging.Logger("test", logging.INFO)
    yield logger
    logger.handlers.clear()


@pytest.fixture
def lines(log: logging.Logger) -> list[str]:
    """The lines logged by ``log``."""
    handler = Lines()
    log.addHandler(handler)
    return handler.lines
