"""What can go wrong while a certificate is got, in words, and what is to be done about it."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime

import josepy
import requests
from acme import errors, messages

from chp_gevent.acme.state import Fault
from chp_gevent.acme.storage import Corrupted

_TYPE = "urn:ietf:params:acme:error:"
# Problems of the CA itself (RFC 8555, 6.7).
_CA_TROUBLES = ("serverInternal", "badNonce")
# More of a text is cut off in the log.
_LONGEST_TEXT = 500


class AcmeFailure(Exception):
    """A certificate could not be got.

    Args:
        fault: which kind of failure it is.
        reason: what to tell the operator.
        retry_after: seconds that the CA wants us to wait.
    """

    def __init__(self, fault: Fault, reason: str, retry_after: float = 0.0) -> None:
        super().__init__(reason)
        self.fault = fault
        self.reason = _one_line(reason)
        self.retry_after = retry_after


EXPECTED = (requests.RequestException, errors.Error, messages.Error, josepy.errors.Error)
"""What the libraries raise for anything that a CA, or what is between, can do."""


def failure_of(error: Exception, retry_after: float = 0.0) -> AcmeFailure:
    """Return what an exception out of the libraries, or of the storage, means."""
    if isinstance(error, AcmeFailure):
        return error
    if isinstance(error, messages.Error):
        code = error.code or ""
        fault = Fault.UNREACHABLE if code in _CA_TROUBLES else Fault.REFUSED
        return AcmeFailure(fault, f"the CA says: {described(error)}", retry_after)
    if isinstance(error, errors.IssuanceError):
        return AcmeFailure(Fault.REFUSED, f"the CA says: {described(error.error)}", retry_after)
    if isinstance(error, errors.TimeoutError):
        return AcmeFailure(Fault.UNREACHABLE, "the CA took too long", retry_after)
    if isinstance(error, Corrupted):
        return AcmeFailure(Fault.REFUSED, str(error))
    if isinstance(error, requests.RequestException):
        return AcmeFailure(Fault.UNREACHABLE, f"the CA can't be reached: {_why(error)}")
    if isinstance(error, OSError):
        where = f" {error.filename!r}" if error.filename else ""
        return AcmeFailure(Fault.LOCAL, f"can't use --acme-storage:{where} {error.strerror}")
    if isinstance(error, errors.ClientError) and error.args:
        response = error.args[0]
        if isinstance(response, requests.Response):
            reason = f"the CA answered {response.status_code} {response.reason}"
            return AcmeFailure(Fault.UNREACHABLE, reason, retry_after)
    return AcmeFailure(
        Fault.UNREACHABLE, f"the CA's answer makes no sense: {type(error).__name__}: {error}"
    )


def described(problem: messages.Error | None) -> str:
    """Return what a CA says of a problem (RFC 8555, 6.7), with those that it consists of."""
    if problem is None:
        return "nothing"
    parts = [problem.detail or problem.title or "", *_parts(problem)]
    name = (problem.typ or "").removeprefix(_TYPE)
    return f"{'; '.join(filter(None, parts))} ({name})"


def _parts(problem: messages.Error) -> Iterator[str]:
    for part in problem.subproblems or ():
        identifier = getattr(part, "identifier", None)
        yield f"{identifier.value}: {part.detail}" if identifier else str(part.detail)


def _why(error: requests.RequestException) -> str:
    """Return the innermost reason, without names of classes and addresses of objects."""
    if isinstance(error, requests.Timeout):
        return "it did not answer in time"
    cause: BaseException = error
    while inner := next(_causes(cause), None):
        cause = inner
    verify = getattr(cause, "verify_message", None)
    if verify:
        return f"its certificate is not accepted: {verify}"
    reason = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
    return re.sub(r"<[^>]*>(: )?", "", str(reason))


def _causes(error: BaseException) -> Iterator[BaseException]:
    for inner in (getattr(error, "reason", None), *error.args, error.__cause__, error.__context__):
        if isinstance(inner, BaseException) and inner is not error:
            yield inner


def _one_line(text: str) -> str:
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= _LONGEST_TEXT else f"{line[:_LONGEST_TEXT]} …"


def seconds_of(retry_after: str | None) -> float:
    """Return how long a ``Retry-After`` (RFC 9110, 10.2.3) asks to wait; 0 if it is none."""
    if retry_after is None:
        return 0.0
    if retry_after.strip().isdigit():
        return float(retry_after.strip()[:9])
    try:
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - time.time())
    except (TypeError, ValueError, OverflowError):
        return 0.0
