"""What is loaded and checked before the first fork, by a server and by who checks for one."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Callable

from chp_gevent.config.options import OptionError, Options
from chp_gevent.config.tls_contexts import TlsContexts, read_contexts
from chp_gevent.master.preloading import load_code
from chp_gevent.master.resources import check_error_path, check_files, check_libraries, extras_of
from chp_gevent.runtime.backoff import Backoff
from chp_gevent.runtime.signals import STOP_SIGNALS
from chp_gevent.runtime.tracebacks import log_traceback

log = logging.getLogger("chp_gevent.server")

LoadApplication = Callable[[], object]
"""Loads what ``wsgi_app`` names, which may be middleware around the proxy."""


def load(options: Options, load_application: LoadApplication, *, starts: bool) -> TlsContexts:
    """Check the options against the system, and load code and certificates.

    ``starts`` says whether it is for the start of a server, or for one that goes on: what is
    written at the start only need not be possible any more.

    Raises OptionError; also what a module raises that can't be loaded.
    """
    (check_files if starts else check_error_path)(options)
    check_libraries(options)
    load_code(extras_of(options))
    tls = read_contexts(options)
    try:
        load_application()
    except Exception as error:
        log_traceback(log, error)
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise OptionError(f"wsgi_app can't be loaded: {reason}") from error
    return tls


def load_at_last(options: Options, load_application: LoadApplication) -> TlsContexts:
    """Do that for a server that goes on, however often it fails: its workers end with us.

    All was well a moment ago, when it was checked; something is being changed. A signal to stop
    ends the process.
    """
    pauses = Backoff()
    while True:
        try:
            return load(options, load_application, starts=False)
        except Exception as error:
            pause = pauses.failed()
            log.error("cannot take over yet: %s; trying again in %g s", error, pause)
            if signal.sigtimedwait(STOP_SIGNALS, pause) is not None:
                sys.exit(1)
