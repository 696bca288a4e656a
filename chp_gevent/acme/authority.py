"""One conversation with a CA: account, order, challenges, certificate (RFC 8555)."""

from __future__ import annotations

import datetime
import time
from typing import Any, Final

from acme import challenges, client, errors, messages
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from josepy.json_util import encode_b64jose, field

from chp_gevent.acme.failures import AcmeFailure, described
from chp_gevent.acme.network import Network
from chp_gevent.acme.state import Fault
from chp_gevent.acme.storage import Certificate, PrivateKey, Storage
from chp_gevent.config.acme_options import AcmeOptions

# Seconds that a CA has to look at the challenges of a certificate, and to issue it.
_VALIDATION_TIMEOUT: Final = 90.0
_ISSUE_TIMEOUT: Final = 90.0
# Seconds between two looks at a challenge: the first, and at the most.
_FIRST_LOOK: Final = 0.25
_LAST_LOOK: Final = 5.0
_UNKNOWN_ACCOUNT = "accountDoesNotExist"


class OrderIsOver(AcmeFailure):
    """Nothing can come of an order any more: it has expired, or was refused."""

    def __init__(self, reason: str) -> None:
        super().__init__(Fault.REFUSED, reason)


class _ReplacingOrder(messages.NewOrder):
    """A new order that says which certificate it replaces (RFC 9773, 5)."""

    replaces: str = field("replaces", omitempty=True)


class Authority:
    """A CA, as it is reached by its directory. What its methods raise, ``failure_of`` explains.

    Args:
        options: which CA, for which names.
        storage: where account and challenges are.
        key: the account's.

    Attributes:
        network: sends the requests.
    """

    def __init__(self, options: AcmeOptions, storage: Storage, key: PrivateKey) -> None:
        self._options = options
        self._storage = storage
        self.network = Network(key, options.ca)
        try:
            self._directory = client.ClientV2.get_directory(options.directory, self.network)
        except BaseException:
            self.close()
            raise
        self._client = client.ClientV2(self._directory, self.network)

    # -- account

    def enter(self) -> None:
        """Use the account that there is, or make one. Agrees to the terms of service."""
        account = self._storage.read_account()
        if account.get("directory") != self._options.directory or "uri" not in account:
            self._register()
            return
        body = messages.Registration()
        self.network.account = messages.RegistrationResource(body=body, uri=account["uri"])
        if account.get("email", "") != (self._options.email or ""):
            self._register()

    def enter_anew(self) -> None:
        """Make an account: the CA does not know the one that there was."""
        self.network.account = None
        self._register()

    def _register(self) -> None:
        self.network.account = None
        if self._client.external_account_required():
            raise AcmeFailure(
                Fault.REFUSED, "the CA wants an account of its own first, which is not supported"
            )
        new = messages.NewRegistration.from_data(
            email=self._options.email, terms_of_service_agreed=True
        )
        try:
            uri = self._client.new_account(new).uri
        except errors.ConflictError as known:
            # The key has an account (RFC 8555, 7.3.1).
            uri = known.location
            self.network.account = messages.RegistrationResource(
                body=messages.Registration(), uri=uri
            )
            self._update_contact(uri, new)
        self._storage.write_account(
            {
                "directory": self._options.directory,
                "uri": uri,
                "email": self._options.email or "",
            }
        )

    def _update_contact(self, uri: str, new: messages.NewRegistration) -> None:
        if new.contact:
            self._post(uri, messages.UpdateRegistration(contact=new.contact))

    # -- order

    def order(self, replaces: Certificate | None) -> messages.OrderResource:
        """Order a certificate."""
        names = [
            messages.Identifier(typ=messages.IDENTIFIER_FQDN, value=name)
            for name in self._options.domains
        ]
        if replaces is None or not self.suggests_renewal:
            return self._placed(messages.NewOrder(identifiers=names))
        try:
            return self._placed(
                _ReplacingOrder(identifiers=names, replaces=renewal_id(replaces.pem))
            )
        except (errors.ConflictError, messages.Error) as error:
            # It was replaced already, or is of another account: the CA need not accept that.
            if isinstance(error, messages.Error) and error.code != "malformed":
                raise
            return self._placed(messages.NewOrder(identifiers=names))

    def _placed(self, order: messages.NewOrder) -> messages.OrderResource:
        response = self._post(self._directory["newOrder"], order)
        body = messages.Order.from_json(response.json())
        return messages.OrderResource(body=body, uri=response.headers["Location"])

    def resume(self, uri: str) -> messages.OrderResource:
        """Return an order that was placed before.

        Raises ``OrderIsOver`` if nothing can come of it any more.
        """
        try:
            body = messages.Order.from_json(self._post(uri, None).json())
        except messages.Error as error:
            if error.code == _UNKNOWN_ACCOUNT:
                raise
            raise OrderIsOver(f"the CA says: {described(error)}") from None
        if body.status == messages.STATUS_INVALID:
            raise OrderIsOver("the CA says: the order is invalid")
        return messages.OrderResource(body=body, uri=uri)

    def prove(self, order: messages.OrderResource) -> None:
        """Show the CA that the names are ours, as far as it does not know it.

        The challenges stay open: the CA may look after an upgrade or a failure, too.

        Raises ``OrderIsOver`` if a part of the order has expired.
        """
        deadline = time.monotonic() + _VALIDATION_TIMEOUT
        for uri in self._open_challenges(order):
            self._wait_for_validation(uri, deadline)

    def _open_challenges(self, order: messages.OrderResource) -> list[str]:
        """Have the workers answer the challenges; return the URLs of their authorizations."""
        open_ones: list[str] = []
        for uri in order.body.authorizations:
            authorization = self._authorization(uri)
            if authorization.status == messages.STATUS_VALID:
                continue
            if authorization.status != messages.STATUS_PENDING:
                raise OrderIsOver(_refusal(authorization).reason)
            challenge = _http_challenge(authorization)
            response, answer = challenge.response_and_validation(self.network.key)
            self._storage.open_challenge(challenge.chall.encode("token"), answer)
            self._post(challenge.uri, response)
            open_ones.append(uri)
        return open_ones

    def _authorization(self, uri: str) -> messages.Authorization:
        return messages.Authorization.from_json(self._post(uri, None).json())

    def _wait_for_validation(self, uri: str, deadline: float) -> None:
        pause = _FIRST_LOOK
        while True:
            authorization = self._authorization(uri)
            if authorization.status == messages.STATUS_VALID:
                return
            if authorization.status != messages.STATUS_PENDING:
                raise _refusal(authorization)
            if time.monotonic() > deadline:
                name = authorization.identifier.value
                raise AcmeFailure(
                    Fault.UNREACHABLE,
                    f"the CA did not look at {name} within {_VALIDATION_TIMEOUT:g} s",
                )
            time.sleep(max(pause, min(self.network.retry_after, _LAST_LOOK)))
            pause = min(pause * 2, _LAST_LOOK)

    def issue(self, order: messages.OrderResource, key: PrivateKey) -> str:
        """Have an order's certificate issued for a key; return the chain as PEM."""
        order = order.update(csr_pem=signing_request(self._options.domains, key))
        # The library compares with local time.
        deadline = datetime.datetime.now() + datetime.timedelta(seconds=_ISSUE_TIMEOUT)
        if order.body.status in (messages.STATUS_VALID, messages.STATUS_PROCESSING):
            return str(self._client.poll_finalization(order, deadline).fullchain_pem)
        return str(self._client.finalize_order(order, deadline).fullchain_pem)

    # -- renewal

    @property
    def suggests_renewal(self) -> bool:
        """Whether the CA has an opinion on when certificates are to be renewed."""
        return hasattr(self._directory, "renewalInfo")

    def suggested_renewal(self, certificate: Certificate) -> tuple[float | None, float]:
        """Return when the CA would renew a certificate, and when to ask it next (RFC 9773).

        Both are Unix times; None: it has no opinion.
        """
        when, ask_again = self._client.renewal_time(certificate.pem)
        return (None if when is None else when.timestamp()), ask_again.timestamp()

    def close(self) -> None:
        """Leave."""
        self.network.close()

    def _post(self, url: str, body: Any) -> Any:
        return self.network.post(url, body, new_nonce_url=self._directory["newNonce"])


