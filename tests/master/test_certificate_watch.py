"""Which certificates end when, and what the log says of it."""

from __future__ import annotations

import datetime
import logging
import os
from dataclasses import replace
from pathlib import Path

import pytest
import trustme

from chp_gevent.config.live_tls import SharedTls
from chp_gevent.config.options import Options, ServerTlsOptions, TcpAddress
from chp_gevent.config.tls_contexts import read_contexts
from chp_gevent.master import certificate_watch
from chp_gevent.master.certificate_watch import INTERVAL, CertificateWatch
from chp_gevent.runtime.files import read_regular
from chp_gevent.shared.segment import CERTIFICATE_ENDS_API, CERTIFICATE_ENDS_PUBLIC, Segment
from chp_gevent.shared.ticket_secrets import TicketSecrets

DAY = 86_400.0
END = datetime.datetime(2030, 1, 31, tzinfo=datetime.timezone.utc)


class Watched:
    """A watch over one certificate that ends at ``END``, ``days`` before that."""

    def __init__(self, folder: Path, days: float) -> None:
        self.days = days
        self.clock = 0.0
        self.authority = trustme.CA()
        self.tls = ServerTlsOptions(str(folder / "key.pem"), str(folder / "cert.pem"))
        self.issue(END)
        options = Options(TcpAddress("", 1), TcpAddress("", 2), tls=self.tls)
        shared = SharedTls(options, read_contexts(options), TicketSecrets())
        self.segment = Segment(rows=1, routes=1)
        self.watch = CertificateWatch(
            options,
            shared,
            self.segment,
            clock=lambda: self.clock,
            now=lambda: END.timestamp() - self.days * DAY,
        )

    def issue(self, end: datetime.datetime) -> None:
        issued = self.authority.issue_cert("proxy.example", not_after=end)
        assert self.tls.key is not None
        assert self.tls.cert is not None
        Path(self.tls.key).write_bytes(issued.private_key_pem.bytes())
        Path(self.tls.cert).write_bytes(issued.cert_chain_pems[0].bytes())

    def look(self) -> None:
        self.clock += INTERVAL
        self.watch.look()


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    log = logging.getLogger("chp_gevent.server")
    lines: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(f"{record.levelname.lower()}: {record.getMessage()}")

    monkeypatch.setattr(log, "handlers", [Handler()])
    monkeypatch.setattr(log, "propagate", False)
    monkeypatch.setattr(log, "level", logging.INFO)
    monkeypatch.setattr(log, "disabled", False)
    return lines


def test_the_log_warns_twice_and_then_says_that_it_has_ended(
    tmp_path: Path, said: list[str]
) -> None:
    watched = Watched(tmp_path, days=14.5)
    watched.look()
    assert said == []
    for days in (13.9, 10, 3.1, 2.9, 2, 1):
        watched.days = days
        watched.look()
    assert said == [
        "warning: --ssl-cert: the certificate ends in 13.9 days",
        "warning: --ssl-cert: the certificate ends in 2.9 days",
    ]
    watched.days = -0.1
    watched.look()
    watched.look()
    assert said[2:] == ["error: --ssl-cert: the certificate has ended"]


def test_one_that_is_about_to_end_is_said_at_the_start(tmp_path: Path, said: list[str]) -> None:
    Watched(tmp_path, days=2.5)
    assert said == ["warning: --ssl-cert: the certificate ends in 2.5 days"]


def test_a_new_one_is_warned_of_by_itself(tmp_path: Path, said: list[str]) -> None:
    watched = Watched(tmp_path, days=2.5)
    watched.issue(END + datetime.timedelta(days=90))
    said.clear()
    watched.look()
    assert said == ["info: --ssl: the files have changed, and are in use as they are now"]
    watched.days = -88.5
    watched.look()
    assert said[1:] == ["warning: --ssl-cert: the certificate ends in 1.5 days"]


def test_the_segment_tells_when_it_ends(tmp_path: Path) -> None:
    watched = Watched(tmp_path, days=100)
    assert watched.segment.words[CERTIFICATE_ENDS_PUBLIC] == int(END.timestamp())
    assert watched.segment.words[CERTIFICATE_ENDS_API] == 0
    watched.issue(END + datetime.timedelta(days=1))
    watched.look()
    assert watched.segment.words[CERTIFICATE_ENDS_PUBLIC] == int(END.timestamp() + DAY)


def test_the_end_is_that_of_the_certificate_that_was_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched(tmp_path, days=100)
    left = [watched.tls.cert, watched.tls.key]

    def swapped_behind(path: str, most: int) -> bytes:
        """Read a file; there are other ones as soon as the last has been read."""
        data = read_regular(path, most)
        left.remove(path)
        if not left:
            watched.issue(END + datetime.timedelta(days=9))
        return data

    monkeypatch.setattr(certificate_watch, "read_regular", swapped_behind)
    watched.issue(END + datetime.timedelta(days=1))
    watched.look()
    assert left == []
    assert watched.segment.words[CERTIFICATE_ENDS_PUBLIC] == int(END.timestamp() + DAY)


def test_files_are_looked_at_now_and_then_only(tmp_path: Path, said: list[str]) -> None:
    watched = Watched(tmp_path, days=100)
    watched.issue(END)
    watched.watch.look()
    assert said == []
    watched.look()
    assert len(said) == 1


def test_without_certificates_there_is_nothing_to_do(tmp_path: Path, said: list[str]) -> None:
    options = Options(TcpAddress("", 1), TcpAddress("", 2))
    shared = SharedTls(options, read_contexts(options), TicketSecrets())
    assert shared.files == {}
    clock = [0.0]
    watch = CertificateWatch(options, shared, Segment(rows=1, routes=1), lambda: clock[0])
    clock[0] = 100.0
    watch.look()
    assert said == []
    assert replace(options) == options


def test_a_folder_in_place_of_a_file_is_said_once_and_takes_no_descriptors(
    tmp_path: Path, said: list[str]
) -> None:
    watched = Watched(tmp_path, days=100)
    certificate = tmp_path / "cert.pem"
    certificate.rename(tmp_path / "aside")
    certificate.mkdir()
    watched.look()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        watched.look()
    assert len(os.listdir("/proc/self/fd")) == before
    assert said == [
        "error: the certificate in use stays, the new one can't be used: "
        f"--ssl: {str(certificate)!r} is not a regular file"
    ]
