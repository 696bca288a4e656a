"""The folder of ``--acme-storage``: account, certificates, state and open challenges.

::

    account.key          the account's key, for its owner's eyes only
    account.json         the account's URL, and what it was made for
    certificates/NAME/   fullchain.pem, privkey.pem and issued.json of one certificate
    current              a symbolic link to the one that is in use
    pending.key          the key of a certificate that has been ordered
    challenges/TOKEN     what HTTP-01 is answered with
    state.json           see ``state``
    lock                 held by the process that asks the CA; other servers take what comes of it

Each file is written beside its place and renamed into it, and a certificate changes together with
its key, by the link. Methods raise ``OSError`` when the folder can't be used.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from chp_gevent.acme import state as states
from chp_gevent.acme.state import State
from chp_gevent.config.acme_options import AcmeOptions
from chp_gevent.runtime.files import replace_file, sync_folder

PrivateKey = ec.EllipticCurvePrivateKey

# Certificates that are kept: the one that is used, and the one before.
_KEPT: Final = 2


class Corrupted(Exception):
    """A file does not hold what it should; the message names it."""


@dataclass(frozen=True)
class Certificate:
    """The certificate in use; times are Unix times.

    ``directory`` is the one of the CA that issued it, empty if that is not known.
    """

    pem: bytes
    names: frozenset[str]
    serial: str
    not_before: float
    not_after: float
    directory: str


class Storage:
    """Reads and writes the folder.

    Args:
        options: which folder, and what for.
    """

    def __init__(self, options: AcmeOptions) -> None:
        self._options = options
        self._root = Path(options.storage)
        self._lock: int | None = None

    def take(self) -> bool:
        """Be the process that changes what is here; False if another one is, of any server.

        It is so until :meth:`release`, or its end.
        """
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(self._root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                os.close(lock)
                return False
            # A file system without locks: nobody can tell.
        self._lock = lock
        return True

    def release(self) -> None:
        """Leave that to others."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def prepare(self) -> None:
        """Make the folders."""
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        (self._root / "certificates").mkdir(mode=0o700, exist_ok=True)
        Path(self._options.challenges).mkdir(mode=0o755, exist_ok=True)

    # -- state

    def read_state(self) -> State:
        """Return what was remembered last. Raises ``Corrupted``."""
        try:
            return states.load(Path(self._options.state).read_text("utf-8"))
        except FileNotFoundError:
            return State()
        except ValueError as error:
            raise Corrupted(f"{self._options.state}: {error}") from None

    def write_state(self, state: State) -> None:
        """Remember ``state``."""
        _write(Path(self._options.state), state.dump().encode(), mode=0o644)

    # -- account

    def account_key(self) -> PrivateKey:
        """Return the account's key; a new one if there is none. Raises ``Corrupted``."""
        path = self._root / "account.key"
        try:
            return _private_key(path)
        except FileNotFoundError:
            return self._new_key(path)

    def replace_account_key(self) -> PrivateKey:
        """Return a new key for another account; the file that there was is put aside."""
        path = self._root / "account.key"
        path.rename(path.with_suffix(".key.corrupted"))
        with contextlib.suppress(FileNotFoundError):
            (self._root / "account.json").unlink()
        return self._new_key(path)

    def read_account(self) -> dict[str, str]:
        """Return what was kept about the account; empty if nothing or nothing of use was."""
        try:
            account: Any = json.loads((self._root / "account.json").read_text("utf-8"))
        except (FileNotFoundError, ValueError):
            return {}
        if not isinstance(account, dict):
            return {}
        return {name: value for name, value in account.items() if isinstance(value, str)}

    def write_account(self, account: dict[str, str]) -> None:
        """Keep what is to be known about the account."""
        _write(self._root / "account.json", json.dumps(account).encode(), mode=0o600)

    # -- certificates

    def pending_key(self, *, new: bool) -> PrivateKey:
        """Return the key of the certificate that is being ordered.

        Raises ``Corrupted``, also when there is none and it is not to be a new one.
        """
        path = self._root / "pending.key"
        if new:
            return self._new_key(path)
        try:
            return _private_key(path)
        except FileNotFoundError:
            raise Corrupted(f"{path}: is not there") from None

    def certificate(self) -> Certificate | None:
        """Return the certificate in use, None if there is none. Raises ``Corrupted``."""
        path = Path(self._options.certificate)
        try:
            pem = path.read_bytes()
        except FileNotFoundError:
            return None
        try:
            key = _private_key(Path(self._options.key))
        except FileNotFoundError:
            raise Corrupted(f"{self._options.key}: is not there") from None
        return self._parsed(path, pem, key)

    def _parsed(self, path: Path, pem: bytes, key: PrivateKey) -> Certificate:
        try:
            certificate = x509.load_pem_x509_certificate(pem)
            names = certificate.extensions.get_extension_for_class(
                x509.SubjectAlternativeName
            ).value.get_values_for_type(x509.DNSName)
        except (ValueError, x509.ExtensionNotFound) as error:
            raise Corrupted(f"{path}: {error}") from None
        if certificate.public_key() != key.public_key():
            raise Corrupted(f"{path}: is not for the key beside it")
        directory = ""
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            directory = str(json.loads((path.parent / "issued.json").read_text())["directory"])
        return Certificate(
            pem=pem,
            names=frozenset(name.lower() for name in names),
            serial=f"{certificate.serial_number:x}",
            not_before=certificate.not_valid_before_utc.timestamp(),
            not_after=certificate.not_valid_after_utc.timestamp(),
            directory=directory,
        )

    def install(self, chain: str, key: PrivateKey) -> Certificate:
        """Put a certificate with its key into use, both at once. Raises ``Corrupted``."""
        pem = chain.encode()
        source = Path("the CA's certificate")
        certificate = self._parsed(source, pem, key)
        if not certificate.names >= set(self._options.domains):
            raise Corrupted(f"{source}: is for other names")
        certificates = self._root / "certificates"
        folder = Path(tempfile.mkdtemp(prefix="0", dir=certificates))
        _write(folder / "privkey.pem", _pem(key), mode=0o600)
        issued = {"directory": self._options.directory}
        _write(folder / "issued.json", json.dumps(issued).encode(), mode=0o644)
        _write(folder / "fullchain.pem", pem, mode=0o644)
        # In the order of their names they are in that of their time.
        named = certificates / f"{int(certificate.not_before):012d}-{certificate.serial}"
        shutil.rmtree(named, ignore_errors=True)
        folder.rename(named)
        self._link(named)
        with contextlib.suppress(FileNotFoundError):
            (self._root / "pending.key").unlink()
        for old in sorted(certificates.iterdir())[:-_KEPT]:
            if old != named:
                shutil.rmtree(old, ignore_errors=True)
        found = self.certificate()
        assert found is not None
        return found

    def _link(self, folder: Path) -> None:
        link = self._root / "current.new"
        with contextlib.suppress(FileNotFoundError):
            link.unlink()
        link.symlink_to(folder.relative_to(self._root))
        current = self._root / "current"
        if current.is_dir() and not current.is_symlink():
            # Somebody has put a folder there, which no link can be renamed over.
            shutil.rmtree(current)
        link.rename(current)
        sync_folder(self._root)

    # -- challenges

    def open_challenge(self, token: str, answer: str) -> None:
        """Have the workers answer a challenge."""
        _write(Path(self._options.challenges) / token, answer.encode(), mode=0o644)

    def close_challenges(self) -> None:
        """Have them answer none any more."""
        with contextlib.suppress(OSError):
            for challenge in Path(self._options.challenges).iterdir():
                challenge.unlink()

    # -- files

    def _new_key(self, path: Path) -> PrivateKey:
        key = ec.generate_private_key(ec.SECP256R1())
        _write(path, _pem(key), mode=0o600)
        return key


def _write(path: Path, content: bytes, *, mode: int) -> None:
    replace_file(path, content, mode, lasting=True)


def _private_key(path: Path) -> PrivateKey:
    """Raises ``Corrupted``, and ``FileNotFoundError``."""
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), None)
    except (ValueError, TypeError) as error:
        reason = str(error).partition("\n")[0].partition(" (")[0] or "no private key"
        raise Corrupted(f"{path}: {reason}") from None
    if not isinstance(key, PrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise Corrupted(f"{path}: is not a key on the curve P-256")
    return key


def _pem(key: PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
