"""Runs a command again and again until it has taken over from the version before it.

What is installed may be being replaced in the very moment in which a server becomes its next
version, when nothing of that is in memory yet; and when this process ends, all workers do. So the
new interpreter gets this text, and runs it before anything is imported: it needs the standard
library alone, and can't import what the project has.

The arguments are those that the interpreter would have had.
"""

import os
import runpy
import signal
import sys
import time

VARIABLE = "CHP_GEVENT_HANDOVER"
"""Removed from the environment by whoever has taken over (``handover.take``)."""

_PAUSE = 1.0
_STOP = {signal.SIGTERM, signal.SIGINT, signal.SIGQUIT}


def run(arguments: list[str]) -> None:
    """Run what the interpreter would have run: ``-c CODE``, ``-m MODULE`` or a script."""
    kind, *rest = arguments
    if kind == "-c":
        sys.argv[:] = ["-c", *rest[1:]]
        exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
    elif kind == "-m":
        sys.argv[:] = ["-m", *rest[1:]]
        if sys.path[:1] == [""]:
            sys.path[0] = os.getcwd()
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv[:] = arguments
        if sys.path[:1] == [""]:
            sys.path[0] = os.path.dirname(os.path.realpath(kind))
        runpy.run_path(kind, run_name="__main__")


def last_line(error: BaseException) -> str:
    """Return in one line what has ended the command."""
    text = " ".join(str(error).split())
    return text if isinstance(error, SystemExit) else f"{type(error).__name__}: {text}"


def begin(text: bytes, arguments: list[str]) -> None:
    """Run the command; when it ends without having taken over, do so again."""
    began_as = list(sys.orig_argv)
    # What it would see, and from which a later version makes its own command.
    sys.orig_argv[:] = [*began_as[: -len(arguments) - 2], *arguments]
    try:
        run(arguments)
    except BaseException as error:
        if VARIABLE not in os.environ:
            raise
        print(
            f"error: cannot take over yet: {last_line(error)}; trying again in {_PAUSE:g} s",
            file=sys.stderr,
            flush=True,
        )
        time.sleep(_PAUSE)
        # They are blocked, until the server can obey them.
        if signal.sigpending() & _STOP:
            sys.exit(1)
        command = began_as[: -len(arguments) - 1]  # up to -c
        file = os.memfd_create("chp-gevent-first-steps", 0)
        os.write(file, text)
        os.execv(sys.executable, [sys.executable, *command[1:], code_for(file), *arguments])


def code_for(file: int) -> str:
    """Return what ``-c`` gets: not all of the text is to be in the list of processes."""
    return f"import os; text = os.pread({file}, 65536, 0); os.close({file}); exec(text)"


if __name__ == "__main__":
    # ``text`` is what ``code_for`` makes of it.
    begin(globals()["text"], sys.argv[1:])
