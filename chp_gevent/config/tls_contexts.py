"""TLS contexts, built from options as Node builds them for CHP.

The arbiter builds them, at the start and at a reload, and its children inherit them: a worker
that replaces a dead one has the certificates of the others, whatever the files hold by then, and
all workers resume each other's TLS sessions. gevent's patching replaces the classes of ``ssl``.
So nothing here keeps an ``ssl`` object, and ``ssl`` is imported when a function runs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

from chp_gevent.config.options import (
    ClientTlsOptions,
    OptionError,
    Options,
    ServerTlsOptions,
    passphrase_variable,
)
from chp_gevent.runtime.files import read_regular
from chp_gevent.runtime.tls_errors import describe_failure

if TYPE_CHECKING:
    import ssl

    from chp_gevent.runtime.session_tickets import SessionTickets

CIPHERS = ":".join(
    (
        # CHP's list, but for two names that OpenSSL does not know
        "ECDHE-RSA-AES128-GCM-SHA256",
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "ECDHE-RSA-AES256-GCM-SHA384",
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        "DHE-RSA-AES128-GCM-SHA256",
        "ECDHE-RSA-AES128-SHA256",
        "DHE-RSA-AES128-SHA256",
        "ECDHE-RSA-AES256-SHA384",
        "DHE-RSA-AES256-SHA256",
        "HIGH",
        *("!RC4", "!aNULL", "!eNULL", "!EXPORT", "!DES", "!MD5", "!PSK", "!SRP", "!CAMELLIA"),
    )
)
"""The default suites up to TLS 1.2. Those of TLS 1.3 are OpenSSL's, as in Node."""

# Node's names of secureProtocol, which CHP appends "_method" to, and ssl.TLSVersion's names of
# the lowest and the highest version. In Node, SSLv23 ends with TLS 1.2; TLSv1_3 is ours.
_PROTOCOLS = {
    "SSLv23": ("TLSv1_2", "TLSv1_2"),
    "TLS": ("TLSv1_2", "MAXIMUM_SUPPORTED"),
    "TLSv1": ("TLSv1", "TLSv1"),
    "TLSv1_1": ("TLSv1_1", "TLSv1_1"),
    "TLSv1_2": ("TLSv1_2", "TLSv1_2"),
    "TLSv1_3": ("TLSv1_3", "TLSv1_3"),
}
_LEGACY_PROTOCOLS = ("TLSv1", "TLSv1_1")
_SECURITY_LEVEL_0 = "@SECLEVEL=0"


class ServerContext(NamedTuple):
    """The context of a listening socket, and the keys of the sessions that clients resume."""

    context: ssl.SSLContext
    tickets: SessionTickets
    has_certificate: bool = True
    """Without one, each handshake fails."""


@dataclass(frozen=True)
class TlsContexts:
    """The contexts of one server, with what was in its files when they were read.

    Attributes:
        public: towards clients of the proxy; None for plain TCP.
        api: towards clients of the API; None for plain TCP.
        targets: towards ``https`` targets.
        numbers: that of the contents that each was made of; see ``live_tls``.
    """

    public: ServerContext | None
    api: ServerContext | None
    targets: ssl.SSLContext
    numbers: Mapping[str, int] = field(default_factory=dict)

    def use_secrets(self, secrets: Sequence[bytes]) -> None:
        """Have sessions resumed with keys that are made of these; see ``TicketSecrets``."""
        for server in (self.public, self.api):
            if server is not None:
                server.tickets.use(secrets)


def read_contexts(options: Options) -> TlsContexts:
    """Read all files of certificates and keys. Raises OptionError."""
    if options.acme is not None and options.acme.ca is not None:
        _check_authorities("--acme-ca", options.acme.ca)
    return TlsContexts(
        public=resuming_context(options.tls) if options.tls is not None else None,
        api=resuming_context(options.api_tls) if options.api_tls is not None else None,
        targets=client_context(options.proxy.client_tls),
    )


