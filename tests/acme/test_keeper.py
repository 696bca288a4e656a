"""Getting and renewing certificates from Let's Encrypt's own server for tests."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import stat
from datetime import datetime, timedelta, timezone
from pathlib import Path

import gevent
import pytest
from acme import messages
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from chp_gevent.acme.authority import Authority
from chp_gevent.acme.state import State
from chp_gevent.acme.storage import PrivateKey
from tests.acme.conftest import NAME, Kept
from tests.kit.pebble import Pebble

DAY = 86_400.0


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def requests_to(ca: Pebble) -> int:
    return ca.log.count(" -> calling handler()")


def test_a_certificate_is_got(kept: Kept, ca: Pebble, storage: Path, lines: list[str]) -> None:
    kept.step()
    certificate = kept.storage.certificate()
    assert certificate is not None
    assert certificate.names == {NAME}
    assert certificate.directory == ca.directory
    assert lines[0] == f"info: ACME: asking {ca.directory} for a certificate for {NAME}"
    assert lines[1].startswith(f"info: ACME: got a certificate for {NAME}, valid until ")
    assert len(lines) == 2
    assert mode(storage) == 0o700
    assert mode(storage / "account.key") == mode(storage / "current" / "privkey.pem") == 0o600
    assert not list((storage / "challenges").iterdir())
    assert not (storage / "pending.key").exists()


def test_one_certificate_is_for_all_names(kept: Kept) -> None:
    kept.start(NAME, "www.hub.test", "other.test")
    kept.step()
    certificate = kept.storage.certificate()
    assert certificate is not None
    assert certificate.names == {NAME, "www.hub.test", "other.test"}


def test_nothing_is_asked_again_after_restarts(kept: Kept, ca: Pebble) -> None:
    kept.step()
    kept.step()  # whether the CA has an opinion on renewals
    before = requests_to(ca)
    for _ in range(10):
        kept.start()
        kept.step()
        kept.step()
    assert requests_to(ca) == before
    assert ca.orders() == 1


def test_another_name_is_another_certificate(kept: Kept, ca: Pebble) -> None:
    kept.step()
    kept.start(NAME, "www.hub.test")
    kept.step()
    assert ca.orders() == 2
    # What has more names than are asked for will do.
    kept.start(NAME)
    kept.step()
    assert ca.orders() == 2


def test_it_is_renewed_with_another_key_when_a_third_is_left(
    kept: Kept, ca: Pebble, storage: Path
) -> None:
    kept.step()
    certificate = kept.storage.certificate()
    assert certificate is not None
    key = (storage / "current" / "privkey.pem").read_bytes()
    lifetime = certificate.not_after - certificate.not_before
    kept.now[0] = certificate.not_before + lifetime * 0.62
    kept.step()
    assert kept.serial == certificate.serial
    kept.now[0] = certificate.not_before + lifetime * 0.67
    kept.step()
    assert kept.serial != certificate.serial
    assert (storage / "current" / "privkey.pem").read_bytes() != key
    assert ca.orders() == 2


def test_two_certificates_are_kept(kept: Kept, storage: Path) -> None:
    names = []
    for number in range(4):
        kept.start(NAME, f"host-{number}.test")
        kept.step()
        names.append((storage / "current").resolve().name)
    assert {each.name for each in (storage / "certificates").iterdir()} >= {names[-1]}
    assert len(list((storage / "certificates").iterdir())) == 2


def test_a_name_that_the_ca_does_not_find_is_refused_and_told(
    kept: Kept, ca: Pebble, storage: Path, lines: list[str]
) -> None:
    ca.lose_name(NAME)
    kept.step()
    assert kept.serial is None
    assert lines[-1].startswith(f"error: ACME: no certificate for {NAME}: the CA says of {NAME}: ")
    assert "(connection); next attempt 20" in lines[-1]
    assert not list((storage / "challenges").iterdir())
    # Neither time nor restarts hurry it.
    before = requests_to(ca)
    kept.start()
    assert 25 < kept.step() <= 30
    kept.now[0] += 290
    kept.step()
    assert requests_to(ca) == before
    assert lines[-1].startswith("warn: ACME: waiting before another certificate for ")
    ca.find_name(NAME)
    kept.now[0] += 45
    kept.step()
    assert kept.serial is not None
    assert kept.keeper.state.failures == 0


def test_a_ca_that_is_down_is_tried_again(kept: Kept, ca: Pebble, lines: list[str]) -> None:
    ca.stop()
    kept.step()
    assert lines[-1].startswith(
        f"error: ACME: no certificate for {NAME}: the CA can't be reached: Connection refused; next"
    )
    ca.start()
    kept.now[0] += 6
    kept.step()
    assert kept.serial is not None


def test_a_ca_that_has_forgotten_the_account_gets_it_again(kept: Kept, ca: Pebble) -> None:
    kept.step()
    first = kept.serial
    ca.stop()
    ca.start()
    certificate = kept.storage.certificate()
    assert certificate is not None
    kept.now[0] = certificate.not_after - DAY
    kept.step()
    assert kept.serial not in (None, first)


def test_the_certificate_stays_when_it_cant_be_renewed(
    kept: Kept, ca: Pebble, lines: list[str]
) -> None:
    kept.step()
    certificate = kept.storage.certificate()
    assert certificate is not None
    ca.lose_name(NAME)
    ca.stop()
    ca.start(PEBBLE_AUTHZREUSE="0")
    kept.now[0] = certificate.not_after - DAY
    kept.step()
    assert kept.serial == certificate.serial
    assert lines[-1].startswith(f"error: ACME: certificate for {NAME} not renewed: the CA says of ")


def test_nonces_that_the_ca_does_not_like_are_no_matter(kept: Kept, ca: Pebble) -> None:
    ca.stop()
    ca.start(PEBBLE_WFE_NONCEREJECT="65")
    for _ in range(5):
        kept.step()
        kept.now[0] += 3700
        if kept.serial is not None:
            break
    assert kept.serial is not None
    # Account, order, authorization (twice), challenge, finalization, order, certificate.
    assert ca.log.count(" POST /") > 8


def begin_order(kept: Kept) -> tuple[Authority, messages.OrderResource]:
    """Place an order, as a keeper does that dies right after it."""
    kept.storage.prepare()
    authority = Authority(kept.options, kept.storage, kept.storage.account_key())
    authority.enter()
    kept.storage.pending_key(new=True)
    order = authority.order(None)
    wanted = f"{kept.options.directory} {NAME}"
    kept.storage.write_state(State(wanted=wanted, order=order.uri))
    return authority, order


def test_an_order_that_was_begun_is_finished(kept: Kept, ca: Pebble) -> None:
    authority, _ = begin_order(kept)
    authority.close()
    kept.step()
    assert kept.serial is not None
    assert ca.orders() == 1


@pytest.mark.parametrize("end", [SystemExit, gevent.GreenletExit])
def test_challenges_are_open_for_as_long_as_their_order_is(
    kept: Kept, ca: Pebble, storage: Path, monkeypatch: pytest.MonkeyPatch, end: type[BaseException]
) -> None:
    """A CA may look while there is no process that would wait for it."""

    def interrupted(seconds: float) -> None:
        raise end

    def open_ones() -> set[str]:
        return {each.name for each in (storage / "challenges").iterdir()}

    ca.stop()
    ca.start(PEBBLE_VA_NOSLEEP="", PEBBLE_VA_SLEEPTIME="2")
    monkeypatch.setattr("chp_gevent.acme.authority.time.sleep", interrupted)
    with pytest.raises(end):
        kept.step()
    monkeypatch.undo()
    left = open_ones()
    assert len(left) == 1
    # Another process begins, and the CA is not there.
    ca.stop()
    kept.start()
    kept.step()
    assert open_ones() == left
    # When it is, it does not know the order any more. The next one is interrupted likewise.
    ca.start(PEBBLE_VA_NOSLEEP="", PEBBLE_VA_SLEEPTIME="2")
    kept.now[0] += 6
    monkeypatch.setattr("chp_gevent.acme.authority.time.sleep", interrupted)
    with pytest.raises(end):
        kept.step()
    monkeypatch.undo()
    assert len(open_ones()) == 1
    assert open_ones() != left
    kept.start()
    kept.step()
    assert kept.serial is not None
    assert open_ones() == set()
    assert ca.orders() == 2


def test_challenges_of_another_certificate_are_not_open(kept: Kept, storage: Path) -> None:
    authority, _ = begin_order(kept)
    authority.close()
    kept.storage.open_challenge("left", "left.thumbprint")
    kept.start("other.test")
    kept.step()
    assert not list((storage / "challenges").iterdir())


def test_a_certificate_that_was_issued_is_fetched(kept: Kept, ca: Pebble) -> None:
    """Whoever died before it was stored needs no second one."""
    authority, order = begin_order(kept)
    authority.prove(order)
    authority.issue(order, kept.storage.pending_key(new=False))
    authority.close()
    kept.step()
    assert kept.serial is not None
    assert ca.orders() == 1
    assert ca.log.count("Issued certificate serial") == 1


def test_after_an_authorization_that_is_over_another_order_is_placed(
    kept: Kept, ca: Pebble
) -> None:
    """Deactivated, as an account may do itself: the CA treats one that has expired likewise."""
    authority, order = begin_order(kept)
    uri = order.body.authorizations[0]
    authority.network.post(
        uri,
        messages.UpdateAuthorization(status="deactivated"),
        new_nonce_url=f"{ca.directory.removesuffix('dir')}nonce-plz",
    )
    authority.close()
    kept.step()
    assert kept.serial is not None
    assert ca.orders() == 2


def test_an_order_that_the_ca_has_forgotten_is_placed_anew(kept: Kept, ca: Pebble) -> None:
    authority, _ = begin_order(kept)
    authority.close()
    ca.stop()
    ca.start()
    kept.step()
    assert kept.serial is not None


def test_a_key_of_an_order_that_is_lost_costs_another_order(
    kept: Kept, ca: Pebble, storage: Path
) -> None:
    authority, _ = begin_order(kept)
    authority.close()
    (storage / "pending.key").write_text("nonsense")
    kept.step()
    assert kept.serial is not None
    assert ca.orders() == 2


def test_an_account_key_may_be_replaced(kept: Kept, storage: Path) -> None:
    kept.step()
    key = (storage / "account.key").read_bytes()
    (storage / "account.key").unlink()
    (storage / "account.json").unlink()
    kept.start(NAME, "more.test")
    kept.step()
    certificate = kept.storage.certificate()
    assert certificate is not None
    assert "more.test" in certificate.names
    assert (storage / "account.key").read_bytes() != key


def test_an_address_for_mail_may_be_given_later(kept: Kept, storage: Path) -> None:
    kept.step()
    kept.options = dataclasses.replace(kept.options, email="who@hub.test")
    kept.start(NAME, "more.test")
    kept.step()
    assert json.loads((storage / "account.json").read_text())["email"] == "who@hub.test"
    certificate = kept.storage.certificate()
    assert certificate is not None
    assert "more.test" in certificate.names


@pytest.mark.parametrize("content", ["", "nonsense", "-----BEGIN EC PRIVATE KEY-----\nAAAA\n"])
def test_a_corrupted_account_key_is_put_aside(
    kept: Kept, storage: Path, lines: list[str], content: str
) -> None:
    kept.storage.prepare()
    (storage / "account.key").write_text(content)
    kept.step()
    assert kept.serial is not None
    assert any(line.startswith("error: ACME: ") and "account.key: " in line for line in lines)
    assert (storage / "account.key.corrupted").read_text() == content


@pytest.mark.parametrize("name", ["fullchain.pem", "privkey.pem"])
@pytest.mark.parametrize("content", ["", "nonsense", None])
def test_a_corrupted_certificate_is_replaced(
    kept: Kept, ca: Pebble, storage: Path, lines: list[str], name: str, content: str | None
) -> None:
    kept.step()
    file = storage / "current" / name
    if content is None:
        file.unlink()
    else:
        file.write_text(content)
    kept.start()
    kept.step()
    assert kept.serial is not None
    assert ca.orders() == 2
    told = [line for line in lines if line.startswith("error: ACME: ")]
    assert len(told) == (0 if (name, content) == ("fullchain.pem", None) else 1)


def test_a_certificate_for_another_key_is_replaced(kept: Kept, storage: Path) -> None:
    kept.step()
    first = kept.serial
    key = (storage / "account.key").read_bytes()
    (storage / "current" / "privkey.pem").write_bytes(key)
    kept.start()
    kept.step()
    assert kept.serial not in (None, first)


@pytest.mark.parametrize("content", ["", "nonsense", '{"failures": "x"}', "\0\0\0"])
def test_a_corrupted_state_is_forgotten(
    kept: Kept, ca: Pebble, storage: Path, lines: list[str], content: str
) -> None:
    kept.step()
    (storage / "state.json").write_text(content)
    kept.start()
    kept.step()
    assert ca.orders() == 1
    assert lines[2].startswith(f"error: ACME: {storage / 'state.json'}: ")
    assert lines[2].endswith("; beginning anew")


def test_a_storage_that_cant_be_written_is_told(
    kept: Kept, storage: Path, lines: list[str], ca: Pebble
) -> None:
    storage.write_text("a file, where a folder should be")
    kept.step()
    line = lines[-1]
    assert line.startswith(f"error: ACME: no certificate for {NAME}: can't use --acme-storage: ")
    assert ca.orders() == 0
    storage.unlink()
    kept.now[0] += 11
    kept.step()
    assert kept.serial is not None


def test_a_certificate_that_could_not_be_stored_is_fetched_again(
    kept: Kept, ca: Pebble, storage: Path, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that is full at the last moment costs no second certificate."""
    real = os.rename

    def full(source: str, target: Path) -> None:
        if Path(target).name == "fullchain.pem":
            raise OSError(28, "No space left on device", str(target))
        real(source, target)

    monkeypatch.setattr("os.rename", full)
    kept.step()
    assert "No space left on device" in lines[-1]
    monkeypatch.undo()
    kept.now[0] += 11
    kept.step()
    assert kept.serial is not None
    assert ca.orders() == 1
    assert not [each for each in (storage / "certificates").iterdir() if each.name[0] == "."]


