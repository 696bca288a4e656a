"""What CAs say that Pebble does not: limits, advice about renewal, nonsense."""

from __future__ import annotations

import base64
import json
import logging
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from chp_gevent.acme.failures import seconds_of
from tests.acme.conftest import NAME, Kept, keeper_for
from tests.kit.scripted_ca import ScriptedCa, scripted_ca

DAY = 86_400.0
PROBLEM = "urn:ietf:params:acme:error:"


@pytest.fixture
def ca(tmp_path: Path) -> Iterator[ScriptedCa]:
    """A CA that says what it is told to."""
    with scripted_ca(tmp_path) as ca:
        yield ca


@pytest.fixture
def kept(ca: ScriptedCa, storage: Path, log: logging.Logger) -> Kept:
    """A keeper that asks it."""
    return keeper_for(f"{ca.url}/dir", ca.ca, storage, log)


def problem(kind: str, detail: str, **more: Any) -> dict[str, Any]:
    return {"type": PROBLEM + kind, "detail": detail, **more}


def certified(kept: Kept, days: float = 90.0) -> None:
    """Have a certificate in the storage, of which ``days`` are left."""
    issued = trustme.CA().issue_cert(
        NAME,
        key_type=trustme.KeyType.ECDSA,
        not_before=datetime.now(timezone.utc) - timedelta(days=90 - days),
        not_after=datetime.now(timezone.utc) + timedelta(days=days),
    )
    kept.storage.prepare()
    chain = b"".join(blob.bytes() for blob in issued.cert_chain_pems).decode()
    key: Any = load_pem_private_key(issued.private_key_pem.bytes(), None)
    kept.storage.install(chain, key)


@pytest.mark.parametrize("as_date", [False, True])
def test_a_rate_limit_is_waited_for_as_long_as_the_ca_says(
    kept: Kept, ca: ScriptedCa, lines: list[str], as_date: bool
) -> None:
    after = formatdate(time.time() + DAY, usegmt=True) if as_date else str(int(DAY))
    limited = problem("rateLimited", "too many certificates (5) already issued")
    ca.answers["/order"] = (429, {"Retry-After": after}, limited)
    kept.step()
    assert (
        f"ACME: no certificate for {NAME}: the CA says: too many certificates (5) already issued "
        "(rateLimited); next attempt "
    ) in lines[-1]
    pause = kept.keeper.state.not_before - kept.now[0]
    assert pause == pytest.approx(DAY, abs=60)
    asked = len(ca.asked)
    kept.start()
    kept.now[0] += DAY - 120
    kept.step()
    assert len(ca.asked) == asked


def test_the_parts_of_a_problem_are_told(kept: Kept, ca: ScriptedCa, lines: list[str]) -> None:
    part = problem(
        "rejectedIdentifier", "not a public name", identifier={"type": "dns", "value": NAME}
    )
    whole = problem("malformed", "some names can't be", subproblems=[part])
    ca.answers["/order"] = (400, {}, whole)
    kept.step()
    assert (
        f"the CA says: some names can't be; {NAME}: not a public name (malformed); next"
        in lines[-1]
    )


@pytest.mark.parametrize(
    ("status", "content", "said"),
    [
        (500, problem("serverInternal", "oh dear"), "the CA says: oh dear (serverInternal)"),
        (
            503,
            problem("serverInternal", "a\n\tb\x1b[31m"),
            "the CA says: a b [31m (serverInternal)",
        ),
        (200, {"status": 3}, "the CA's answer makes no sense: "),
        (200, {}, "the CA's answer makes no sense: "),
        (200, [], "the CA's answer makes no sense: "),
        (400, {}, "the CA says: "),
        (409, {}, "the CA's answer makes no sense: "),
    ],
)
def test_nonsense_is_one_line(
    kept: Kept, ca: ScriptedCa, lines: list[str], status: int, content: Any, said: str
) -> None:
    ca.answers["/order"] = (status, {}, content)
    kept.step()
    assert len(lines) == 2
    assert f"error: ACME: no certificate for {NAME}: {said}" in lines[-1]
    assert lines[-1].isprintable()


@pytest.mark.parametrize("directory", [{}, [], {"newNonce": 1}])
def test_so_is_a_directory_that_is_none(
    kept: Kept, ca: ScriptedCa, lines: list[str], directory: Any
) -> None:
    ca.directory = directory
    kept.step()
    assert lines[-1].startswith(f"error: ACME: no certificate for {NAME}: the CA")
    assert len(lines) == 2


