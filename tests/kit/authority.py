"""A certificate authority whose certificates are files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import trustme

from chp_gevent.config.options import ClientTlsOptions, ServerTlsOptions

HOST = "localhost"
"""The name that certificates of servers are issued for."""


class Authority:
    """A certificate authority whose certificates are files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.folder.mkdir()
        self.authority = trustme.CA()
        self.ca = self.write("ca.pem", self.authority.cert_pem.bytes())

    def write(self, name: str, content: bytes) -> str:
        path = self.folder / name
        path.write_bytes(content)
        return str(path)

    def issue(self, name: str = HOST, **arguments: object) -> tuple[str, str]:
        """Issue a certificate; return the paths of its key and of its chain."""
        issued = self.authority.issue_cert(name, **arguments)  # type: ignore[arg-type]
        chain = b"".join(blob.bytes() for blob in issued.cert_chain_pems)
        stem = f"{len(list(self.folder.iterdir()))}"
        return (
            self.write(f"{stem}.key", issued.private_key_pem.bytes()),
            self.write(f"{stem}.crt", chain),
        )

    def server(self, **fields: object) -> ServerTlsOptions:
        key, cert = self.issue()
        return replace(ServerTlsOptions(key, cert), **fields)  # type: ignore[arg-type]

    def client(self, **fields: object) -> ClientTlsOptions:
        """A client that trusts this authority and shows no certificate."""
        return replace(ClientTlsOptions(ca=self.ca), **fields)  # type: ignore[arg-type]

    def client_with_cert(self, **arguments: object) -> ClientTlsOptions:
        key, cert = self.issue("user@example.org", **arguments)
        return self.client(key=key, cert=cert)