def test_a_clock_that_is_behind_is_no_reason_for_another_certificate(
    kept: Kept, ca: Pebble, lines: list[str]
) -> None:
    kept.step()
    kept.now[0] -= 30 * DAY
    kept.start()
    kept.keeper.step()
    assert ca.orders() == 1
    kept.now[0] += 30 * DAY
    kept.step()
    assert ca.orders() == 1
    assert not [line for line in lines if line.startswith("error")]


def test_a_clock_that_is_ahead_orders_one_certificate(
    kept: Kept, ca: Pebble, lines: list[str]
) -> None:
    """Pebble's end after five years: to this clock each has ended when it comes."""
    kept.now[0] += 6 * 365 * DAY
    for _ in range(5):
        kept.step()
        kept.now[0] += 60
    kept.start()
    kept.step()
    assert ca.orders() == 1
    assert any(line.endswith(": is the clock wrong?") for line in lines)


def test_a_certificate_for_other_names_is_not_asked_for_again_and_again(
    kept: Kept, ca: Pebble, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Authority.issue

    def other(self: Authority, order: messages.OrderResource, key: PrivateKey) -> str:
        real(self, order, key)
        now = datetime.now(timezone.utc)
        name = x509.Name([])
        builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(9))
        names = x509.SubjectAlternativeName([x509.DNSName("other.test")])
        certificate = builder.add_extension(names, critical=False).sign(key, hashes.SHA256())
        return certificate.public_bytes(serialization.Encoding.PEM).decode()

    monkeypatch.setattr(Authority, "issue", other)
    for _ in range(5):
        kept.step()
        kept.now[0] += 30
    assert ca.orders() == 1
    assert "the CA's certificate: is for other names; next attempt" in lines[-1]
    assert kept.serial is None


def test_of_two_that_have_one_storage_one_asks(
    kept: Kept, ca: Pebble, lines: list[str], log: logging.Logger
) -> None:
    other = Kept(kept.options, log, kept.now)
    kept.step()
    before = requests_to(ca)
    for _ in range(20):
        assert other.step() == 1
    assert requests_to(ca) == before
    said = "info: ACME: another server looks after "
    assert [line for line in lines if line.startswith(said)] == [
        f"{said}{kept.options.storage}, this one takes its certificates"
    ]
    # It knows what the first one has done when that is gone.
    kept.keeper.close()
    other.step()
    assert ca.orders() == 1
    other.keeper.close()


def test_without_trust_in_its_certificate_the_ca_is_not_asked(
    kept: Kept, ca: Pebble, lines: list[str], log: logging.Logger
) -> None:
    kept.options = dataclasses.replace(kept.options, ca=ca.root)
    kept.start()
    kept.step()
    assert "the CA can't be reached: its certificate is not accepted: " in lines[-1]
    assert ca.orders() == 0
