"""What is checked before a server is entrusted to a program: all that comes before the first fork.

``chp-gevent check`` does so for an operator. A server that is to become another version of itself
has that version do so first, in a process of its own, with its command line and its environment:
the options, the files, each module, the application, and whether it understands what the server
would leave to it. Nothing is changed.
"""

from __future__ import annotations

import os
import sys
from collections.abc import MutableMapping
from typing import Final, NoReturn

import msgspec

from chp_gevent import __version__
from chp_gevent.config.options import OptionError, Options
from chp_gevent.master.handover import CannotTakeOver, Handover, take
from chp_gevent.master.loading import LoadApplication, load
from chp_gevent.shared.journal import JournalDamaged
from chp_gevent.stores import StoreSetupError, check_store

VARIABLE: Final = "CHP_GEVENT_PREFLIGHT"
"""The variable of the environment that asks for a check in place of a server."""


def is_asked() -> bool:
    """Whether this process is to check, and not to serve."""
    return VARIABLE in os.environ


def check(
    options: Options,
    load_application: LoadApplication,
    environ: MutableMapping[str, str] = os.environ,
) -> None:
    """Check that a server with these options could start, or take over from the one before.

    Loads code, and patches the modules of this process as a server does.

    Raises OptionError, CannotTakeOver, OSError; whatever a module raises that can't be loaded.
    """
    state = take(environ)
    load(options, load_application, starts=state is None)
    if options.storage_backend:
        try:
            check_store(options.storage_backend)
        except StoreSetupError as error:
            raise OptionError(str(error)) from None
    if state is not None:
        _check_table(state)


def _check_table(state: Handover) -> None:
    """Read the routing table as a management process would that replaces another."""
    from chp_gevent.shared.publisher import Publisher

    segment, journal = state.attach(private=True)
    try:
        Publisher(segment, journal).recover()
    except (JournalDamaged, msgspec.DecodeError) as error:
        raise OptionError(f"{__version__} can't read the routing table: {error}") from None


def fault(options: Options, load_application: LoadApplication) -> str | None:
    """Check, and return in one line what is wrong, or None."""
    try:
        check(options, load_application)
    except (OptionError, CannotTakeOver) as error:
        return str(error)
    except Exception as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())}"
    return None


def answer(options: Options, load_application: LoadApplication) -> NoReturn:
    """Check, say what is wrong on standard error, and leave: with 1, or with 0."""
    found = fault(options, load_application)
    if found is not None:
        print(f"error: {found}", file=sys.stderr)
    sys.exit(found is not None)
