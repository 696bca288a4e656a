"""The arbiter's look at certificate files: new ones are taken, by all processes, without a reload.

A file that changes is read with those that belong to it. If they fit, the arbiter's own contexts
are made of them, for children to come, and the contents are shown to those that there are. If not
(the other file is still to be written, a disk is full), the present ones stay, and it is said once.
"""

from __future__ import annotations

import logging
import os
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from chp_gevent.config.live_tls import SharedTls
from chp_gevent.config.options import OptionError, Options
from chp_gevent.config.tls_parts import PARTS, TlsPart, in_memory
from chp_gevent.runtime.files import NotRegularFile, read_regular
from chp_gevent.shared.segment import Segment
from chp_gevent.shared.shared_files import MOST_BYTES, Contents

log = logging.getLogger("chp_gevent.server")

INTERVAL: Final = 2.0
"""Seconds between two looks at the files."""

DAYS_OF_WARNINGS: Final = (14, 3, 0)
"""How long before the end of a certificate the log says so."""

_DAY = 86_400.0

Signature = tuple[tuple[int, ...] | None, ...]


@dataclass
class _Watched:
    """One part with files: what they looked like, and what is wrong with them."""

    part: TlsPart
    paths: list[str]
    signature: Signature
    fault: str | None = None
    ends: float | None = None
    warned: int | None = None


class CertificateWatch:
    """Looks after the certificates of a server.

    Args:
        options: the server's.
        shared: what children begin with, and look at.
        segment: its header tells when certificates end.
        clock: returns monotonic time in seconds.
        now: returns Unix time in seconds.
    """

    def __init__(
        self,
        options: Options,
        shared: SharedTls,
        segment: Segment,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._options = options
        self._shared = shared
        self._segment = segment
        self._clock = clock
        self._now = now
        self._next_look = clock() + (0.0 if self._is_awaited() else INTERVAL)
        self._watched = [
            _Watched(part, paths, _signature(paths))
            for part in PARTS
            if (paths := part.paths(options))
        ]
        for watched in self._watched:
            path = watched.part.certificate(options)
            self._note_end(watched, _end_of(path) if path is not None else None)

    def look(self) -> None:
        """Look at the files and at the age of the secrets, if it is time to."""
        if self._clock() < self._next_look:
            return
        self._next_look = self._clock() + (0.0 if self._is_awaited() else INTERVAL)
        self._shared.secrets.replace_if_due()
        for watched in self._watched:
            self._look_at(watched)
            self._warn(watched)

    def _is_awaited(self) -> bool:
        """Whether clients wait for a first certificate."""
        public = self._shared.contexts.public
        return public is not None and not public.has_certificate

    def _look_at(self, watched: _Watched) -> None:
        signature = _signature(watched.paths)
        if signature == watched.signature:
            return
        part = watched.part
        try:
            contents = {path: read_regular(path, MOST_BYTES) for path in watched.paths}
            context = part.build_from(self._options, contents)
            self._shared.files[part].write(contents)
        except OptionError as error:
            self._refuse(watched, str(error))
            watched.signature = signature
            return
        except NotRegularFile as error:
            self._refuse(watched, f"{part.flags}: {error.filename!r} is not a regular file")
            return
        except OSError as error:
            # No descriptor, no memory, or a file that is not there: that may pass.
            reason = f"{error.filename}: {error.strerror}" if error.filename else str(error)
            self._refuse(watched, f"{part.flags}: {reason}")
            return
        watched.signature = signature
        watched.fault = None
        self._take(part, context)
        self._note_end(watched, _end_in(contents, part.certificate(self._options)))
        log.info("%s: the files have changed, and are in use as they are now", part.flags)

    def _refuse(self, watched: _Watched, fault: str) -> None:
        if fault != watched.fault:
            watched.fault = fault
            log.error("the certificate in use stays, the new one can't be used: %s", fault)

    def _take(self, part: TlsPart, context: Any) -> None:
        shared = self._shared
        numbers = {**shared.contexts.numbers, part.name: shared.files[part].number}
        new: Mapping[str, Any] = {part.name: context, "numbers": numbers}
        shared.contexts = replace(shared.contexts, **new)
        shared.contexts.use_secrets(shared.secrets.read())

    def _note_end(self, watched: _Watched, ends: float | None) -> None:
        """Remember when a certificate ends, for the log and for the metrics."""
        watched.ends = ends
        watched.warned = None
        self._segment.words[watched.part.ends] = int(ends or 0)
        self._warn(watched)

    def _warn(self, watched: _Watched) -> None:
        if watched.ends is None:
            return
        days = (watched.ends - self._now()) / _DAY
        due = min((each for each in DAYS_OF_WARNINGS if days < each), default=None)
        if due is None or due == watched.warned:
            return
        watched.warned = due
        flag = f"{watched.part.flags}-cert"
        if days < 0:
            log.error("%s: the certificate has ended", flag)
        else:
            log.warning("%s: the certificate ends in %.1f days", flag, days)


def _signature(paths: list[str]) -> Signature:
    """Return what changes when one of the files does, or another one is in its place."""
    return tuple(map(_looks_of, paths))


def _looks_of(path: str) -> tuple[int, ...] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size


def _end_in(contents: Contents, path: str | None) -> float | None:
    """Return when the certificate ends that was in a file when the contents were taken."""
    if path is None:
        return None
    try:
        # Nothing but a file can be decoded; the one of this path may be another one by now.
        with in_memory({path: contents[path]}) as names:
            return _end_of(names[path])
    except OSError:
        return None


def _end_of(path: str) -> float | None:
    """Return when the first certificate of a file ends, in Unix time; None if it can't be told."""
    try:
        found: dict[str, Any] = ssl._ssl._test_decode_cert(path)  # type: ignore[attr-defined]
        return float(ssl.cert_time_to_seconds(found["notAfter"]))
    except (AttributeError, KeyError, OSError, ValueError):
        return None
