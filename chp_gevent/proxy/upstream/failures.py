"""Why a target can't be reached: in a word, for accounts, and in a few, for the log. Pure."""

from __future__ import annotations

import errno
import os
import ssl
from collections.abc import Sequence
from enum import Enum

from chp_gevent.runtime.descriptors import NO_DESCRIPTORS
from chp_gevent.runtime.tls_errors import describe_failure


class FailureKind(str, Enum):
    """What went wrong with a target, and so where to look for the reason."""

    NAME = "name"
    """Its name does not resolve, or is not answered for: look at DNS, or at the route."""
    REFUSED = "refused"
    """Its machine is there, and nobody listens."""
    UNREACHABLE = "unreachable"
    """There is no way to its address, or no socket at its path."""
    TIMEOUT = "timeout"
    """It is silent: while connecting, in the TLS handshake, or for ``--proxy-timeout``."""
    TLS = "tls"
    """The TLS handshake failed: look at certificates."""
    OTHER = "other"
    """Anything else, such as what it does when it has been reached."""


class Stage(Enum):
    """How far the making of a connection has come; the value is what it is called in the log."""

    LOOK_UP = "name look-up"
    CONNECT = "connecting"
    HANDSHAKE = "TLS handshake"


# What OpenSSL says of an answer that is no TLS.
_NO_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST")

_UNREACHABLE = frozenset(
    (
        errno.ENETUNREACH,
        errno.EHOSTUNREACH,
        errno.ENETDOWN,
        errno.EHOSTDOWN,
        errno.EADDRNOTAVAIL,
        errno.EAFNOSUPPORT,
        errno.EINVAL,  # a link-local address without its interface
        errno.EACCES,
        errno.EPERM,
        errno.ENOENT,
        errno.ENOTSOCK,
        errno.ENODEV,
        errno.ENXIO,
    )
)


def expiry(stage: Stage, seconds: float) -> tuple[FailureKind, str]:
    """Return what there is to say when ``--connect-timeout`` is over in this stage."""
    kind = FailureKind.NAME if stage is Stage.LOOK_UP else FailureKind.TIMEOUT
    return kind, f"{stage.value} timed out after {seconds:g} s"


def failure(error: BaseException, stage: Stage, seconds: float) -> tuple[FailureKind, str]:
    """Return what there is to say about an error in this stage, ``seconds`` after the start."""
    number = getattr(error, "errno", None)
    if number in NO_DESCRIPTORS:
        return FailureKind.OTHER, os.strerror(number).lower()
    if stage is Stage.HANDSHAKE:
        return FailureKind.TLS, f"TLS handshake failed: {_in_handshake(error)}"
    if stage is Stage.LOOK_UP and number == errno.EAGAIN:  # there could be no thread
        return FailureKind.OTHER, f"name look-up failed: {_words(error)}"
    if stage is Stage.LOOK_UP:
        return FailureKind.NAME, f"name does not resolve: {_words(error)}"
    if number == errno.ECONNREFUSED:
        return FailureKind.REFUSED, "connection refused"
    if number == errno.ETIMEDOUT:  # the kernel's limit came first
        return FailureKind.TIMEOUT, f"connecting timed out after {seconds:.1f} s"
    kind = FailureKind.UNREACHABLE if number in _UNREACHABLE else FailureKind.OTHER
    return kind, _words(error)


def most_telling(errors: Sequence[OSError]) -> OSError:
    """Return which of the errors of a name's addresses says most about the target.

    That descriptors have run out says that another attempt may work. A refusal comes from the
    target's machine; that an address is unreachable may only mean that there is no IPv6 here.
    """

    def rank(error: OSError) -> int:
        if error.errno in NO_DESCRIPTORS:
            return 0
        if error.errno == errno.ECONNREFUSED:
            return 1
        return 3 if error.errno in _UNREACHABLE else 2

    return min(errors, key=rank)


def _in_handshake(error: BaseException) -> str:
    if not isinstance(error, ssl.SSLError):
        return _words(error)
    if error.reason in _NO_TLS:
        return f"{describe_failure(error)}; is its protocol http?"
    return describe_failure(error)


def _words(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error) or type(error).__name__
