"""HTTP-01 on the redirect port: what is answered, and what is redirected as ever."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from chp_gevent.proxy.challenges import Challenges

PREFIX = "/.well-known/acme-challenge/"
TOKEN = "aB3_-" * 8


class Ask:
    """An application that counts what it gets, behind the challenges of a folder."""

    def __init__(self, folder: Path) -> None:
        self.redirected = 0
        self._app = Challenges(self._redirect, str(folder))

    def _redirect(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        self.redirected += 1
        start_response("301 Moved Permanently", [])
        return []

    def __call__(self, path: str, method: str = "GET") -> tuple[str, bytes]:
        statuses: list[str] = []
        environ = {"RAW_URI": path, "REQUEST_METHOD": method, "HTTP_HOST": "any.test"}
        body = b"".join(self._app(environ, lambda status, headers: statuses.append(status)))
        return statuses[0][:3], body


@pytest.fixture
def ask(tmp_path: Path) -> Ask:
    """A folder with one open challenge, and things that are none."""
    folder = tmp_path / "challenges"
    folder.mkdir()
    (folder / TOKEN).write_text(f"{TOKEN}.hash")
    (folder / "folder").mkdir()
    (tmp_path / "account").write_text("secret")
    (folder / "link").symlink_to(tmp_path / "account")
    (folder / "a.b").write_text("secret")
    return Ask(folder)


def test_an_open_challenge_is_answered(ask: Ask) -> None:
    assert ask(PREFIX + TOKEN) == ("200", f"{TOKEN}.hash".encode())
    assert ask.redirected == 0


@pytest.mark.parametrize(
    "path",
    [
        "/",
        PREFIX,
        f"{PREFIX}unknown",
        f"{PREFIX}folder",
        f"{PREFIX}link",
        f"{PREFIX}a.b",
        f"{PREFIX}..",
        f"{PREFIX}../account",
        f"{PREFIX}..%2Faccount",
        f"{PREFIX}{TOKEN}/",
        f"{PREFIX}{TOKEN}?x",
        f"{PREFIX}{TOKEN}\n",
        f"{PREFIX}{'a' * 300}",
        f"/x{PREFIX}{TOKEN}",
        f"/.well-known/acme-challenge//{TOKEN}",
    ],
)
def test_everything_else_is_redirected(ask: Ask, path: str) -> None:
    assert ask(path) == ("301", b"")
    assert ask.redirected == 1


@pytest.mark.parametrize("method", ["POST", "HEAD", "get"])
def test_so_are_other_methods(ask: Ask, method: str) -> None:
    assert ask(PREFIX + TOKEN, method) == ("301", b"")
