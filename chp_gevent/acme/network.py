"""Requests to an ACME server: certbot's library, with what it lacks."""

from __future__ import annotations

from typing import Any, Final

import requests
from acme import client, messages
from josepy.jwa import ES256
from josepy.jwk import JWKEC

from chp_gevent._version import __version__
from chp_gevent.acme.failures import seconds_of
from chp_gevent.acme.storage import PrivateKey

TIMEOUT: Final = 30
"""Seconds that the CA may be silent."""

# RFC 8555, 6.5: a nonce that is refused comes with another one. The library tries twice.
_NONCES: Final = 10


class Network(client.ClientNetwork):
    """Signs and sends requests.

    Args:
        key: the account's.
        ca: file with the authorities of the server's own certificate; None for the usual ones.

    Attributes:
        retry_after: seconds that the last answer asked to wait, 0 if it did not.
    """

    def __init__(self, key: PrivateKey, ca: str | None) -> None:
        super().__init__(
            JWKEC(key=key),
            alg=ES256,
            user_agent=f"chp-gevent/{__version__}",
            timeout=TIMEOUT,
        )
        self.retry_after = 0.0
        if ca is not None:
            # `requests` takes a file in this place.
            self.verify_ssl = ca  # type: ignore[assignment]
        self.session.hooks["response"].append(self._note_answer)

    def _note_answer(self, response: requests.Response, *_: Any, **__: Any) -> None:
        self.retry_after = seconds_of(response.headers.get("Retry-After"))

    def post(self, *args: Any, **kwargs: Any) -> requests.Response:
        """POST; again, with another nonce, when the server does not like that which was used."""
        for _ in range(_NONCES):
            try:
                return super().post(*args, **kwargs)
            except messages.Error as error:
                if error.code != "badNonce":
                    raise
        return super().post(*args, **kwargs)

    def close(self) -> None:
        """Close what is open to the server."""
        self.session.close()
