"""gunicorn's arbiter with what a proxy server needs besides workers.

It opens all listening sockets, makes the segment and the journal, supervises the
management process, gives each worker its row, and lets stopping workers drain without
waiting for them.
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
from pathlib import Path
from typing import Any

from gunicorn import sock as gunicorn_sock
from gunicorn.arbiter import Arbiter

from chp_gevent import logs
from chp_gevent.channel.journal import Journal
from chp_gevent.channel.segment import REQUESTS_WEB, REQUESTS_WS, Segment, reset_gauges
from chp_gevent.listeners import close_listeners, described, open_listeners
from chp_gevent.options import Address, Options
from chp_gevent.signals import die_with_parent, held_stop_signals, stop_by_default
from chp_gevent.supervisor import ManagementSupervisor

log = logging.getLogger("chp_gevent.server")

# Workers that can have a row at the same time: those serving and those draining.
_ROWS = 600
_READY_TIMEOUT = 20.0


class ProxyArbiter(Arbiter):
    """The master process of one proxy server.

    gunicorn has no setting for the arbiter's class; :meth:`adopt` turns the one that its
    ``on_starting`` hook shows into this.
    """

    options: Options
    segment: Segment
    management: ManagementSupervisor

    @classmethod
    def adopt(cls, arbiter: Arbiter, options: Options) -> None:
        """Make ``arbiter`` a ProxyArbiter and open its sockets. Raises ``OptionError``."""
        arbiter.__class__ = cls
        arbiter.prepare(options)

    def prepare(self, options: Options) -> None:
        """Open sockets and make what the processes share. Raises ``OptionError``."""
        self.options = options
        self.draining: dict[int, Any] = {}
        self._stopping = False
        self._pid_file: Path | None = None
        _raise_descriptor_limit()
        for notice in options.notices:
            getattr(log, {"warn": "warning"}.get(notice.level, notice.level))(notice.message)
        with contextlib.ExitStack() as undo:
            # A start that fails leaves no UNIX sockets behind.
            public, self.sockets = self._open_sockets(undo)
            undo.pop_all()
        # Clients come here too: it is the workers' to serve.
        self.redirect_sockets = self.sockets.pop("redirect", [])
        self.LISTENERS = gunicorn_sock.create_sockets(
            self.cfg, self.log, [listener.detach() for listener in public]
        )
        self.segment = Segment(rows=_ROWS)
        self._journal = Journal(self.segment)
        self.management = ManagementSupervisor(
            options, self.segment, self._journal, self.sockets, self._drop_in_management
        )

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

    def ready(self) -> None:
        """Start the management process and say where the server listens.

        Exits with 1 when it can't be started.
        """
        self.management.start()
        if not self.management.wait_until_ready(_READY_TIMEOUT):
            log.error("the management process could not be started; see the lines above")
            self.stop(False)
            sys.exit(1)
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
        self._write_pid_file()

    # -- pid file

    def _write_pid_file(self) -> None:
        path = self.options.pid_file
        if path is None:
            return
        log.info("Writing pid %s to %s", os.getpid(), path)
        file = Path(path)
        try:
            file.write_text(str(os.getpid()), encoding="ascii")
            self._pid_file = file
        except OSError as error:
            log.error("cannot write --pid-file %s: %s; going on without it", path, error.strerror)
            with contextlib.suppress(OSError):
                # On a full disk it exists now, and is empty.
                if file.is_file() and file.stat().st_size == 0:
                    file.unlink()

    def _remove_pid_file(self) -> None:
        if self._pid_file is not None:
            with contextlib.suppress(OSError, ValueError):
                if int(self._pid_file.read_text(encoding="ascii")) == os.getpid():
                    self._pid_file.unlink()

    # -- workers

    def equip(self, worker: Any) -> None:
        """Give a worker that is about to be forked its row and what is shared."""
        used = {w.row_index for w in (*self.WORKERS.values(), *self.draining.values())}
        # The last row is the management process's.
        row = next((i for i in range(_ROWS - 1) if i not in used), 0)
        worker.equip(self.options, self.segment, self._journal, row, self.redirect_sockets)
        worker.requests_before = self._requests(row)

    def _requests(self, row_index: int) -> int:
        row = self.segment.row(row_index)
        return row[REQUESTS_WEB] + row[REQUESTS_WS]

    def _retire_one(self) -> None:
        """Replace a worker that has served ``--max-requests``; one after the other."""
        limit = self.options.max_requests
        if not limit or self.draining:
            return
        for pid, worker in self.WORKERS.items():
            if self._requests(worker.row_index) - worker.requests_before >= limit:
                log.info("replacing worker (pid %s) after %d requests", pid, limit)
                self.kill_worker(pid, signal.SIGTERM)
                return

    def spawn_worker(self) -> int:
        """Fork a worker. Returns its pid, and in the worker never."""
        with held_stop_signals():
            return super().spawn_worker()

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

    def retire_row(self, worker: Any) -> None:
        """Zero the gauges of a worker that has ended."""
        reset_gauges(self.segment.row(worker.row_index))

    def kill_worker(self, pid: int, sig: int) -> None:
        """Signal a worker; one that is told to stop is no longer counted as a worker.

        gunicorn would wait for it: a reload would then block the arbiter, and a worker that
        keeps its tunnels would leave its place empty, for as long as the drain lasts.
        """
        super().kill_worker(pid, sig)
        if sig == signal.SIGTERM and not self._stopping and pid in self.WORKERS:
            self.draining[pid] = self.WORKERS.pop(pid)

    def manage_workers(self) -> None:
        """Keep the processes at their number: workers, and the management process."""
        self._retire_one()
        super().manage_workers()
        self.management.supervise()
        logs.tell_losses()

    def murder_workers(self) -> None:
        """End workers that hang; gunicorn does not know those that drain."""
        super().murder_workers()
        now = time.monotonic()
        for pid, worker in self.draining.items():
            with contextlib.suppress(OSError, ValueError):
                if self.timeout and now - worker.tmp.last_update() > self.timeout:
                    log.error("draining worker (pid %s) hangs; ending it", pid)
                    os.kill(pid, signal.SIGKILL)

    def reap_workers(self) -> None:
        """Take note of children that have ended."""
        self.management.supervise()
        for pid, worker in list(self.draining.items()):
            if _has_ended(pid):
                del self.draining[pid]
                worker.tmp.close()
                self.cfg.child_exit(self, worker)
        super().reap_workers()

    # -- the end

    def stop(self, graceful: bool = True) -> None:
        """Stop the workers, then the management process."""
        self._stopping = True
        self.management.restart_no_more()
        self.WORKERS.update(self.draining)
        self.draining.clear()
        close_listeners(self.redirect_sockets, unlink=True)
        super().stop(graceful)
        self.management.stop(graceful=graceful)
        for listeners in self.sockets.values():
            close_listeners(listeners, unlink=True)
        self._remove_pid_file()

    def reexec(self) -> None:
        """Refuse SIGUSR2: two servers would have two routing tables."""
        log.warning("SIGUSR2 is not supported: use SIGHUP to replace the workers")


def _raise_descriptor_limit() -> None:
    """Allow as many open files as the system lets this user have; inherited by children."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _has_ended(pid: int) -> bool:
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return True
