"""One row of the comparison: what a client sends, and what the target replies."""

from __future__ import annotations

from dataclasses import dataclass

from tests.kit.peers.raw_target import OK, Reply

NO_TOKEN = "no token"
"""The group whose servers let everybody change routes."""

GROUPS: dict[str, tuple[str, ...]] = {
    "plain": (),
    "no x-forward": ("--no-x-forward",),
    "no prefix": ("--no-include-prefix",),
    "no prepend": ("--no-prepend-path",),
    "change origin": ("--change-origin",),
    "custom header": ("--custom-header", "X-Own: mine", "--custom-header", "accept:a/b"),
    "auto rewrite": ("--auto-rewrite",),
    "protocol rewrite": ("--protocol-rewrite", "https"),
    "both rewrites": ("--auto-rewrite", "--protocol-rewrite", "https"),
    "host routing": ("--host-routing",),
    "error path": ("--error-path", "{folder}"),
    "error target": ("--error-target", "{error_target}"),
    "proxy timeout": ("--proxy-timeout", "200"),
    NO_TOKEN: (),
}
"""The flags that a server is started with for the cases of a group."""

ROUTES = {
    "/t": "{target}",
    "/t/deep/er": "{target}",
    "/base": "{target}/base/path",
    "/slash": "{target}/base/path/",
    "/query": "{target}/base?fixed=1",
    "/dead": "http://127.0.0.1:{dead_port}",
    "/user/a@b": "{target}",
    "/user/秀樹": "{target}",
    "/has space": "{target}",
    "/proxy.test": "{target}",
    "/other.test/sub": "{target}",
}
"""The table that every case begins with."""


@dataclass(frozen=True)
class Case:
    """``answers`` is how many responses the client waits for; ``to`` is ``proxy`` or ``api``."""

    name: str
    sent: bytes
    reply: Reply = OK
    answers: int = 1
    group: str = "plain"
    to: str = "proxy"


def request(
    path: str = "/t",
    *lines: str,
    method: str = "GET",
    body: bytes = b"",
    version: str = "1.1",
    host: str | None = "proxy.test",
) -> bytes:
    """Return a request; a Content-Length is added if there is a body and no framing."""
    fields = [f"Host: {host}"] if host is not None else []
    fields += lines
    if body and not any("content-length" in f.lower() or "transfer-" in f.lower() for f in fields):
        fields.append(f"Content-Length: {len(body)}")
    head = "\r\n".join([f"{method} {path} HTTP/{version}", *fields, "", ""])
    return head.encode("latin-1") + body
