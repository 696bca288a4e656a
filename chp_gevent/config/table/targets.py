"""Options: targets."""

from __future__ import annotations

from typing import Final

from chp_gevent.config.option import Option
from chp_gevent.config.readers import parsed, switch, text
from chp_gevent.config.values import target_url

TITLE: Final = "Targets"

DEFAULT_TARGET = Option(
    "--default-target",
    parsed(target_url),
    metavar="URL",
    help="Where requests without a route go: proto://host[:port].",
    meaning=(
        "Where requests without a route go: `http://`, `https://`, `http+unix://` or "
        "`unix+http://`, with host, port, path and query. A socket's path is percent-encoded, "
        "`http+unix://%2Frun%2Fx.sock`."
    ),
    since="0.0.3",
    difference=(
        "Bad URLs, and those with credentials or a fragment, are refused at start; CHP answers "
        "500 later."
    ),
)

ERROR_TARGET = Option(
    "--error-target",
    parsed(target_url),
    metavar="URL",
    help="Server to get error pages from: URL/CODE?url=REQUEST.",
    meaning=(
        "Server to get error pages from: `GET URL/CODE?url=REQUEST`. When it fails, it is the "
        "page of `--error-path`, else the plain reason."
    ),
    since="0.5",
    difference=(
        "As before. It has 5 seconds to answer; CHP waits for ever. CHP refuses it together "
        "with `--error-path`."
    ),
)

ERROR_PATH = Option(
    "--error-path",
    text,
    metavar="DIR",
    help=(
        "Folder with error pages: CODE.html, error.html; beside an --error-target, for when "
        "that fails."
    ),
    shown_default="built-in pages",
    meaning="Folder with error pages, `CODE.html` or `error.html`.",
    since="0.5",
    difference="The folder must exist at start. Beside `--error-target` it is for when that fails.",
)

CLIENT_SSL_KEY = Option(
    "--client-ssl-key",
    text,
    metavar="FILE",
    help="Private key for https targets (PEM).",
    meaning="Private key to show to `https` targets, PEM, not encrypted.",
    since="4.0",
    difference="Checked at start, together with the certificate.",
)

CLIENT_SSL_CERT = Option(
    "--client-ssl-cert",
    text,
    metavar="FILE",
    help="Certificate for https targets (PEM).",
    meaning="Certificate to show to `https` targets, PEM.",
    since="4.0",
    difference="As before.",
)

CLIENT_SSL_CA = Option(
    "--client-ssl-ca",
    text,
    metavar="FILE",
    help=(
        "Authorities that certificates of targets must come from (PEM), instead of those of the "
        "system."
    ),
    shown_default="those of the system",
    meaning=(
        "Authorities that certificates of targets must come from, instead of those of the "
        "system, PEM, one or many."
    ),
    since="4.0",
    difference=(
        "Without it, Node has its own list; ours is OpenSSL's (`SSL_CERT_FILE`, "
        "`SSL_CERT_DIR`). The certificate must be for the host of the target's URL; CHP "
        "compares it with the client's Host header."
    ),
)

CLIENT_SSL_REQUEST_CERT = Option(
    "--client-ssl-request-cert",
    switch,
    help="No effect, as in CHP.",
    meaning="No effect: there is nothing to request as a client.",
    since="4.0",
)

CLIENT_SSL_REJECT_UNAUTHORIZED = Option(
    "--client-ssl-reject-unauthorized",
    switch,
    help="No effect, as in CHP: certificates of targets are verified.",
    meaning="No effect: certificates of targets are always verified, but for `--insecure`.",
    since="4.0",
)

INSECURE = Option(
    "--insecure",
    switch,
    help="Don't verify certificates of targets.",
    shown_default="off",
    meaning="Don't verify certificates of targets.",
    since="0.2",
    difference="Works; CHP 5.3.0 verifies all the same and answers 503.",
)
