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

from chp_gevent import logs
from chp_gevent.channel.journal import Journal
from chp_gevent.channel.segment import HEARTBEAT, Segment
from chp_gevent.options import Options
from chp_gevent.signals import die_with_parent, held_stop_signals, stop_by_default

log = logging.getLogger("chp_gevent.server")

# A process that dies before it is ready is restarted after a pause that doubles each time,
# up to this many seconds; one that was ready, at once.
_LONGEST_PAUSE = 30.0
_FIRST_PAUSE = 0.25

# A process without a heartbeat for so many seconds hangs; it beats once a second. Before it
# is ended, it is watched for some more.
_HANGING_AFTER = 20.0
_SUSPECTED_FOR = 2.0

# Seconds for API calls in flight when the server stops.
_STOP_TIMEOUT = 7.0


class ManagementSupervisor:
    """Keeps one management process running.

    ``sockets`` are the listening sockets it serves, by name; they stay open here, so that
    clients wait in the backlog while it is down. ``in_child`` is called in the child first,
    to drop what belongs to the arbiter.

    Attributes:
        pid: of the process, or None while there is none.
    """

    def __init__(
        self,
        options: Options,
        segment: Segment,
        journal: Journal,
        sockets: dict[str, list[socket.socket]],
        in_child: Callable[[], None],
    ) -> None:
        self.pid: int | None = None
        self._options = options
        self._segment = segment
        self._journal = journal
        self._sockets = sockets
        self._in_child = in_child
        self._ready_fd: int | None = None
        self._was_ready = False
        self._failures = 0
        self._not_before = 0.0
        self._stopping = False
        self._ended_well = False
        self._suspected_at: float | None = None
        self._arbiter_pid = os.getpid()

    def start(self) -> None:
        """Fork the management process."""
        ready_read, ready_write = os.pipe()
        with held_stop_signals():
            pid = os.fork()
            if pid == 0:
                os.close(ready_read)
                self._run_child(ready_write)
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
            from chp_gevent.management.process import ManagementContext, run

            run(
                ManagementContext(
                    options=self._options,
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
            log.debug("traceback of that error", exc_info=error)
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
            select.select([self._ready_fd], [], [], timeout)
            self._look_whether_ready()
        return self._was_ready

    def _look_whether_ready(self) -> None:
        if self._ready_fd is None or not select.select([self._ready_fd], [], [], 0)[0]:
            return
        self._was_ready = bool(os.read(self._ready_fd, 1))
        os.close(self._ready_fd)
        self._ready_fd = None
        if self._was_ready:
            self._failures = 0

    def supervise(self) -> None:
        """Restart the process if it has died or hangs; called often, from the arbiter's loop."""
        if self._was_ready and not self._stopping:
            self._end_if_hanging()
        if self.pid is not None and self._has_died(self.pid):
            self._note_death()
        if self.pid is None and not self._stopping and time.monotonic() >= self._not_before:
            self.start()

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

    def _has_died(self, pid: int) -> bool:
        self._look_whether_ready()
        try:
            ended, status = os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            return True  # gunicorn's waitpid(-1) was quicker
        self._ended_well = status == 0
        return ended == pid

    def _note_death(self) -> None:
        pid, self.pid = self.pid, None
        if self._ready_fd is not None:
            os.close(self._ready_fd)
            self._ready_fd = None
        if self._stopping:
            return
        if self._was_ready and self._ended_well:
            # Somebody told it to stop; if that was for all of us, our own signal is coming.
            pause = _FIRST_PAUSE
            log.info("management process (pid %s) was stopped; starting another", pid)
        elif self._was_ready:
            pause = 0.0
            log.error("management process (pid %s) died; restarting it", pid)
        else:
            pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2**self._failures)
            self._failures += 1
            log.error("management process (pid %s) could not start; trying again", pid)
        self._not_before = time.monotonic() + pause

    def restart_no_more(self) -> None:
        """Let the process end if it ends: the server is stopping."""
        self._stopping = True

    def stop(self, *, graceful: bool) -> None:
        """Stop the process and wait for its end."""
        self.restart_no_more()
        if self.pid is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM if graceful else signal.SIGQUIT)
        deadline = time.monotonic() + (_STOP_TIMEOUT if graceful else 1.0)
        while not self._has_died(self.pid):
            if time.monotonic() > deadline:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self.pid, signal.SIGKILL)
            time.sleep(0.02)
        self.pid = None
