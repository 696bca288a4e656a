"""scripts/release: what has to be in order before anything is built."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from chp_gevent import __version__
from tests.kit.installation import REPOSITORY

GIT = ["git", "-c", "user.name=Test", "-c", "user.email=test@example.org"]


def git(folder: Path, *arguments: str) -> None:
    subprocess.run([*GIT, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A clean repository on main with what the script looks at first."""
    folder = tmp_path / "checkout"
    for name in ("scripts/release", "scripts/lib/environment.sh", "chp_gevent/_version.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes((REPOSITORY / name).read_bytes())
    (folder / "scripts" / "release").chmod(0o755)
    (folder / "CHANGELOG.md").write_text("## [Unreleased]\n", "utf-8")
    git(folder, "init", "--initial-branch", "main")
    git(folder, "add", ".")
    git(folder, "commit", "--message", "All")
    return folder


def release(folder: Path, *arguments: str) -> str:
    """Run the script, which has to refuse before it installs anything; return what it says."""
    done = subprocess.run(
        [str(folder / "scripts" / "release"), *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    return done.stderr


def leave_a_file(folder: Path) -> None:
    (folder / "left.py").write_text("left = True\n", "utf-8")


def go_to_a_branch(folder: Path) -> None:
    git(folder, "switch", "--create", "other")


def tag_it_already(folder: Path) -> None:
    git(folder, "tag", __version__)


def say_another_version(folder: Path) -> None:
    (folder / "chp_gevent" / "_version.py").write_text('__version__ = "99.0"\n', "utf-8")
    git(folder, "commit", "--all", "--message", "Another version")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (leave_a_file, "the checkout is not clean"),
        (go_to_a_branch, "not on main"),
        (tag_it_already, f"there is a tag {__version__} already"),
        (say_another_version, f"chp_gevent/_version.py does not say {__version__}"),
        (lambda _: None, f"CHANGELOG.md has no heading '## [{__version__}] - "),
    ],
)
def test_what_is_not_in_order_is_one_line(
    checkout: Path, spoil: Callable[[Path], None], reason: str
) -> None:
    spoil(checkout)
    assert release(checkout, __version__).startswith(f"error: {reason}")


def test_the_version_has_to_be_told(checkout: Path) -> None:
    assert release(checkout) == "error: usage: scripts/release VERSION [--without-tests]\n"
