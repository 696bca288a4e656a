"""Options: TLS towards clients."""

from __future__ import annotations

from typing import Final

from chp_gevent.config.option import Option
from chp_gevent.config.readers import switch, text

TITLE: Final = "TLS towards clients"

SSL_KEY = Option(
    "--ssl-key",
    text,
    metavar="FILE",
    help=(
        "Private key (PEM). It may be encrypted with the passphrase in the environment variable "
        "CONFIGPROXY_SSL_KEY_PASSPHRASE."
    ),
    meaning=(
        "Private key of `--ssl-cert`, PEM. Turns TLS towards clients on. May be encrypted with "
        "the passphrase in `CONFIGPROXY_SSL_KEY_PASSPHRASE`."
    ),
    since="0.0.3",
    difference=(
        "Key and certificate are checked at start. RSA keys under 2048 bits need "
        "`--ssl-ciphers` with `@SECLEVEL=1`."
    ),
)

SSL_CERT = Option(
    "--ssl-cert",
    text,
    metavar="FILE",
    help="Certificate, and those between it and the root (PEM).",
    meaning="Certificate, followed by those between it and the root, PEM.",
    since="0.0.3",
    difference="As before.",
)

SSL_CA = Option(
    "--ssl-ca",
    text,
    metavar="FILE",
    help="Authorities that client certificates must come from (PEM).",
    shown_default="those of the system",
    meaning=(
        "Authorities that client certificates must come from, PEM, one or many. Also completes "
        "the chain of `--ssl-cert`."
    ),
    since="1.0",
    difference="Clients are not told the names of the authorities: Python can't.",
)

SSL_REQUEST_CERT = Option(
    "--ssl-request-cert",
    switch,
    help="Require client certificates.",
    shown_default="off",
    meaning=(
        "Clients must show a certificate of one of the authorities. Without `--ssl-ca` those "
        "are all that the system trusts, which is a warning."
    ),
    since="1.1",
    difference=(
        "A client without a good certificate fails in the handshake; with CHP its connection is "
        "closed right after it."
    ),
)

SSL_REJECT_UNAUTHORIZED = Option(
    "--ssl-reject-unauthorized",
    switch,
    help="Implied by the one before, as in CHP.",
    shown_default="implied",
    meaning=(
        "Node rejects bad client certificates unless told not to, and CHP never tells it, so "
        "`--ssl-request-cert` alone does the same."
    ),
    since="1.1",
)

SSL_PROTOCOL = Option(
    "--ssl-protocol",
    text,
    metavar="NAME",
    help=(
        "Only this version of TLS: TLSv1_2 or TLSv1_3. SSLv23 is up to TLSv1_2, TLS all "
        "versions from there."
    ),
    shown_default="TLS 1.2 and 1.3",
    meaning=(
        "`TLSv1_2` or `TLSv1_3`: only that version. `SSLv23`: up to 1.2 (Node's meaning). "
        "`TLS`: 1.2 and above. With a dot, and with `_method` at the end, too. `TLSv1` and "
        "`TLSv1_1` need `--ssl-ciphers` with `@SECLEVEL=0`. For the proxy and the API."
    ),
    since="1.3",
    difference=(
        "`TLSv1_3`, and the names with dots or `_method`, are ours. Versions that OpenSSL can't "
        "speak (`SSLv3`) are one line instead of a stack trace."
    ),
)

SSL_CIPHERS = Option(
    "--ssl-ciphers",
    text,
    metavar="LIST",
    help="Cipher suites in OpenSSL's notation, separated by colons.",
    shown_default="CHP's list",
    meaning=(
        "Suites up to TLS 1.2 in OpenSSL's notation, separated by colons, in the order of "
        "preference; names of TLS 1.3 suites alone mean TLS 1.3 only. For the proxy and the "
        "API."
    ),
    since="1.0",
    difference="TLS 1.3 suites can't be chosen one by one: Python offers all of them or none.",
)

SSL_ALLOW_RC4 = Option(
    "--ssl-allow-rc4",
    switch,
    help="No effect: OpenSSL 3 has no RC4.",
    shown_default="off",
    meaning="No effect, which is a warning: OpenSSL 3 has no RC4.",
    since="1.0",
    difference="CHP is silent about it.",
)

SSL_DHPARAM = Option(
    "--ssl-dhparam",
    text,
    metavar="FILE",
    help="Diffie-Hellman parameters (PEM).",
    meaning="Diffie-Hellman parameters, PEM: allows DHE suites. For the proxy and the API.",
    since="1.0",
    difference="Groups under 2048 bits need `--ssl-ciphers` with `@SECLEVEL=1`.",
)
