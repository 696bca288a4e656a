"""A keeper of certificates in this process, and what answers the CA's challenges for it."""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest

from chp_gevent.acme.keeper import CertificateKeeper
from chp_gevent.acme.storage import Storage
from chp_gevent.config.acme_options import AcmeOptions
from chp_gevent.proxy.challenges import Challenges
from chp_gevent.proxy.redirect import Redirect
from tests.kit.pebble import MISSING, WHY_SKIPPED, Pebble, pebble

NAME = "hub.test"


class _Silent(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    """The folder of ``--acme-storage``."""
    return tmp_path / "storage"


@pytest.fixture
def http_port(storage: Path) -> Iterator[int]:
    """The port where challenges are answered."""
    app = Challenges(Redirect(443, 443), str(storage / "challenges"))

    def with_uri(environ: dict[str, Any], start_response: Any) -> Any:
        environ["RAW_URI"] = environ["PATH_INFO"]
        return app(environ, start_response)

    server = make_server("127.0.0.1", 0, with_uri, handler_class=_Silent)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def ca(tmp_path: Path, http_port: int) -> Iterator[Pebble]:
    """Let's Encrypt's server for tests."""
    if MISSING:
        pytest.skip(WHY_SKIPPED)
    with pebble(tmp_path, http_port) as ca:
        yield ca


@dataclasses.dataclass
class Kept:
    """A keeper with a clock of its own, which stands still unless it is set.

    ``start`` makes another one, as a restart does.
    """

    options: AcmeOptions
    log: logging.Logger
    now: list[float]

    def __post_init__(self) -> None:
        self._begin()

    def start(self, *domains: str) -> None:
        """Begin as another process, perhaps for other names."""
        self.keeper.close()
        if domains:
            self.options = dataclasses.replace(self.options, domains=domains)
        self._begin()

    def _begin(self) -> None:
        self.storage = Storage(self.options)
        self.keeper = CertificateKeeper(self.options, self.log, lambda: self.now[0])

    def step(self) -> float:
        """Do what is due."""
        return self.keeper.step()

    @property
    def serial(self) -> str | None:
        """The certificate in use."""
        certificate = self.storage.certificate()
        return certificate.serial if certificate is not None else None


@pytest.fixture
def kept(ca: Pebble, storage: Path, log: logging.Logger) -> Kept:
    """A keeper that asks ``ca``."""
    return keeper_for(ca.directory, ca.ca, storage, log)


def keeper_for(directory: str, ca: str, storage: Path, log: logging.Logger) -> Kept:
    """Return a keeper that asks the CA with this directory."""
    options = AcmeOptions((NAME,), directory, str(storage), ca=ca)
    return Kept(options, log, [time.time()])
