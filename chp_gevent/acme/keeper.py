"""Sees to it that there is a certificate: gets the first one, renews it, and remembers all that.

It runs in a greenlet of the management process, whose sockets are gevent's: a CA that takes its
time keeps nobody else waiting.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import time
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Final

import gevent
from acme.messages import OrderResource

from chp_gevent.acme.authority import Authority, OrderIsOver, is_unknown_account
from chp_gevent.acme.failures import EXPECTED, AcmeFailure, failure_of
from chp_gevent.acme.state import (
    Fault,
    State,
    earliest_renewal_time,
    latest_renewal_time,
    renewal_time,
)
from chp_gevent.acme.storage import Certificate, Corrupted, PrivateKey, Storage
from chp_gevent.config.acme_options import AcmeOptions
from chp_gevent.runtime.tracebacks import log_traceback

# Seconds at the most between two looks at the clock, which may be set meanwhile.
_LONGEST_SLEEP: Final = 30.0
_SHORTEST_SLEEP: Final = 0.2
# Seconds between two looks whether another process still looks after the storage, and after how
# many the log says so: during a reload it does for a moment.
_STAND_BY_INTERVAL: Final = 1.0
_STAND_BY_LOOKS: Final = 10
_DAY: Final = 86_400.0
# Seconds after which a CA that has no opinion of its own is asked again.
_ASK_INTERVAL: Final = _DAY
# A certificate may be so much older than our clock says, in seconds: CAs date them back.
_CLOCK_TOLERANCE: Final = 3600.0


class CertificateKeeper:
    """Keeps one certificate valid.

    Args:
        options: which, of whom, and where to.
        log: the server's logger.
        clock: returns the Unix time in seconds.
    """

    def __init__(
        self,
        options: AcmeOptions,
        log: logging.Logger,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._options = options
        self._log = log
        self._clock = clock
        self._storage = Storage(options)
        self._wanted = " ".join([options.directory, *sorted(options.domains)])
        self._state = State(wanted=self._wanted)
        self._certificate: Certificate | None = None
        self._is_prepared = False
        self._stood_by = 0

    @property
    def state(self) -> State:
        """What is known of the attempts so far."""
        return self._state

    def run(self) -> None:
        """Do what is to be done, for ever."""
        while True:
            gevent.sleep(self.step())

    def step(self) -> float:
        """Do what is to be done now; return after how many seconds to look again."""
        try:
            if not self._is_prepared:
                if not self._storage.take():
                    return self._stand_by()
                self._prepare()
            self._act()
        except Exception as error:
            if not isinstance(error, (AcmeFailure, Corrupted, OSError, *EXPECTED)):
                log_traceback(self._log, error)
            self._note_failure(failure_of(error))
        return min(_LONGEST_SLEEP, max(_SHORTEST_SLEEP, self._patience()))

    def _stand_by(self) -> float:
        """Leave all to another server, or to the process that this one replaces, while it lives."""
        self._stood_by += 1
        if self._stood_by == _STAND_BY_LOOKS:
            self._log.info(
                "ACME: another server looks after %s, this one takes its certificates",
                self._options.storage,
            )
        return _STAND_BY_INTERVAL

    def close(self) -> None:
        """Leave the storage to others."""
        self._storage.release()

    # -- what there is

    def _prepare(self) -> None:
        """Read what an earlier process has left."""
        self._storage.prepare()
        try:
            state = self._storage.read_state()
        except Corrupted as error:
            self._log.error("ACME: %s; beginning anew", error)
            state = State()
        self._state = state.wanting(self._wanted)
        if not self._state.order:
            self._storage.close_challenges()
        try:
            self._certificate = self._storage.certificate()
        except Corrupted as error:
            self._log.error("ACME: %s; getting another certificate", error)
        self._is_prepared = True
        if self._pause() and self._is_due():
            self._log.warning(
                "ACME: waiting before another certificate for %s is asked for: %s; next attempt %s",
                self._options.names,
                self._state.error,
                _shown(self._state.not_before),
            )

    @property
    def _has_certificate(self) -> bool:
        """Whether there is one such as the options ask for."""
        certificate = self._certificate
        if certificate is None or certificate.directory not in ("", self._options.directory):
            return False
        return certificate.names >= set(self._options.domains)

    def _is_due(self) -> bool:
        certificate = self._certificate
        if certificate is None or not self._has_certificate:
            return True
        return self._clock() >= self._renew_at(certificate)

    def _renew_at(self, certificate: Certificate) -> float:
        """Return when to renew; that is chosen once for each certificate, restarts included."""
        if self._state.serial != certificate.serial:
            when = max(
                renewal_time(certificate.not_before, certificate.not_after),
                self._earliest(certificate),
            )
            self._remember(
                dataclasses.replace(
                    self._state, serial=certificate.serial, renew_at=when, ask_at=0.0
                )
            )
        return self._state.renew_at

    def _earliest(self, certificate: Certificate) -> float:
        return earliest_renewal_time(
            self._state.succeeded_at, certificate.not_before, certificate.not_after
        )

    def _pause(self) -> float:
        return self._state.pause(self._clock())

    def _patience(self) -> float:
        now = self._clock()
        if not self._has_certificate:
            return self._pause()
        return max(self._pause(), min(self._state.renew_at, self._state.ask_at) - now)

    def _remember(self, state: State) -> None:
        # Challenges are open for as long as the order is that they are of: whoever goes on with
        # it, the CA finds its answer all the time.
        if state.order != self._state.order:
            self._storage.close_challenges()
        self._state = state
        self._storage.write_state(state)

    # -- what is to be done

    def _act(self) -> None:
        if self._pause():
            return
        if self._is_due():
            self._get()
        elif self._certificate is not None and self._clock() >= self._state.ask_at:
            self._ask_when(self._certificate)

    def _ask_when(self, certificate: Certificate) -> None:
        """Ask the CA when to renew (RFC 9773, 4.3); it need not know."""
        now = self._clock()
        self._compare_clocks(certificate)
        when: float | None = None
        ask_at = now + _ASK_INTERVAL
        try:
            authority = self._authority()
            try:
                if authority.suggests_renewal:
                    when, ask_at = authority.suggested_renewal(certificate)
            finally:
                authority.close()
        except Exception as error:
            # Of what a CA may say, the libraries raise more than their own errors.
            self._log.debug("ACME: no advice about renewal: %s", failure_of(error).reason)
        renew_at = self._state.renew_at
        if when is not None:
            latest = latest_renewal_time(certificate.not_before, certificate.not_after)
            earliest = min(self._earliest(certificate), self._state.succeeded_at + _DAY)
            renew_at = max(min(when, latest), earliest)
        ask_at = max(ask_at, now + 60.0)
        self._remember(dataclasses.replace(self._state, renew_at=renew_at, ask_at=ask_at))

    def _compare_clocks(self, certificate: Certificate) -> None:
        now = self._clock()
        if certificate.not_before > now + _CLOCK_TOLERANCE or certificate.not_after < now:
            self._log.warning(
                "ACME: the certificate is valid from %s to %s: is the clock wrong?",
                _shown(certificate.not_before),
                _shown(certificate.not_after),
            )

    def _get(self) -> None:
        """Get a certificate, and put it into use."""
        names = self._options.names
        self._log.info("ACME: asking %s for a certificate for %s", self._options.directory, names)
        authority = self._authority()
        try:
            chain_and_key = self._obtain(authority)
        except (*EXPECTED, AcmeFailure) as error:
            raise failure_of(error, authority.network.retry_after) from error
        finally:
            authority.close()
        self._certificate = certificate = self._storage.install(*chain_and_key)
        self._remember(self._state.succeeded(self._clock()))
        self._renew_at(certificate)
        self._log.info(
            "ACME: got a certificate for %s, valid until %s, to be renewed %s",
            names,
            _shown(certificate.not_after),
            _shown(self._state.renew_at),
        )
        self._compare_clocks(certificate)

    def _authority(self) -> Authority:
        try:
            key = self._storage.account_key()
        except Corrupted as error:
            self._log.error("ACME: %s; making another account", error)
            key = self._storage.replace_account_key()
        return Authority(self._options, self._storage, key)

    def _obtain(self, authority: Authority) -> tuple[str, PrivateKey]:
        """Return a chain as PEM, and its key."""
        authority.enter()
        try:
            return self._ordered(authority)
        except EXPECTED as error:
            if not is_unknown_account(error):
                raise
        authority.enter_anew()
        self._remember(dataclasses.replace(self._state, order=""))
        return self._ordered(authority)

    def _ordered(self, authority: Authority) -> tuple[str, PrivateKey]:
        if self._state.order:
            with contextlib.suppress(Corrupted, OrderIsOver):
                return self._resumed(authority)
        key = self._storage.pending_key(new=True)
        order = authority.order(self._certificate)
        # Whoever goes on after this process asks for no second one.
        self._remember(dataclasses.replace(self._state, order=order.uri))
        return self._finished(authority, order, key)

    def _resumed(self, authority: Authority) -> tuple[str, PrivateKey]:
        """Finish what an earlier attempt has begun. Raises ``OrderIsOver``, ``Corrupted``."""
        key = self._storage.pending_key(new=False)
        return self._finished(authority, authority.resume(self._state.order), key)

    @staticmethod
    def _finished(
        authority: Authority, order: OrderResource, key: PrivateKey
    ) -> tuple[str, PrivateKey]:
        authority.prove(order)
        return authority.issue(order, key), key

    def _note_failure(self, failure: AcmeFailure) -> None:
        state = self._state.failed(
            failure.fault, failure.reason, self._clock(), failure.retry_after
        )
        if failure.fault is Fault.REFUSED:
            # Nothing comes of an order of which a part was refused (RFC 8555, 7.1.6).
            state = dataclasses.replace(state, order="")
        with contextlib.suppress(OSError):
            self._remember(state)
        names, then = self._options.names, _shown(state.not_before)
        if self._has_certificate:
            self._log.error(
                "ACME: certificate for %s not renewed: %s; next attempt %s",
                names,
                failure.reason,
                then,
            )
        else:
            self._log.error(
                "ACME: no certificate for %s: %s; next attempt %s", names, failure.reason, then
            )


def _shown(when: float) -> str:
    return datetime.fromtimestamp(when, timezone.utc).strftime("%Y-%m-%d %H:%M:%SZ")
