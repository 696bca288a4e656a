"""The command that this process was started with: what starts it again, in another version."""

from __future__ import annotations

import os
import sys
from typing import NamedTuple

from chp_gevent.runtime.first_steps import code_for


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


def patient(command: Command, file: int) -> Command:
    """Return the command that runs ``first_steps``, which is in ``file``, and by that the command.

    One that can't be run in that way is returned as it is. Raises ``OSError``.
    """
    program, arguments = command.program, command.arguments[1:]
    if command.arguments[0] != sys.executable:
        interpreter = _interpreter_of(program)
        if interpreter is None:
            return command
        program, arguments = interpreter[0], [*interpreter[1:], command.program, *arguments]
    options = _options_at_the_beginning(arguments)
    if options is None:
        return command
    beginning, rest = arguments[:options], arguments[options:]
    return Command(program, [program, *beginning, "-c", code_for(file), *rest], command.folder)


def _interpreter_of(script: str) -> list[str] | None:
    """Return the interpreter that a script names, with an argument perhaps, if it is a Python."""
    with open(script, "rb") as file:
        words = os.fsdecode(file.readline(1024)).removeprefix("#!").split(None, 1)
    if not words or not os.path.basename(words[0]).startswith("python"):
        return None
    return [word.strip() for word in words]


def _options_at_the_beginning(arguments: list[str]) -> int | None:
    """Return how many arguments are the interpreter's options; None if that can't be told."""
    number = 0
    while number < len(arguments):
        argument = arguments[number]
        if not argument.startswith("-") or argument in ("-c", "-m"):
            return number
        takes_value = argument.startswith(("-X", "-W"))
        # Its standard input, a long option, or several short ones with the command among them.
        if (
            argument == "-"
            or argument.startswith("--")
            or (not takes_value and {"c", "m"} & {*argument})
        ):
            return None
        number += 2 if takes_value and len(argument) == 2 else 1
    return None


def _is_script(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(2) == b"#!" and os.access(path, os.X_OK)
    except OSError:
        return False
