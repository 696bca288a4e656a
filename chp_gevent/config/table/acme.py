"""Options: HTTPS by itself."""

from __future__ import annotations

from typing import Final

from chp_gevent.config import acme_options
from chp_gevent.config.option import Option
from chp_gevent.config.readers import parsed, parsed_all, required, switch, text

TITLE: Final = "HTTPS by itself (needs pip install 'chp-gevent[acme]')"

ACME_DOMAIN = Option(
    "--acme-domain",
    parsed_all(acme_options.domain),
    metavar="NAME",
    repeatable=True,
    help=(
        "Get and renew a certificate for this name, in place of --ssl-key and --ssl-cert; may be "
        "repeated. Needs --acme-agree-tos, and --redirect-port, which the CA asks on port 80."
    ),
    shown_default="none",
    meaning=(
        "Get a certificate for this name from an ACME server, and renew it; may be repeated, for "
        "one certificate with all names. In place of `--ssl-key` and `--ssl-cert`. Needs "
        "`--acme-agree-tos`, and `--redirect-port`, where the CA's requests to port 80 have to "
        "arrive. [More on it](how-to/tls.md#by-itself)."
    ),
    since="ours",
    difference="CHP has none of this.",
)

ACME_AGREE_TOS = Option(
    "--acme-agree-tos",
    switch,
    help="Agree to the CA's terms of service.",
    shown_default="off",
    meaning=(
        "You agree to the terms of service of the CA "
        "([Let's Encrypt's](https://letsencrypt.org/repository/))."
    ),
    since="ours",
)

ACME_EMAIL = Option(
    "--acme-email",
    parsed(acme_options.email),
    metavar="ADDRESS",
    help="Where the CA may write to.",
    shown_default="none",
    meaning="The e-mail address of the account, where the CA may write to.",
    since="ours",
)

ACME_DIRECTORY = Option(
    "--acme-directory",
    required(parsed(acme_options.directory)),
    metavar="URL",
    default="letsencrypt",
    help="The ACME server's directory: letsencrypt, staging (its tests), or a URL.",
    meaning=(
        "The directory of the ACME server: `letsencrypt`, `staging` (Let's Encrypt's server for "
        "tests, whose certificates no browser trusts, and which has hardly any limits), or a URL."
    ),
    since="ours",
)

ACME_STORAGE = Option(
    "--acme-storage",
    text,
    metavar="DIR",
    help="Folder of the account and the certificates.",
    shown_default="`acme` in the state directory",
    meaning=(
        "Folder of the account's key, the certificates and what has been tried; it must outlive "
        "the server, or each start asks the CA for a certificate. By default `acme` in what "
        "systemd's `StateDirectory=` names, else in `/var/lib/chp-gevent` for root, and in "
        "`~/.local/state/chp-gevent` (or under `$XDG_STATE_HOME`) for others."
    ),
    since="ours",
)

ACME_CA = Option(
    "--acme-ca",
    text,
    metavar="FILE",
    help="Authorities that the ACME server's own certificate must come from (PEM).",
    shown_default="those of `requests`",
    meaning=(
        "Authorities that the certificate of the ACME server itself must come from, PEM: for a "
        "private one."
    ),
    since="ours",
)
