"""The management process: what the arbiter forks beside the workers.

The arbiter imports this module before gevent patches anything, so it imports nothing that must
be patched first; all the rest is loaded by ``preloading``.
"""

from __future__ import annotations

import os
import signal
from typing import NoReturn

from chp_gevent.management.context import ManagementContext, leave
from chp_gevent.runtime.patching import patch_child
from chp_gevent.runtime.tracebacks import log_traceback

# Signals that mean something to the arbiter only; they reach us when a whole group gets them.
_IGNORED = ("SIGHUP", "SIGUSR1", "SIGUSR2", "SIGWINCH", "SIGTTIN", "SIGTTOU", "SIGPIPE")


def run(context: ManagementContext) -> NoReturn:
    """Be the management process; the arbiter calls this right after the fork.

    SIGTERM ends it when the calls in flight are answered (5 s at most), SIGINT and SIGQUIT at
    once, both with exit status 0; so does the death of the arbiter. Status 78 says that the
    storage backend can't be used, 70 that something unforeseen went wrong, after a line in the
    log. Never returns into the arbiter's code, and runs none of its exit handlers.
    """
    status = os.EX_SOFTWARE
    try:
        _forget_signal_handlers()
        patch_child()
        import gevent

        gevent.reinit()
        from chp_gevent.management.app import ManagementService

        status = ManagementService(context).run()
    except BaseException as error:
        context.log.error("The management process failed: %s: %s", type(error).__name__, error)
        log_traceback(context.log, error)
    finally:
        leave(status)


def _forget_signal_handlers() -> None:
    signal.set_wakeup_fd(-1)
    for name in ("SIGTERM", "SIGINT", "SIGQUIT", "SIGCHLD", "SIGALRM"):
        signal.signal(getattr(signal, name), signal.SIG_DFL)
    for name in _IGNORED:
        signal.signal(getattr(signal, name), signal.SIG_IGN)
