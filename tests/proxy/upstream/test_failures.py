"""What the log, and accounts, say of a target that can't be reached."""

from __future__ import annotations

import errno
import os
import socket
import ssl

import pytest

from chp_gevent.proxy.upstream.connection import TargetError, TargetTimeout
from chp_gevent.proxy.upstream.failures import FailureKind, Stage, expiry, failure, most_telling
from chp_gevent.shared.segment import TARGET_ERRORS


def os_error(number: int) -> OSError:
    """The error of a system call."""
    return OSError(number, os.strerror(number))


NO_NAME = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
NO_CERTIFICATE = ssl.SSLCertVerificationError(1, "certificate verify failed")
NO_CERTIFICATE.reason = "CERTIFICATE_VERIFY_FAILED"
NO_CERTIFICATE.verify_message = "self-signed certificate"
NO_TLS = ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number (_ssl.c:1006)")
NO_TLS.reason = "WRONG_VERSION_NUMBER"


def test_each_kind_of_failure_is_counted_under_its_name() -> None:
    assert set(TARGET_ERRORS) == {kind.value for kind in FailureKind}


@pytest.mark.parametrize(
    ("error", "stage", "kind", "words"),
    [
        (NO_NAME, Stage.LOOK_UP, "name", "name does not resolve: name or service not known"),
        (os_error(errno.EBUSY), Stage.LOOK_UP, "name", "name does not resolve: device or res"),
        (UnicodeError("label too long"), Stage.LOOK_UP, "name", "name does not resolve: label too"),
        (
            OSError(errno.EAGAIN, "Can't start thread"),
            Stage.LOOK_UP,
            "other",
            "name look-up failed: ca",
        ),
        (os_error(errno.EMFILE), Stage.LOOK_UP, "other", "too many open files"),
        (os_error(errno.ECONNREFUSED), Stage.CONNECT, "refused", "connection refused"),
        (os_error(errno.ENETUNREACH), Stage.CONNECT, "unreachable", "network is unreachable"),
        (os_error(errno.EHOSTUNREACH), Stage.CONNECT, "unreachable", "no route to host"),
        (os_error(errno.ENOENT), Stage.CONNECT, "unreachable", "no such file or directory"),
        (os_error(errno.ETIMEDOUT), Stage.CONNECT, "timeout", "connecting timed out after 3.2 s"),
        (os_error(errno.EMFILE), Stage.CONNECT, "other", "too many open files"),
        (os_error(errno.EIO), Stage.CONNECT, "other", "input/output error"),
        (NO_CERTIFICATE, Stage.HANDSHAKE, "tls", "TLS handshake failed: certificate not accepted"),
        (NO_TLS, Stage.HANDSHAKE, "tls", "TLS handshake failed: wrong version number; is its pro"),
        (os_error(errno.ECONNRESET), Stage.HANDSHAKE, "tls", "TLS handshake failed: connection re"),
        (ValueError("no hostname"), Stage.HANDSHAKE, "tls", "TLS handshake failed: no hostname"),
    ],
)
def test_each_kind_of_failure_has_a_word_and_a_reason(
    error: Exception, stage: Stage, kind: str, words: str
) -> None:
    found, reason = failure(error, stage, 3.21)
    assert found == FailureKind(kind)
    assert reason.startswith(words)


@pytest.mark.parametrize(
    ("stage", "kind", "words"),
    [
        (Stage.LOOK_UP, "name", "name look-up timed out after 10 s"),
        (Stage.CONNECT, "timeout", "connecting timed out after 10 s"),
        (Stage.HANDSHAKE, "timeout", "TLS handshake timed out after 10 s"),
    ],
)
def test_what_took_too_long_says_what_it_was(stage: Stage, kind: str, words: str) -> None:
    assert expiry(stage, 10.0) == (FailureKind(kind), words)


@pytest.mark.parametrize(
    ("numbers", "told"),
    [
        ([errno.ENETUNREACH, errno.ECONNREFUSED], errno.ECONNREFUSED),
        ([errno.ECONNREFUSED, errno.EHOSTUNREACH], errno.ECONNREFUSED),
        ([errno.ENETUNREACH, errno.ETIMEDOUT], errno.ETIMEDOUT),
        ([errno.ECONNREFUSED, errno.EMFILE], errno.EMFILE),
    ],
)
def test_of_several_errors_the_most_telling_one_is_told(numbers: list[int], told: int) -> None:
    assert most_telling([os_error(number) for number in numbers]).errno == told


def test_a_target_error_has_a_kind() -> None:
    assert TargetError("malformed response").kind is FailureKind.OTHER
    assert TargetError("connection refused", kind=FailureKind.REFUSED).kind.value == "refused"
    assert TargetTimeout("target was silent for 3 s").kind is FailureKind.TIMEOUT
