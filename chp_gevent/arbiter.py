"""gunicorn's arbiter with what a proxy server needs besides workers.

It opens all listening sockets, loads what its children run, makes the segment and the journal,
supervises the management process, gives each worker its row, and lets stopping workers drain
without waiting for them. Nothing that happens to a child, a file or the system ends it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from gunicorn import systemd, util
from gunicorn.arbiter import Arbiter
from gunicorn.errors import HaltServer

from chp_gevent import logs
from chp_gevent.access_file import check_file
from chp_gevent.backoff import Backoff
from chp_gevent.channel.journal import Journal
from chp_gevent.channel.segment import (
    ACCEPTING,
    REQUESTS_WEB,
    REQUESTS_WS,
    STOPPING,
    Segment,
    reset_gauges,
)
from chp_gevent.listeners import close_listeners, described, gunicorn_listener, open_listeners
from chp_gevent.options import Address, OptionError, Options
from chp_gevent.pid_file import PidFile
from chp_gevent.preloading import keep_shared, load_code
from chp_gevent.renewal import Renewal
from chp_gevent.signals import die_with_parent, held_stop_signals, stop_by_default
from chp_gevent.supervisor import ManagementSupervisor
from chp_gevent.tls import TlsContexts, read_contexts

log = logging.getLogger("chp_gevent.server")

# Generations of workers that a server may have rows for besides those that drain: those that
# serve, and those that a reload starts.
_GENERATIONS = 2
# Rows at the least: SIGTTIN may ask for more workers than the options do.
_FEWEST_ROWS = 64
_READY_TIMEOUT = 20.0
# Seconds between two looks at the children, and while workers are coming up.
_LOOK = 1.0
_LOOK_WHILE_STARTING = 0.05
# Seconds that a worker serves at least before it is taken for one that can.
_SHORT_LIFE = 5.0
# Seconds that a worker has to leave at once, before it is killed.
_CUT_OFF_TIMEOUT = 5.0
# Seconds that all workers have to leave when the server stops at once (SIGINT, SIGQUIT).
_QUICK_STOP_TIMEOUT = 2
# Where systemd (Type=notify) waits to hear that the server is ready.
_NOTIFY_SOCKET = "NOTIFY_SOCKET"
# The same trouble is logged so many seconds apart.
_REPEATED_AFTER = 30.0


class ProxyArbiter(Arbiter):
    """The master process of one proxy server.

    gunicorn has no setting for the arbiter's class; :meth:`adopt` turns the one that its
    ``on_starting`` hook shows into this.

    Attributes:
        tls: the contexts that workers and management process inherit.
        draining: workers that have been told to stop, by pid, those that were first first.
    """

    options: Options
    tls: TlsContexts
    segment: Segment
    management: ManagementSupervisor

    @classmethod
    def adopt(cls, arbiter: Arbiter, options: Options) -> None:
        """Make ``arbiter`` a ProxyArbiter and open its sockets. Raises ``OptionError``."""
        arbiter.__class__ = cls
        arbiter.prepare(options)

    def prepare(self, options: Options) -> None:
        """Open sockets, load code, make what the processes share. Raises ``OptionError``."""
        self.options = options
        self.draining: dict[int, Any] = {}
        self._cut_off: dict[int, float] = {}
        self._renewal: Renewal | None = None
        # A signal that came while the workers were being replaced: files may have changed since.
        self._reload_again = False
        self._boots = Backoff()
        self._has_served = False
        self._stopping = False
        self._pid_file = PidFile(options.pid_file) if options.pid_file else None
        # gunicorn would tell systemd before anything is served.
        self._notify_socket = os.environ.pop(_NOTIFY_SOCKET, None)
        self._troubles: dict[str, tuple[str, float]] = {}
        _raise_descriptor_limit()
        check_files(options)
        for notice in options.notices:
            getattr(log, {"warn": "warning"}.get(notice.level, notice.level))(notice.message)
        with contextlib.ExitStack() as undo:
            # A start that fails leaves no UNIX sockets behind. Before the code is loaded, since
            # the arbiter's sockets must not be gevent's.
            public, self.sockets = self._open_sockets(undo)
            load_code()
            self.tls = read_contexts(options)
            self._load_application()
            undo.pop_all()
        # Clients come here too: it is the workers' to serve.
        self.redirect_sockets = self.sockets.pop("redirect", [])
        self.LISTENERS = [gunicorn_listener(listener, self.cfg, self.log) for listener in public]
        rows = options.workers * (options.max_draining + _GENERATIONS)
        # The last row is the management process's.
        self.segment = Segment(rows=max(rows, _FEWEST_ROWS) + 1)
        self._journal = Journal(self.segment)
        self.management = ManagementSupervisor(
            options,
            self.tls,
            self.segment,
            self._journal,
            self.sockets,
            self._drop_in_management,
        )
        keep_shared()

    def _open_sockets(
        self, undo: contextlib.ExitStack
    ) -> tuple[list[socket.socket], dict[str, list[socket.socket]]]:
        """Return the listening sockets for clients, and the other ones by what they are for."""
        options = self.options

        def opened(address: Address, flags: str) -> list[socket.socket]:
            listeners = open_listeners(address, flags, options.backlog)
            undo.callback(close_listeners, listeners, unlink=True)
            return listeners

        public = opened(options.listen, "--")
        sockets = {"api": opened(options.api, "--api-")}
        if options.metrics is not None:
            sockets["metrics"] = opened(options.metrics, "--metrics-")
        if options.redirect is not None:
            sockets["redirect"] = opened(options.redirect.address, "--redirect-")
        return public, sockets

    def _load_application(self) -> None:
        """Load what ``wsgi_app`` names, which may be middleware around the proxy."""
        try:
            self.app.wsgi()
        except Exception as error:
            log.debug("Traceback of an error in wsgi_app", exc_info=error)
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
            raise OptionError(f"wsgi_app can't be loaded: {reason}") from error

    def ready(self) -> None:
        """Start the management process and say where the server listens.

        Exits with 1 when it can't be started. Whoever is told that the server is ready, by the
        log or as systemd, finds the pid file there.
        """
        self.management.supervise()
        if not self.management.wait_until_ready(_READY_TIMEOUT):
            log.error("the management process could not be started; see the lines above")
            self.stop(False)
            sys.exit(1)
        self._write_pid_file()
        options = self.options
        if options.redirect is not None:
            port = self.redirect_sockets[0].getsockname()[1]
            to_port = options.redirect.to_port
            log.info("Added HTTP to HTTPS redirection from %s to %s", port, to_port)
        scheme = "https" if options.tls else "http"
        default = options.default_target or "(no default)"
        log.info("Proxying %s://%s to %s", scheme, described(options.listen), default)
        scheme = "https" if options.api_tls else "http"
        log.info("Proxy API at %s://%s/api/routes", scheme, described(options.api))
        if options.metrics is not None:
            log.info("Serve metrics at http://%s/metrics", described(options.metrics))
        if self._notify_socket is not None:
            os.environ[_NOTIFY_SOCKET] = self._notify_socket
            systemd.sd_notify("READY=1", self.log, unset_environment=True)

    def _write_pid_file(self) -> None:
        if self._pid_file is None:
            return
        path = self.options.pid_file
        try:
            self._pid_file.write()
        except OSError as error:
            log.error("cannot write --pid-file %s: %s; going on without it", path, error.strerror)
        else:
            log.info("Writing pid %s to %s", os.getpid(), path)

    # -- the loop

    def supervise(self) -> NoReturn:
        """Keep everything running until told to stop; called when all is ready for it.

        gunicorn's own loop ends the server when anything in it fails: a worker that can't boot
        at a bad moment, or ``fork()`` when the system has no room for a process.
        """
        util._setproctitle(f"master [{self.proc_name}]")
        try:
            self._attempt("starting workers", self.manage_workers)
            while not self._stopping:
                for number in self.wait_for_signals(timeout=self._patience()):
                    self._attempt("handling a signal", lambda n=number: self._obey(n))  # type: ignore[misc]
                self._attempt("looking after hanging workers", self.murder_workers)
                self._attempt("starting workers", self.manage_workers)
                self._attempt("looking after the management process", self.management.supervise)
                logs.tell_losses()
            # A signal to stop was obeyed, and something went wrong while it was.
            raise SystemExit(1)
        except (StopIteration, KeyboardInterrupt):
            self.halt()
        except HaltServer as end:
            # The worker has said why.
            self.stop()
            sys.exit(end.exit_status)
        raise AssertionError("halt() exits")

    def _patience(self) -> float:
        """Return for how many seconds nothing needs to be looked at, unless a signal comes."""
        starting = not all(worker.came_up for worker in self.WORKERS.values())
        return _LOOK_WHILE_STARTING if starting or self._renewal else _LOOK

    def _obey(self, number: int) -> None:
        handler = getattr(self, f"handle_{self.SIG_NAMES.get(number)}", None)
        if handler is not None:
            handler()

    def _attempt(self, task: str, action: Callable[[], None]) -> None:
        """Do what is done again a second later; that it failed is logged, and no more."""
        try:
            action()
        except (StopIteration, HaltServer):
            raise
        except Exception as error:
            self._note_trouble(task, error)
        else:
            self._troubles.pop(task, None)

    def _note_trouble(self, task: str, error: Exception) -> None:
        reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        now = time.monotonic()
        before, logged_at = self._troubles.get(task, ("", 0.0))
        if reason != before or now - logged_at > _REPEATED_AFTER:
            self._troubles[task] = (reason, now)
            log.error("%s failed: %s; trying again", task, reason)
            log.debug("Traceback of that error", exc_info=error)

    # -- starting workers

    def equip(self, worker: Any) -> None:
        """Give a worker that is about to be forked its row and what is shared.

        Raises ``RuntimeError`` when there is no row left.
        """
        used = {w.row_index for w in (*self.WORKERS.values(), *self.draining.values())}
        row = next((i for i in range(self.segment.rows - 1) if i not in used), None)
        if row is None:
            raise RuntimeError(f"there are {len(used)} workers already, draining ones included")
        worker.equip(
            self.options, self.tls, self.segment, self._journal, row, self.redirect_sockets
        )
        worker.requests_before = self._requests(row)

    def _requests(self, row_index: int) -> int:
        row = self.segment.row(row_index)
        return row[REQUESTS_WEB] + row[REQUESTS_WS]

    def spawn_workers(self) -> None:
        """Fork the workers that are missing, unless the last ones could not start."""
        wanted = self.num_workers + (len(self._renewal.old) if self._renewal else 0)
        while len(self.WORKERS) < wanted and self._boots.is_over:
            self.spawn_worker()

    def spawn_worker(self) -> int:
        """Fork a worker. Returns its pid, or 0 if that failed; in the worker never."""
        try:
            with held_stop_signals():
                return super().spawn_worker()
        except (OSError, RuntimeError) as error:
            if os.getpid() != self.pid:
                raise  # in the worker
            pause = self._boots.failed()
            reason = getattr(error, "strerror", None) or error
            log.error("cannot start a worker: %s; trying again in %g s", reason, pause)
            return 0

    def begin_worker(self) -> None:
        """In a new worker: close what belongs to other processes, first of all."""
        die_with_parent(self.pid)
        stop_by_default()
        for listeners in self.sockets.values():
            close_listeners(listeners, unlink=False)
        self.management.drop_in_worker()
        for worker in self.draining.values():
            worker.tmp.close()

    def _drop_in_management(self) -> None:
        for listener in (*self.LISTENERS, *self.redirect_sockets):
            listener.close()
        for worker in (*self.WORKERS.values(), *self.draining.values()):
            worker.tmp.close()

    # -- keeping them at their number

    def manage_workers(self) -> None:
        """Keep the workers at their number, and take note of those that drain or serve."""
        if self._stopping:
            return
        self._note_who_serves()
        self._advance_renewal()
        self._retire_one()
        self.spawn_workers()
        if self._renewal is None:
            by_age = sorted(self.WORKERS.items(), key=lambda item: item[1].age)
            for pid, _ in by_age[: max(0, len(by_age) - self.num_workers)]:
                self.kill_worker(pid, signal.SIGTERM)
        self._cut_off_oldest()

    def _note_who_serves(self) -> None:
        for pid, worker in list(self.WORKERS.items()):
            if worker.row[ACCEPTING]:
                self._has_served = True
                if not worker.is_noted and worker.lifetime > _SHORT_LIFE:
                    worker.is_noted = True
                    self._boots.succeeded()
            elif worker.came_up:
                # Told to stop by somebody else. It may drain for hours: another takes its place.
                self.draining[pid] = self.WORKERS.pop(pid)

    def _retire_one(self) -> None:
        """Replace a worker that has served ``--max-requests``; one after the other."""
        limit = self.options.max_requests
        if not limit or self._renewal or len(self.WORKERS) < self.num_workers:
            return
        if not all(worker.came_up for worker in self.WORKERS.values()):
            return
        for pid, worker in self.WORKERS.items():
            if self._requests(worker.row_index) - worker.requests_before >= limit:
                log.info("replacing worker (pid %s) after %d requests", pid, limit)
                self.kill_worker(pid, signal.SIGTERM)
                return

    def kill_worker(self, pid: int, sig: int) -> None:
        """Signal a worker; one that is told to stop is no longer counted as a worker.

        gunicorn would wait for it: a reload would then block the arbiter, and a worker that
        keeps its tunnels would leave its place empty, for as long as the drain lasts.
        """
        super().kill_worker(pid, sig)
        if sig == signal.SIGTERM and not self._stopping and pid in self.WORKERS:
            self.draining[pid] = self.WORKERS.pop(pid)

    def _cut_off_oldest(self) -> None:
        """End the workers that have drained for longest when there are too many that drain."""
        now = time.monotonic()
        # Rows are those of the start. Workers that came since (SIGTTIN) must find one at a reload.
        rows_left = self.segment.rows - 1 - _GENERATIONS * self.num_workers
        most = max(0, min(self.options.max_draining * self.num_workers, rows_left))
        for pid in list(self.draining)[: max(0, len(self.draining) - most)]:
            if pid not in self._cut_off:
                log.warning("too many workers drain (--max-draining): ending pid %s", pid)
                self._cut_off[pid] = now + _CUT_OFF_TIMEOUT
                self.kill_worker(pid, signal.SIGQUIT)
            elif now > self._cut_off[pid]:
                self.kill_worker(pid, signal.SIGKILL)

    def murder_workers(self) -> None:
        """End workers that hang; gunicorn does not know those that drain."""
        super().murder_workers()
        now = time.monotonic()
        for pid, worker in self.draining.items():
            with contextlib.suppress(OSError, ValueError):
                if self.timeout and now - worker.tmp.last_update() > self.timeout:
                    log.error("draining worker (pid %s) hangs; ending it", pid)
                    os.kill(pid, signal.SIGKILL)

    # -- replacing them all

    def reload(self) -> None:
        """Replace the workers by new ones with certificates as the files have them now (SIGHUP).

        Refused, in one line, when something in those files or the options is wrong. Options are
        those of the start, and so is the code.
        """
        if self._renewal is not None:
            self._reload_again = True
            return
        try:
            check_error_path(self.options)
            tls = read_contexts(self.options)
        except OptionError as error:
            log.error("not reloaded, the workers go on: %s", error)
            return
        self._boots.succeeded()
        self._renewal = Renewal(frozenset(self.WORKERS), self.tls)
        self.tls = tls
        self.manage_workers()

    def _advance_renewal(self) -> None:
        """Have the old workers stop once all new ones accept, or give the new ones up."""
        renewal = self._renewal
        if renewal is None:
            return
        renewal.old &= frozenset(self.WORKERS)
        new = [worker for pid, worker in self.WORKERS.items() if pid not in renewal.old]
        if len(new) >= self.num_workers and all(worker.came_up for worker in new):
            self._renewal = None
            self._stop_workers(renewal.old)
            self.management.renew(self.tls)
            log.info("reloaded: %d new workers serve, the old ones drain", len(new))
        elif renewal.is_overdue:
            self._renewal = None
            self.tls = renewal.previous_tls
            log.error("not reloaded, the old workers go on: new ones did not come up in time")
            self._stop_workers(frozenset(self.WORKERS) - renewal.old)
        if self._renewal is None and self._reload_again:
            self._reload_again = False
            self.reload()

    def _stop_workers(self, pids: frozenset[int]) -> None:
        for pid in pids:
            self.kill_worker(pid, signal.SIGTERM)

    def handle_usr1(self) -> None:
        """Have the workers open the access log anew, those that drain too (SIGUSR1)."""
        for pid in (*self.WORKERS, *self.draining):
            self.kill_worker(pid, signal.SIGUSR1)

    def reexec(self) -> None:
        """Refuse SIGUSR2: two servers would have two routing tables."""
        log.warning("SIGUSR2 is not supported: use SIGHUP to replace the workers")

    # -- children that have ended

    def reap_workers(self) -> None:
        """Take note of children that have ended: the one place that asks the kernel.

        Raises ``HaltServer`` when no worker can be started and none has ever served.
        """
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                pid, status = ended
                self._cut_off.pop(pid, None)
                if pid == self.management.pid:
                    self.management.note_end(status)
                elif pid in self.draining:
                    self._forget_worker(self.draining.pop(pid))
                elif pid in self.WORKERS:
                    self._note_worker_end(pid, self.WORKERS.pop(pid), status)
        if not self._stopping:
            self.management.supervise()

    def _note_worker_end(self, pid: int, worker: Any, status: int) -> None:
        """Take note of a worker that nobody told to stop."""
        came_up = worker.came_up
        self._has_served = self._has_served or came_up
        self._forget_worker(worker)
        code = os.waitstatus_to_exitcode(status)
        if code == -signal.SIGKILL and not self._stopping:
            log.error("Worker (pid:%s) was sent SIGKILL! Perhaps out of memory?", pid)
        elif code < 0:
            # SIGTERM is how a worker is stopped, and may come once more while it leaves.
            level = logging.DEBUG if code == -signal.SIGTERM else logging.WARNING
            log.log(level, "Worker (pid:%s) was sent %s!", pid, signal.Signals(-code).name)
        elif code and came_up:
            log.error("Worker (pid:%s) exited with code %s.", pid, code)
        if not code or self._stopping:
            return
        if not came_up:
            if not self._has_served:
                raise HaltServer("no worker can be started", self.WORKER_BOOT_ERROR)
            pause = self._boots.failed()
            log.error("worker (pid %s) could not start; trying again in %g s", pid, pause)
        elif code != -signal.SIGKILL and worker.lifetime < _SHORT_LIFE:
            # It would do so again and again. One that was killed from outside would not.
            pause = self._boots.failed()
            log.error("worker (pid %s) ended at once; starting another in %g s", pid, pause)

    def _forget_worker(self, worker: Any) -> None:
        """Close the heartbeat of a worker that has ended, and zero the gauges of its row."""
        worker.tmp.close()
        reset_gauges(worker.row)

    # -- the end

    def stop(self, graceful: bool = True) -> None:
        """Stop the workers, then the management process."""
        self._stopping = True
        self.segment.words[STOPPING] = 1
        self.management.restart_no_more()
        if not graceful:
            # What gunicorn gives workers that are told so while it waits for them. One that stands
            # still (SIGSTOP) obeys no signal, and nothing is in flight that could be waited for.
            self.cfg.set("graceful_timeout", _QUICK_STOP_TIMEOUT)
        self.WORKERS.update(self.draining)
        self.draining.clear()
        close_listeners(self.redirect_sockets, unlink=True)
        # gunicorn's way fails, and with it the stop, when the file of a UNIX socket is gone.
        close_listeners([listener.sock for listener in self.LISTENERS], unlink=True)
        self.LISTENERS = []
        super().stop(graceful)
        self.management.stop(self.reap_workers, graceful=graceful)
        for listeners in self.sockets.values():
            close_listeners(listeners, unlink=True)
        if self._pid_file is not None:
            self._pid_file.remove()


def check_files(options: Options) -> None:
    """Check what the server needs of the file system besides TLS files. Raises OptionError."""
    if options.pid_file is not None and not os.access(Path(options.pid_file).parent, os.W_OK):
        raise OptionError(f"--pid-file: cannot write into the folder of {options.pid_file!r}")
    if options.access_log is not None and options.access_log != "-":
        try:
            check_file(options.access_log)
        except OSError as error:
            raise OptionError(f"--access-log: {options.access_log!r}: {error.strerror}") from None
    check_error_path(options)


def check_error_path(options: Options) -> None:
    """Check what workers need of the file system besides TLS files. Raises OptionError."""
    if options.proxy.error_path is not None and not Path(options.proxy.error_path).is_dir():
        raise OptionError(f"--error-path: {options.proxy.error_path!r} is not a folder")


def _raise_descriptor_limit() -> None:
    """Allow as many open files as the system lets this user have; inherited by children."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
