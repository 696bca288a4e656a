"""Installs versions of the package one after the other where a server runs from, as pip does."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.kit.server import REPOSITORY

Edit = Callable[[str], str]
_PACKAGE = "chp_gevent"
_VERSION = Path("_version.py")


class Installation:
    """A folder with one version of the package at a time; at first that of the checkout.

    Attributes:
        package: where the modules are.
        command: starts the server from there, options follow.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.package = folder / _PACKAGE
        self.command = [
            sys.executable,
            "-c",
            f"import sys; sys.path.insert(0, {str(folder)!r}); "
            "from chp_gevent.cli import main; main()",
        ]
        self._put(lambda into: _copy_checkout(into))

    def install(self, version: str, edits: Mapping[str, Edit] | None = None) -> None:
        """Install the checkout under another number, with modules edited by what is given."""

        def make(into: Path) -> None:
            _copy_checkout(into)
            _edit(into / _VERSION, lambda _: f'__version__ = "{version}"\n')
            for name, edit in (edits or {}).items():
                _edit(into / name, edit)

        self._put(make)

    def install_commit(self, commit: str) -> None:
        """Install what a commit of the repository has."""
        command = ["git", "-C", str(REPOSITORY), "archive", commit, _PACKAGE]
        archive = subprocess.run(command, capture_output=True, check=True).stdout

        def make(into: Path) -> None:
            into.mkdir()
            unpack = ["tar", "-x", "-C", str(into), "--strip-components=1"]
            subprocess.run(unpack, input=archive, check=True)

        self._put(make)

    def _put(self, make: Callable[[Path], None]) -> None:
        """Put a version in the place of the one that is there; a server may run from it."""
        new, old = self._folder / "new", self._folder / "old"
        make(new)
        if self.package.exists():
            self.package.rename(old)
        new.rename(self.package)
        shutil.rmtree(old, ignore_errors=True)


def has_commit(commit: str) -> bool:
    """Whether the repository has a commit; one that was copied without its history has none."""
    command = ["git", "-C", str(REPOSITORY), "cat-file", "-e", f"{commit}^{{commit}}"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _copy_checkout(into: Path) -> None:
    # With what Python has compiled, but for what it is writing there.
    ignored = shutil.ignore_patterns("*.pyc.*")
    shutil.copytree(REPOSITORY / _PACKAGE, into, ignore=ignored)


def _edit(path: Path, edit: Edit) -> None:
    before = path.read_text("utf-8")
    after = edit(before)
    assert after != before, f"nothing was edited in {path}"
    path.write_text(after, "utf-8")