def test_an_account_that_must_be_made_elsewhere_is_told(
    kept: Kept, ca: ScriptedCa, lines: list[str]
) -> None:
    ca.directory["meta"] = {"externalAccountRequired": True}  # type: ignore[assignment]
    kept.step()
    assert "the CA wants an account of its own first, which is not supported" in lines[-1]


def advice(start: float, end: float) -> dict[str, Any]:
    def shown(when: float) -> str:
        return datetime.fromtimestamp(when, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")

    return {"suggestedWindow": {"start": shown(start), "end": shown(end)}}


def test_the_ca_may_say_when_to_renew(kept: Kept, ca: ScriptedCa) -> None:
    """RFC 9773: at any time of its window; it is asked again as it likes, restarts or not."""
    certified(kept)
    ca.directory["renewalInfo"] = f"{ca.url}/info"
    start, end = kept.now[0] + 10 * DAY, kept.now[0] + 11 * DAY
    ca.answers["/info/"] = (200, {"Retry-After": "7200"}, advice(start, end))
    kept.step()
    state = kept.keeper.state
    assert start <= state.renew_at <= end
    assert state.ask_at == pytest.approx(kept.now[0] + 7200, abs=60)
    asked = len(ca.asked)
    kept.start()
    kept.step()
    assert len(ca.asked) == asked
    assert kept.keeper.state.renew_at == state.renew_at


def test_a_certificate_that_the_ca_wants_replaced_is_replaced_at_once(
    kept: Kept, ca: ScriptedCa
) -> None:
    certified(kept)
    ca.directory["renewalInfo"] = f"{ca.url}/info"
    past = advice(kept.now[0] - 2 * DAY, kept.now[0] - DAY)
    ca.answers["/info/"] = (200, {}, past)
    ca.answers["/order"] = (500, {}, problem("serverInternal", "later"))
    kept.step()
    kept.step()
    assert ca.asked[-1] == "POST /order"
    # The order names the certificate as the question about it has named it.
    asked = next(each for each in ca.asked if each.startswith("GET /info/"))
    payload = ca.bodies["/order"]["payload"]
    order = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    assert order["replaces"] == asked.removeprefix("GET /info/")


def test_an_order_may_not_replace_what_was_replaced_before(kept: Kept, ca: ScriptedCa) -> None:
    certified(kept, days=10)
    ca.directory["renewalInfo"] = f"{ca.url}/info"
    ca.answers["/order"] = (409, {}, problem("alreadyReplaced", "it was"))
    kept.step()
    assert ca.asked.count("POST /order") == 2
    payload = ca.bodies["/order"]["payload"]
    order = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    assert "replaces" not in order


def test_no_advice_puts_renewal_off_to_the_end(kept: Kept, ca: ScriptedCa) -> None:
    certified(kept)
    ca.directory["renewalInfo"] = f"{ca.url}/info"
    ca.answers["/info/"] = (200, {}, advice(kept.now[0] + 300 * DAY, kept.now[0] + 301 * DAY))
    kept.step()
    assert kept.keeper.state.renew_at == pytest.approx(kept.now[0] + 75 * DAY, abs=60)


@pytest.mark.parametrize(
    "answer", [(500, {}, {}), (200, {}, {"suggestedWindow": 3}), (200, {}, [])]
)
def test_bad_advice_is_no_advice(kept: Kept, ca: ScriptedCa, lines: list[str], answer: Any) -> None:
    certified(kept)
    ca.directory["renewalInfo"] = f"{ca.url}/info"
    ca.answers["/info/"] = answer
    kept.step()
    assert kept.keeper.state.renew_at == pytest.approx(kept.now[0] + 58.5 * DAY, abs=2 * DAY)
    assert lines == []


def test_a_certificate_of_the_future_means_a_wrong_clock(
    kept: Kept, ca: ScriptedCa, lines: list[str]
) -> None:
    certified(kept)
    kept.now[0] -= 30 * DAY
    kept.step()
    assert "POST /order" not in ca.asked
    assert lines[0].startswith("warn: ACME: the certificate is valid from ")
    assert lines[0].endswith(": is the clock wrong?")


@pytest.mark.parametrize(
    ("field", "seconds"),
    [(None, 0), ("120", 120), ("soon", 0), ("-5", 0), ("", 0), ("1" * 40, 111111111)],
)
def test_retry_after_is_read(field: str | None, seconds: float) -> None:
    assert seconds_of(field) == seconds
