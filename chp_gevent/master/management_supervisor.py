"""The arbiter's care for the management process: starts it, restarts it, stops it last."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import socket
import time
from collections.abc import Callable

from chp_gevent.config.live_tls import SharedTls
from chp_gevent.config.options import Options
from chp_gevent.runtime import logs
from chp_gevent.runtime.backoff import Backoff
from chp_gevent.runtime.signals import die_with_parent, held_stop_signals, stop_by_default
from chp_gevent.runtime.tracebacks import log_traceback
from chp_gevent.shared.journal import Journal
from chp_gevent.shared.segment import HEARTBEAT, Segment

log = logging.getLogger("chp_gevent.server")

# Seconds before a process that was told to stop is replaced: if that was for all of us, our own
# signal is coming. One that dies is replaced at once, unless it has not been ready.
_PAUSE_AFTER_STOP = 0.25

# A process without a heartbeat for so many seconds hangs; it beats once a second. Before it
# is ended, it is watched for some more.
_HANGING_AFTER = 20.0
_SUSPECTED_FOR = 2.0

# Seconds for API calls in flight when the server stops.
_STOP_TIMEOUT = 7.0


class ManagementSupervisor:
    """Keeps one management process running.

    The arbiter reaps all children, and tells of the end of this one by :meth:`note_end`.
    ``tls`` has the contexts that the process inherits. ``sockets`` are the listening sockets it
    serves, by name; they stay open here, so that clients wait in the backlog while it is down.
    ``in_child`` is called in the child first, to drop what belongs to the arbiter.

    Attributes:
        pid: of the process, or None while there is none.
    """

    def __init__(
        self,
        options: Options,
        tls: SharedTls,
        segment: Segment,
        journal: Journal,
        sockets: dict[str, list[socket.socket]],
        in_child: Callable[[], None],
    ) -> None:
        self.pid: int | None = None
        self._options = options
        self._tls = tls
        self._segment = segment
        self._journal = journal
        self._sockets = sockets
        self._in_child = in_child
        self._ready_fd: int | None = None
        self._was_ready = False
        self._starts = Backoff()
        self._stopping = False
        self._is_replaced = False
        self._suspected_at: float | None = None
        self._arbiter_pid = os.getpid()

    @property
    def ready_fd(self) -> int | None:
        """The pipe on which a process that is starting will say that it is ready."""
        return self._ready_fd

    def adopt(self, pid: int | None, ready_fd: int | None) -> None:
        """Look after a process that an earlier version of the arbiter has started."""
        self.pid = pid
        self._ready_fd = ready_fd
        self._was_ready = pid is not None and ready_fd is None

    def _start(self) -> None:
        """Fork the management process. Raises ``OSError``."""
        ready_read, ready_write = os.pipe()
        try:
            with held_stop_signals():
                pid = os.fork()
                if pid == 0:
                    os.close(ready_read)
                    self._run_child(ready_write)
        except OSError:
            os.close(ready_read)
            raise
        finally:
            os.close(ready_write)
        self.pid = pid
        self._segment.words[HEARTBEAT] = int(time.monotonic() * 1000)
        self._ready_fd = ready_read
        self._was_ready = False

    def _run_child(self, ready_fd: int) -> None:
        """Become the management process; never returns."""
        status = 1
        try:
            stop_by_default()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH):
                signal.signal(number, signal.SIG_IGN)
            die_with_parent(self._arbiter_pid)
            self._in_child()
            from chp_gevent.management.context import ManagementContext
            from chp_gevent.management.main import run

            run(
                ManagementContext(
                    options=self._options,
                    tls=self._tls,
                    segment=self._segment,
                    journal=self._journal,
                    sockets=self._sockets,
                    log=logging.getLogger("chp_gevent.management"),
                    ready_fd=ready_fd,
                    parent_pid=self._arbiter_pid,
                )
            )
        except SystemExit as stop:
            status = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        except BaseException as error:
            log.error("management process failed: %r", error)
            log_traceback(log, error)
        finally:
            logs.finish()
            # Not sys.exit: the arbiter's frames below this one must not run here.
            os._exit(status)

    def drop_in_worker(self) -> None:
        """In a new worker: close the pipe of a process that was starting at the fork."""
        if self._ready_fd is not None:
            os.close(self._ready_fd)
            self._ready_fd = None

    def wait_until_ready(self, timeout: float) -> bool:
        """Wait for the first start to succeed, at most ``timeout`` seconds."""
        if self._ready_fd is not None:
            _wait_readable(self._ready_fd, timeout)
            self._look_whether_ready()
        return self._was_ready

    def _look_whether_ready(self) -> None:
        if self._ready_fd is None or not _wait_readable(self._ready_fd, 0):
            return
        self._was_ready = bool(os.read(self._ready_fd, 1))
        os.close(self._ready_fd)
        self._ready_fd = None
        if self._was_ready:
            self._starts.succeeded()

    def supervise(self) -> None:
        """Start the process if there is none, end it if it hangs; called often by the arbiter."""
        if self._stopping:
            return
        self._look_whether_ready()
        if self._was_ready:
            self._end_if_hanging()
        if self.pid is None and self._starts.is_over:
            try:
                self._start()
            except OSError as error:
                pause = self._starts.failed()
                reason = error.strerror or error
                log.error(
                    "cannot start the management process: %s; trying again in %g s", reason, pause
                )

    def _end_if_hanging(self) -> None:
        now = time.monotonic()
        silent = now - self._segment.words[HEARTBEAT] / 1000
        if self.pid is None or silent < _HANGING_AFTER:
            self._suspected_at = None
        elif self._suspected_at is None:
            # If all of us had been stopped, it gets the time to show that it goes on.
            self._suspected_at = now
        elif now - self._suspected_at > _SUSPECTED_FOR:
            log.error("management process (pid %s) hangs since %.0f s; ending it", self.pid, silent)
            self._suspected_at = None
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def replace(self) -> None:
        """Have the process give way to another one, which has the code that is loaded here."""
        if self.pid is not None:
            self._is_replaced = True
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGTERM)

    def note_end(self, status: int) -> None:
        """Take note that the process has ended, with this status of ``waitpid``."""
        self._look_whether_ready()
        pid, self.pid = self.pid, None
        if self._ready_fd is not None:
            os.close(self._ready_fd)
            self._ready_fd = None
        if self._stopping:
            return
        if self._is_replaced:
            self._is_replaced = False
        elif self._was_ready and status == 0:
            self._starts.wait(_PAUSE_AFTER_STOP)
            log.info("management process (pid %s) was stopped; starting another", pid)
        elif self._was_ready:
            log.error("management process (pid %s) died; restarting it", pid)
        else:
            pause = self._starts.failed()
            log.error(
                "management process (pid %s) could not start; trying again in %g s", pid, pause
            )

    def restart_no_more(self) -> None:
        """Let the process end if it ends: the server is stopping."""
        self._stopping = True

    def stop(self, reap: Callable[[], None], *, graceful: bool) -> None:
        """Stop the process and wait for its end, which ``reap`` tells of."""
        self.restart_no_more()
        if self.pid is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM if graceful else signal.SIGQUIT)
        deadline = time.monotonic() + (_STOP_TIMEOUT if graceful else 1.0)
        while self.pid is not None:
            if time.monotonic() > deadline:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self.pid, signal.SIGKILL)
            time.sleep(0.02)
            reap()


def _wait_readable(descriptor: int, timeout: float) -> bool:
    """Wait until there is something to read, at most ``timeout`` seconds; False if there is not.

    ``select.select`` takes no descriptor from 1024 on. The arbiter has one for each worker.
    """
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(timeout * 1000))
