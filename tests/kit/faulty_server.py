"""A server in whose processes something fails while a file is there: see ``faulty``."""

from __future__ import annotations

import sys

# Before the command begins; ``broken()`` tells whether the fault is on.
_PRELUDE = """
import os, errno, time
def broken(): return os.path.exists({flag!r})
{fault}
from chp_gevent.cli import main
main()
"""

FORK_FAILS = """
fork = os.fork
def no_fork():
    if broken(): raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    return fork()
os.fork = no_fork
"""

PIPE_FAILS = """
pipe = os.pipe
def no_pipe():
    if broken(): raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    return pipe()
os.pipe = no_pipe
"""

WORKERS_CANNOT_BOOT = """
from chp_gevent.proxy.worker import ProxyWorker
load_wsgi = ProxyWorker.load_wsgi
def no_load(self):
    if broken(): raise MemoryError("not enough of it")
    load_wsgi(self)
ProxyWorker.load_wsgi = no_load
"""

WORKERS_BOOT_FOR_EVER = """
from chp_gevent.proxy.worker import ProxyWorker
load_wsgi = ProxyWorker.load_wsgi
def slow_load(self):
    while broken(): time.sleep(0.02)
    load_wsgi(self)
ProxyWorker.load_wsgi = slow_load
"""

ONE_SERVES_UNNOTICED = """
from chp_gevent.master.worker_pool import WorkerPool
from chp_gevent.proxy.worker import ProxyWorker
load_wsgi = ProxyWorker.load_wsgi
def load_if_first(self):
    while self.age == 2: time.sleep(0.02)
    load_wsgi(self)
ProxyWorker.load_wsgi = load_if_first
WorkerPool._note_who_serves = lambda self: None
"""

RENEWALS_ARE_OVERDUE_AFTER_A_SECOND = """
import chp_gevent.master.renewal
chp_gevent.master.renewal.TIMEOUT = 1.0
"""

NO_TEMPORARY_FILES = """
import tempfile
def no_file(*args, **options): raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
tempfile.mkstemp = no_file
"""

THE_LOOP_HAS_A_BUG = """
from chp_gevent.master.arbiter import ProxyArbiter
murder_workers = ProxyArbiter.murder_workers
def buggy(self):
    if broken(): raise RuntimeError("a bug")
    murder_workers(self)
ProxyArbiter.murder_workers = buggy
"""

WORKERS_END_AT_ONCE = """
from chp_gevent.proxy.worker import ProxyWorker
beat = ProxyWorker._beat
def fatal_beat(self):
    beat(self)
    if broken() and self.beats == 1: os._exit(7)
ProxyWorker._beat = fatal_beat
"""


def faulty(flag: object, *faults: str) -> list[str]:
    """Return the command of a server with these faults while the file ``flag`` exists."""
    program = _PRELUDE.format(flag=str(flag), fault="\n".join(faults))
    return [sys.executable, "-c", program]