def resuming_context(options: ServerTlsOptions) -> ServerContext:
    """Build the context of a listening socket, whose sessions any process of the server resumes.

    None are resumed on another listener, nor after a change of who may have a client certificate.
    It has no certificate where that ``comes_later`` and can't be used.

    Raises OptionError.
    """
    from chp_gevent.runtime.session_tickets import SessionTickets

    has_certificate = True
    try:
        context = server_context(options)
    except OptionError:
        if not options.comes_later:
            raise
        context = server_context(replace(options, key=None, cert=None))
        has_certificate = False
    purpose = hashlib.sha256(options.flag_prefix.encode())
    if options.request_cert and options.ca:
        with open(options.ca, "rb") as file:
            purpose.update(file.read())
    return ServerContext(context, SessionTickets(context, purpose.digest()), has_certificate)


def server_context(options: ServerTlsOptions) -> ssl.SSLContext:
    """Build the context of a listening socket.

    ALPN is ``http/1.1``; the order of suites is the server's; without ``--ssl-protocol``, TLS 1.2
    and 1.3. With ``request_cert``, a client without a certificate of ``ca`` fails in the
    handshake; CHP and Node do it right after the handshake.

    Raises OptionError naming the flag of what is missing, unreadable or does not fit.
    """
    import ssl

    prefix = options.flag_prefix
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE | ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    # A ticket for each connection. The second one of OpenSSL's default is 5% of a handshake, and
    # for clients that return with several connections, which have come with several before.
    context.num_tickets = 1
    _set_versions(context, options)
    _set_ciphers(context, options.ciphers)
    if options.key is not None and options.cert is not None:
        _load_certificate(context, prefix, options.cert, options.key, options.passphrase)
    elif options.key or options.cert or not options.comes_later:
        raise _half_given(prefix, missing="key" if options.key is None else "cert")
    if options.dhparam:
        _load_dhparam(context, options.dhparam)
    if options.ca:
        # also without request_cert: Node, too, completes the chain of --ssl-cert from it
        _load_authorities(context, f"{prefix}-ca", options.ca)
    if options.request_cert:
        context.verify_mode = ssl.CERT_REQUIRED
        if not options.ca:
            context.load_default_certs(ssl.Purpose.CLIENT_AUTH)
    return context


def client_context(options: ClientTlsOptions) -> ssl.SSLContext:
    """Build the context of connections to ``https`` targets.

    Certificates are verified, with the host name, unless ``--insecure``; ``--client-ssl-ca``
    replaces the authorities of the system, as in Node.

    Raises OptionError naming the flag of what is missing, unreadable or does not fit.
    """
    import ssl

    prefix = "--client-ssl"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # Some builds of Python set it: a connection that was cut would look like one that was closed.
    context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
    context.set_alpn_protocols(["http/1.1"])
    if not options.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if options.ca:
        _load_authorities(context, f"{prefix}-ca", options.ca)
    elif options.verify:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    if options.cert and options.key:
        _load_certificate(context, prefix, options.cert, options.key, None)
    elif options.cert or options.key:
        raise _half_given(prefix, missing="key" if options.cert else "cert")
    return context


def _set_versions(context: ssl.SSLContext, options: ServerTlsOptions) -> None:
    import ssl

    if options.protocol is None:
        return
    name = options.protocol.replace(".", "_").removesuffix("_method").removesuffix("_server")
    if name not in _PROTOCOLS:
        raise OptionError(
            f"--ssl-protocol: {options.protocol!r} is not one of {', '.join(_PROTOCOLS)}"
        )
    if name in _LEGACY_PROTOCOLS and _SECURITY_LEVEL_0 not in (options.ciphers or ""):
        raise OptionError(
            f"--ssl-protocol: {options.protocol!r} works in OpenSSL 3 only with --ssl-ciphers "
            f"that contain {_SECURITY_LEVEL_0}"
        )
    lowest, highest = _PROTOCOLS[name]
    context.minimum_version = ssl.TLSVersion[lowest]
    context.maximum_version = ssl.TLSVersion[highest]


