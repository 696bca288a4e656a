"""The command: what it does with the options that ``config`` knows."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final

from chp_gevent import __version__
from chp_gevent.config import argv as command_line
from chp_gevent.config import validate as option_parsing
from chp_gevent.config.options import OptionError, Options
from chp_gevent.config.usage import CHECK, defaults, usage
from chp_gevent.runtime.systemd import error_line

USAGE: Final = usage()
_DEFAULTS: Final = defaults()


def parse(argv: Sequence[str], environ: Mapping[str, str] | None = None) -> Options:
    """Turn an argument vector (without the program's name) into options.

    ``environ`` is where secrets are taken from, by default ``os.environ``.

    Raises OptionError with one line for the operator, and SystemExit(0) after answering
    ``--help`` or ``--version`` on stdout.
    """
    arguments = command_line.read(USAGE, _DEFAULTS, argv, __version__)
    return option_parsing.options(arguments, os.environ if environ is None else environ)


def settings_from_environment(environ: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return the gunicorn settings for the flags in ``CHP_ARGS``.

    For ``chp_gevent.gunicorn_conf``. Flags that can't be understood end the process with
    status 1 and one line.
    """
    from chp_gevent.master.gunicorn_app import gunicorn_settings

    arguments = (os.environ if environ is None else environ).get("CHP_ARGS", "")
    try:
        return gunicorn_settings(parse(shlex.split(arguments), environ))
    except ValueError as error:
        # OptionError is one; so is a quote that shlex finds no end of.
        sys.exit(error_line(f"error: CHP_ARGS: {error}"))


def _leave_lost_folder() -> None:
    """Go to ``/`` when the working directory has been removed: gunicorn asks for its name."""
    try:
        os.getcwd()
    except OSError:
        os.chdir("/")


def _check(options: Options) -> None:
    from chp_gevent.master.gunicorn_app import fault

    found = fault(options)
    if found is not None:
        raise OptionError(found)
    print(f"chp-gevent {__version__} can start with these options.")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the server with ``argv`` (by default ``sys.argv[1:]``) until it is stopped.

    What can't be started is one line on stderr and SystemExit(1). With ``check`` first, nothing is
    started.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    checks = arguments[:1] == [CHECK]
    try:
        options = parse(arguments[checks:])
        _leave_lost_folder()
        # gunicorn is loaded for neither --help nor a mistake
        if checks:
            _check(options)
        else:
            from chp_gevent.master.gunicorn_app import run

            run(options)
    except OptionError as error:
        sys.exit(error_line(f"error: {error}"))
