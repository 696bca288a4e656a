"""gunicorn's arbiter with what a proxy server needs besides workers.

It opens all listening sockets, loads what its children run, makes what they share, and
supervises the management process. Nothing that happens to a child, a file or the system ends it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Callable
from typing import NoReturn

from gunicorn import systemd, util
from gunicorn.arbiter import Arbiter
from gunicorn.errors import HaltServer

from chp_gevent.config.options import OptionError, Options
from chp_gevent.config.tls_contexts import read_contexts
from chp_gevent.master.listeners import close_listeners, described, gunicorn_listener
from chp_gevent.master.management_supervisor import ManagementSupervisor
from chp_gevent.master.pid_file import PidFile
from chp_gevent.master.preloading import keep_shared, load_code
from chp_gevent.master.resources import check_files, open_sockets
from chp_gevent.master.worker_pool import WorkerPool
from chp_gevent.proxy.worker import ProxyWorker
from chp_gevent.runtime import logs
from chp_gevent.runtime.descriptors import raise_descriptor_limit
from chp_gevent.runtime.signals import die_with_parent, stop_by_default
from chp_gevent.runtime.troubles import Troubles
from chp_gevent.shared.segment import STOPPING

log = logging.getLogger("chp_gevent.server")

_READY_TIMEOUT = 20.0
# Seconds between two looks at the children, and while workers are coming up.
_LOOK = 1.0
_LOOK_WHILE_STARTING = 0.05
# Seconds that all workers have to leave when the server stops at once (SIGINT, SIGQUIT).
_QUICK_STOP_TIMEOUT = 2
# Where systemd (Type=notify) waits to hear that the server is ready.
_NOTIFY_SOCKET = "NOTIFY_SOCKET"


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
        """Open sockets, load code, make what the processes share. Raises ``OptionError``."""
        self._pid_file = PidFile(options.pid_file) if options.pid_file else None
        # gunicorn would tell systemd before anything is served.
        self._notify_socket = os.environ.pop(_NOTIFY_SOCKET, None)
        self._troubles = Troubles(log)
        raise_descriptor_limit()
        check_files(options)
        for notice in options.notices:
            getattr(log, {"warn": "warning"}.get(notice.level, notice.level))(notice.message)
        with contextlib.ExitStack() as undo:
            # Before the code is loaded, since the arbiter's sockets must not be gevent's.
            opened = open_sockets(options, undo)
            load_code()
            tls = read_contexts(options)
            self._load_application()
            undo.pop_all()
        self.sockets = opened.management
        self.LISTENERS = [
            gunicorn_listener(listener, self.cfg, self.log) for listener in opened.public
        ]
        self.prepare_workers(options, tls, opened.redirect)
        self.management = ManagementSupervisor(
            options,
            tls,
            self.segment,
            self._journal,
            self.sockets,
            self._drop_in_management,
        )
        keep_shared()

    def _load_application(self) -> None:
        """Load what ``wsgi_app`` names, which may be middleware around the proxy."""
        try:
            self.app.wsgi()
        except Exception as error:
            log.debug("Traceback of an error in wsgi_app", exc_info=error)
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
            raise OptionError(f"wsgi_app can't be loaded: {reason}") from error

    def serve(self) -> NoReturn:
        """Serve until told to stop; gunicorn's last hook before its own loop (``when_ready``)."""
        self.ready()
        self.supervise()

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

    def _drop_in_management(self) -> None:
        for listener in (*self.LISTENERS, *self.redirect_sockets):
            listener.close()
        for worker in self.all_workers:
            worker.tmp.close()

    def on_renewed(self) -> None:
        """See ``WorkerPool``: the management process is renewed behind the workers."""
        self.management.renew(self.tls)

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
                if pid == self.management.pid:
                    self.management.note_end(status)
                else:
                    self.note_end(pid, status)
        if not self._stopping:
            self.management.supervise()

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