def _set_ciphers(context: ssl.SSLContext, ciphers: str | None) -> None:
    """As Node: names of TLS 1.3 suites may be among the others, or alone for TLS 1.3 alone."""
    import ssl

    names = [name for name in (ciphers or CIPHERS).split(":") if name]
    older = [name for name in names if not name.startswith("TLS_")]
    known = {suite["name"] for suite in context.get_ciphers()}
    for name in names:
        if name.startswith("TLS_") and name not in known:
            raise OptionError(f"--ssl-ciphers: {name!r} is not a suite that OpenSSL offers")
    if names and not older:
        if context.maximum_version < ssl.TLSVersion.TLSv1_3 and context.maximum_version > 0:
            raise OptionError(f"--ssl-ciphers: {ciphers!r} has no suite for --ssl-protocol")
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        return
    try:
        context.set_ciphers(":".join(older))
    except ssl.SSLError:
        raise OptionError(f"--ssl-ciphers: {ciphers!r} has no suite that OpenSSL knows") from None


def _half_given(prefix: str, *, missing: str) -> OptionError:
    given = {"key": "cert", "cert": "key"}[missing]
    return OptionError(f"{prefix}-{missing}: is not given, and {prefix}-{given} is of no use alone")


def _load_certificate(
    context: ssl.SSLContext, prefix: str, cert: str, key: str, passphrase: str | None
) -> None:
    import ssl

    _check_pem(f"{prefix}-cert", cert, "CERTIFICATE-----", "certificate")
    _check_pem(f"{prefix}-key", key, "PRIVATE KEY-----", "private key")
    asked = False

    def password() -> str:
        # without this function, OpenSSL asks on the terminal
        nonlocal asked
        asked = True
        return passphrase or ""

    try:
        context.load_cert_chain(cert, key, password)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise OptionError(
                f"{prefix}-key: {key!r} is not the key of {prefix}-cert {cert!r}"
            ) from None
        if asked:
            raise OptionError(f"{prefix}-key: {key!r} {_undecrypted(prefix, passphrase)}") from None
        # OpenSSL does not tell which file it means
        _check_authorities(f"{prefix}-cert", cert)
        flag, path = ("cert", cert) if error.reason else ("key", key)
        raise OptionError(f"{prefix}-{flag}: {path!r} {_unusable(error)}") from None


def _unusable(error: ssl.SSLError) -> str:
    return f"can't be used: {describe_failure(error)}" if error.reason else "is malformed"


def _undecrypted(prefix: str, passphrase: str | None) -> str:
    if prefix == "--client-ssl":
        return "is encrypted, and there is no passphrase for it"
    variable = passphrase_variable(prefix)
    if passphrase:
        return f"can't be decrypted with the passphrase in {variable}"
    return f"is encrypted, and {variable} is not set"


def _load_authorities(context: ssl.SSLContext, flag: str, path: str) -> None:
    import ssl

    _check_pem(flag, path, "CERTIFICATE-----", "certificate")
    try:
        context.load_verify_locations(path)
    except ssl.SSLError as error:
        raise OptionError(f"{flag}: {path!r} {_unusable(error)}") from None


def _check_authorities(flag: str, path: str) -> None:
    import ssl

    _load_authorities(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), flag, path)


def _load_dhparam(context: ssl.SSLContext, path: str) -> None:
    import ssl

    _check_pem("--ssl-dhparam", path, "DH PARAMETERS-----", "Diffie-Hellman parameters")
    try:
        context.load_dh_params(path)
    except ssl.SSLError as error:
        raise OptionError(f"--ssl-dhparam: {path!r} {_unusable(error)}") from None


def _check_pem(flag: str, path: str, mark: str, content: str) -> None:
    """Check that a file can be read and has a PEM block that begins like ``mark``.

    Nothing is read of what is no regular file: a pipe has nothing left for OpenSSL, which reads the
    file again, and holds whoever opens it for as long as nobody writes to it.
    """
    try:
        text = read_regular(path).decode("latin-1")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OptionError(f"{flag}: {path!r} can't be read: {reason}") from None
    if mark not in text:
        raise OptionError(f"{flag}: {path!r} has no {content} in PEM form")
