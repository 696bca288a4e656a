"""The command that this process was started with: what starts it again, in another version."""

from __future__ import annotations

import os
import sys
from typing import NamedTuple


class Command(NamedTuple):
    """A program, its arguments (the first is its name), and the folder it is started in."""

    program: str
    arguments: list[str]
    folder: str


def _working_folder() -> str:
    try:
        return os.getcwd()
    except OSError:
        return "/"


# Options and the names of files are read from there. Whoever changes the folder comes later.
_FOLDER = _working_folder()


def own_command() -> Command:
    """Return the command that has started this process.

    A script that can be executed is taken by its name, not by what that leads to: its first line
    names the interpreter of the version it belongs to, and a link on the way to it may lead to
    another version by now. Anything else is the same interpreter with the same arguments.
    """
    script, arguments = sys.argv[0], sys.orig_argv[1:]
    path = os.path.join(_FOLDER, script)
    if arguments[:1] == [script] and _is_script(path):
        return Command(path, [path, *arguments[1:]], _FOLDER)
    return Command(sys.executable, [sys.executable, *arguments], _FOLDER)


def _is_script(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(2) == b"#!" and os.access(path, os.X_OK)
    except OSError:
        return False
