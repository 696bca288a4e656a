"""What tests of any part may ask for: a logger, and the lines that it wrote."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from chp_gevent.runtime.logs import LineHandler
from tests.kit.counted import is_counted

# A busy machine is no reason to fail.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")

# A shell has what it starts in the background ignore it, and so would the programs that tests end
# by it, a hub's among them.
signal.signal(signal.SIGINT, signal.default_int_handler)

LONGEST = (
    "acme shared_failovers certificates crashes new_versions_refused arbiter_endures new_versions "
    "provision packaging keeper shared_losses shared_routes jupyter_kernel start process "
    "supervision jupyterhub_variants real_clients"
).split()
"""Test files that take long and wait most of the time, the longest first, without ``test_``."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have the longest files begun first: the last one would have nobody beside it."""
    order = {f"test_{name}": number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.stem, len(order)))


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let scripts/test run each file once: with branches counted, or without."""
    parser.addoption(
        "--counted",
        choices=("only", "not"),
        help="only the test files in which scripts/test counts branches, or only the others",
    )


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out the files that ``--counted`` does not ask for."""
    wanted = config.getoption("--counted")
    if wanted is None or not collection_path.match("test_*.py"):
        return None
    return is_counted(collection_path) != (wanted == "only") or None


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
