"""What ``--acme-*`` say: HTTPS by itself. Imports nothing of the extra ``[acme]``."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address

DIRECTORIES = {
    "letsencrypt": "https://acme-v02.api.letsencrypt.org/directory",
    "staging": "https://acme-staging-v02.api.letsencrypt.org/directory",
}
"""Short names of ACME servers, and the URLs of their directories (RFC 8555, 7.1.1)."""

_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_EMAIL = re.compile(r"[^\s@,:?&]+@[^\s@,:?&]+")
_LONGEST_NAME = 253


@dataclass(frozen=True)
class AcmeOptions:
    """Certificates of an ACME server for the proxy's public port.

    Attributes:
        domains: the names that one certificate is for, without repetitions.
        directory: URL of the server's directory.
        storage: the folder of the account and the certificates.
        email: whom the CA may write to.
        ca: file with the authorities of the server's own certificate; None for the usual ones.
    """

    domains: tuple[str, ...]
    directory: str
    storage: str
    email: str | None = None
    ca: str | None = None

    @property
    def names(self) -> str:
        """The names in words, for the log."""
        return ", ".join(self.domains)

    @property
    def certificate(self) -> str:
        """The file of the certificate and those between it and the root."""
        return os.path.join(self.storage, "current", "fullchain.pem")

    @property
    def key(self) -> str:
        """The file of the certificate's private key."""
        return os.path.join(self.storage, "current", "privkey.pem")

    @property
    def state(self) -> str:
        """The file of what has been tried, and when the next attempt may be."""
        return os.path.join(self.storage, "state.json")

    @property
    def challenges(self) -> str:
        """The folder with a file for each HTTP-01 challenge (RFC 8555, 8.3) that is open."""
        return os.path.join(self.storage, "challenges")


def domain(value: str) -> str:
    """Return a name that a CA can be asked for, in its form for DNS.

    Raises ``ValueError``.
    """
    if value.startswith("*."):
        raise ValueError("is a wildcard, which can't be shown by HTTP-01: name each host")
    name = value.strip().rstrip(".").lower()
    if _is_address(name):
        raise ValueError("is an address: a certificate is for names")
    if not name.isascii():
        try:
            name = name.encode("idna").decode("ascii")
        except UnicodeError:
            raise ValueError("is not a host name") from None
    if len(name) > _LONGEST_NAME or not all(map(_LABEL.fullmatch, name.split("."))):
        raise ValueError("is not a host name")
    return name


def _is_address(name: str) -> bool:
    try:
        ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def directory(value: str) -> str:
    """Return the URL of a directory, whose short name may be given. Raises ``ValueError``."""
    url = DIRECTORIES.get(value.lower(), value)
    # RFC 8555, 6.1: over HTTPS only.
    if not re.fullmatch(r"https://[^\s/]+(/\S*)?", url):
        names = ", ".join(DIRECTORIES)
        raise ValueError(f"is neither one of {names} nor a URL that begins with https://")
    return url


def email(value: str) -> str:
    """Return an address of e-mail as it stands. Raises ``ValueError``."""
    if not _EMAIL.fullmatch(value):
        raise ValueError("is not an e-mail address")
    return value


def default_storage(environ: Mapping[str, str], *, is_root: bool) -> str:
    """Return the folder for certificates under the state directory.

    That is the one which systemd gives a service (``StateDirectory=``), else ``/var/lib`` for root
    and ``~/.local/state`` for others (XDG Base Directory Specification).
    """
    if given := environ.get("STATE_DIRECTORY"):
        return os.path.join(given.split(":")[0], "acme")
    if is_root:
        return "/var/lib/chp-gevent/acme"
    home = os.path.join(environ.get("HOME") or "/", ".local", "state")
    return os.path.join(environ.get("XDG_STATE_HOME") or home, "chp-gevent", "acme")
