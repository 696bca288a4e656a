"""gunicorn's arbiter with what a proxy server needs besides workers.

It opens all listening sockets, loads what its children run, makes what they share, and
supervises the management process. Nothing that happens to a child, a file or the system ends it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
from collections.abc import Callable
from typing import NoReturn

from gunicorn import util
from gunicorn.arbiter import Arbiter
from gunicorn.errors import HaltServer

from chp_gevent import __version__
from chp_gevent.config.live_tls import SharedTls
from chp_gevent.config.options import OptionError, Options
from chp_gevent.master import handover
from chp_gevent.master.announcement import announce
from chp_gevent.master.certificate_watch import CertificateWatch
from chp_gevent.master.handover import CannotTakeOver, Handover, take
from chp_gevent.master.listeners import adopt_files, bound_files, close_listeners, gunicorn_listener
from chp_gevent.master.loading import load, load_at_last
from chp_gevent.master.management_supervisor import ManagementSupervisor
from chp_gevent.master.pid_file import PidFile
from chp_gevent.master.preloading import keep_shared
from chp_gevent.master.resources import ListeningSockets, open_sockets
from chp_gevent.master.upgrade import Upgrade, close_on_exec
from chp_gevent.master.worker_pool import WorkerPool
from chp_gevent.proxy.worker import ProxyWorker
from chp_gevent.runtime import logs
from chp_gevent.runtime.descriptors import raise_descriptor_limit
from chp_gevent.runtime.signals import die_with_parent, held_signals, stop_by_default
from chp_gevent.runtime.systemd import Notifier
from chp_gevent.runtime.troubles import Troubles
from chp_gevent.shared import records
from chp_gevent.shared.segment import GENERATION, STOPPING
from chp_gevent.shared.ticket_secrets import TicketSecrets

log = logging.getLogger("chp_gevent.server")

_READY_TIMEOUT = 20.0
# Seconds between two looks at the children, and while workers are coming up.
_LOOK = 1.0
_LOOK_WHILE_STARTING = 0.05
# Seconds that all workers have to leave when the server stops at once (SIGINT, SIGQUIT).
_QUICK_STOP_TIMEOUT = 2
# They wait while this process becomes another version of itself, which has no handlers at first.
_HANDLED_SIGNALS = (*Arbiter.SIGNALS, signal.SIGCHLD)


class ProxyArbiter(WorkerPool):
    """The master process of one proxy server.

    gunicorn has no setting for the arbiter's class; :meth:`adopt` turns the one that its
    ``on_starting`` hook shows into this.

    Attributes:
        sockets: of the management process, by what they are for.
        management: looks after that process.
    """

    management: ManagementSupervisor

    @classmethod
    def adopt(cls, arbiter: Arbiter, options: Options) -> None:
        """Make ``arbiter`` a ProxyArbiter and open its sockets. Raises ``OptionError``."""
        arbiter.__class__ = cls
        arbiter.prepare(options)

    def prepare(self, options: Options) -> None:
        """Open sockets, load code, make what the processes share; or take it over.

        Raises ``OptionError`` and ``OSError``; never once it has something to lose.
        """
        try:
            state = take(os.environ)
        except CannotTakeOver as error:
            raise OptionError(str(error)) from None
        self._state = state
        self._upgrade = Upgrade(self._on_refused)
        self._systemd = Notifier(os.environ, log)
        self._troubles = Troubles(log)
        raise_descriptor_limit()
        for notice in options.notices:
            getattr(log, {"warn": "warning"}.get(notice.level, notice.level))(notice.message)
        with contextlib.ExitStack() as undo:
            # Before the code is loaded, since the arbiter's sockets must not be gevent's.
            opened = open_sockets(options, undo, state.sockets if state is not None else None)
            if state is None:
                contexts = load(options, self.app.wsgi, starts=True)
            else:
                contexts = load_at_last(options, self.app.wsgi)
            undo.pop_all()
        self.sockets = opened.management
        self.LISTENERS = [
            gunicorn_listener(listener, self.cfg, self.log) for listener in opened.public
        ]
        secrets = TicketSecrets(state.ticket_secrets if state is not None else None)
        tls = SharedTls(options, contexts, secrets)
        self.prepare_workers(options, tls, opened.redirect, state)
        self._certificates = CertificateWatch(options, tls, self.segment)
        self.management = ManagementSupervisor(
            options,
            tls,
            self.segment,
            self._journal,
            self.sockets,
            self._drop_in_management,
        )
        self._pid_file = PidFile(options.pid_file) if options.pid_file else None
        if state is not None:
            self._take_over(state)
        keep_shared()

    def _take_over(self, state: Handover) -> None:
        """Look after what the version before has left, beside its workers."""
        listening = {each for some in state.sockets.values() for each in some}
        close_on_exec(set(state.descriptors()) - listening)
        adopt_files(state.unix_sockets)
        self.management.adopt(state.management, state.management_ready)
        self._upgrade.is_asked = state.again
        if self._pid_file is not None:
            self._pid_file.is_ours = state.has_pid_file
        if self.pidfile is not None:
            # gunicorn's own (--pid), which it leaves to whoever has written it.
            self.pidfile.pid = self.pid
        log.info(
            "took over from version %s: workers %d, draining %d, changes of the table %d",
            state.version,
            len(self.WORKERS),
            len(self.draining),
            self.segment.words[GENERATION],
        )

    def serve(self) -> NoReturn:
        """Serve until told to stop; gunicorn's last hook before its own loop (``when_ready``)."""
        if self._state is None:
            self.ready()
        self.supervise()

    def ready(self) -> None:
        """Start the management process and say where the server listens.

        Exits with 1 when it can't be started. Whoever is told that the server is ready, by the
        log or as systemd, finds the pid file there.
        """
        self.management.supervise()
        shared = self.options.shared_store
        timeout = _READY_TIMEOUT + (shared.start_timeout if shared else 0.0)
        if not self.management.wait_until_ready(timeout):
            log.error("the management process could not be started; see the lines above")
            self.stop(False)
            sys.exit(1)
        self._write_pid_file()
        announce(self.options, self.redirect_sockets)
        self._systemd.tell("READY=1")

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
            self.reap_workers()
            self._attempt("starting workers", self.manage_workers)
            while not self._stopping:
                for number in self.wait_for_signals(timeout=self._patience()):
                    self._attempt("handling a signal", lambda n=number: self._obey(n))  # type: ignore[misc]
                self._attempt("looking after hanging workers", self.murder_workers)
                self._attempt("starting workers", self.manage_workers)
                self._attempt("looking after the management process", self.management.supervise)
                self._attempt("looking after certificates", self._certificates.look)
                self._attempt("reloading", self._advance_upgrade)
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
        return _LOOK_WHILE_STARTING if self.are_coming_up else _LOOK

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
            self._troubles.note(task, error)
        else:
            self._troubles.end(task)

    # -- what its children begin with

    def begin_worker(self, worker: ProxyWorker) -> None:
        """In a new worker: close what belongs to other processes, first of all."""
        die_with_parent(self.pid)
        stop_by_default()
        for listeners in self.sockets.values():
            close_listeners(listeners, unlink=False)
        self.management.drop_in_worker()
        for draining in self.draining.values():
            draining.tmp.close()
        self.segment.close_file()

    def _drop_in_management(self) -> None:
        for listener in (*self.LISTENERS, *self.redirect_sockets):
            listener.close()
        for worker in self.all_workers:
            worker.tmp.close()
        self.segment.close_file()

    # -- from one version to the next

    def reload(self) -> None:
        """Become the version that is installed now, with the files as they are now (SIGHUP).

        Refused, in one line, when that can't start. The command line and the environment are
        those of the start. Sockets, routes, connections and the process itself stay.
        """
        self._upgrade.is_asked = True
        self._systemd.tell_reloading()

    def reexec(self) -> None:
        """Do the same (SIGUSR2): to gunicorn, that is how a server is upgraded."""
        self.reload()

    def _advance_upgrade(self) -> None:
        upgrade = self._upgrade
        upgrade.look_after()
        # A reload that has begun comes to its end first.
        if self._stopping or self._renewal is not None:
            return
        if upgrade.is_checked:
            with held_signals(_HANDLED_SIGNALS):
                # What has come already must be obeyed by who knows of it.
                if self.SIG_QUEUE.empty():
                    upgrade.become_next(self._handover(), self._environment())
        elif upgrade.is_asked and upgrade.pid is None:
            upgrade.begin(self._handover(), self._environment())

    def _environment(self) -> dict[str, str]:
        """Return the environment that the server was started with."""
        environ = {**os.environ, **self._systemd.variables}
        if self.cfg.daemon:
            # It is one already: without this, gunicorn would leave into the background again.
            environ["GUNICORN_FD"] = ""
        return environ

    def _handover(self) -> Handover:
        sockets = ListeningSockets(
            [listener.sock for listener in self.LISTENERS], self.redirect_sockets, self.sockets
        )
        return Handover(
            format=handover.FORMAT,
            version=__version__,
            pid=os.getpid(),
            layout=self.segment.layout,
            records=records.FORMAT,
            rows=self.segment.rows,
            routes=self.segment.routes,
            segment=self.segment.fd,
            journal=self._journal.files,
            sockets=sockets.descriptors(),
            unix_sockets=bound_files(),
            workers=self.worker_states(),
            worker_age=self.worker_age,
            num_workers=self.num_workers,
            management=self.management.pid,
            management_ready=self.management.ready_fd,
            ticket_secrets=self.tls.secrets.fd,
            has_pid_file=self._pid_file is not None and self._pid_file.is_ours,
            again=self._upgrade.is_asked,
        )

    def on_renewed(self, failure: str | None) -> None:
        """See ``WorkerPool``: the management process is replaced behind the workers."""
        if failure is None:
            self.management.replace()
            self._systemd.tell("READY=1", "STATUS=")
        else:
            self._on_refused(failure)

    def _on_refused(self, reason: str) -> None:
        self._systemd.tell("READY=1", f"STATUS=not reloaded: {reason}")

    def init_signals(self) -> None:
        """Handle signals from now on, those that came while this was being started, too."""
        super().init_signals()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _HANDLED_SIGNALS)

    # -- children that have ended

    def reap_workers(self) -> None:
        """Take note of children that have ended: the one place that asks the kernel.

        Raises ``HaltServer`` when no worker can be started and none has ever served.
        """
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                pid, status = ended
                if pid == self.management.pid:
                    self.management.note_end(status)
                elif pid == self._upgrade.pid:
                    self._upgrade.note_end(status)
                else:
                    self.note_end(pid, status)
        if not self._stopping:
            self.management.supervise()

    # -- the end

    def stop(self, graceful: bool = True) -> None:
        """Stop the workers, then the management process."""
        self._stopping = True
        self._upgrade.cancel()
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