def _http_challenge(authorization: messages.Authorization) -> messages.ChallengeBody:
    for challenge in authorization.challenges:
        if isinstance(challenge.chall, challenges.HTTP01):
            return challenge
    name = authorization.identifier.value
    raise AcmeFailure(Fault.REFUSED, f"the CA offers no HTTP-01 for {name}")


def _refusal(authorization: messages.Authorization) -> AcmeFailure:
    name = authorization.identifier.value
    for challenge in authorization.challenges:
        if challenge.error is not None:
            return AcmeFailure(
                Fault.REFUSED, f"the CA says of {name}: {described(challenge.error)}"
            )
    status = authorization.status.name
    return AcmeFailure(Fault.REFUSED, f"the CA says of {name}: its authorization is {status}")


def signing_request(domains: tuple[str, ...], key: PrivateKey) -> bytes:
    """Return the PEM of a request for a certificate with these names (RFC 2986)."""
    names = x509.SubjectAlternativeName([x509.DNSName(name) for name in domains])
    request = x509.CertificateSigningRequestBuilder(x509.Name([]), [])
    signed = request.add_extension(names, critical=False).sign(key, hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.PEM)


def renewal_id(pem: bytes) -> str:
    """Return what names a certificate in RFC 9773 (4.1)."""
    certificate = x509.load_pem_x509_certificate(pem)
    authority = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier)
    serial = certificate.serial_number
    octets = serial.to_bytes(serial.bit_length() // 8 + 1, "big")
    key = authority.value.key_identifier or b""
    return f"{encode_b64jose(key)}.{encode_b64jose(octets)}"


def is_unknown_account(error: Exception) -> bool:
    """Whether the CA does not know the account, as one for tests after it was started again."""
    return isinstance(error, messages.Error) and error.code == _UNKNOWN_ACCOUNT
