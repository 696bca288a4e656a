"""The workers of a server: gunicorn's arbiter as far as it is about them.

Each worker has a row in the segment; one that is told to stop drains without being waited for;
all of them are replaced by a reload, or none.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import time

from gunicorn.arbiter import Arbiter
from gunicorn.errors import HaltServer

from chp_gevent.config.live_tls import SharedTls
from chp_gevent.config.options import Options
from chp_gevent.master.adopted_worker import AdoptedWorker
from chp_gevent.master.handover import Handover, WorkerState
from chp_gevent.master.renewal import Renewal
from chp_gevent.proxy.worker import ProxyWorker
from chp_gevent.runtime.backoff import Backoff
from chp_gevent.runtime.signals import held_stop_signals
from chp_gevent.shared.journal import Journal
from chp_gevent.shared.segment import (
    ACCEPTING,
    REQUESTS_WEB,
    REQUESTS_WS,
    Segment,
    reset_gauges,
)

log = logging.getLogger("chp_gevent.server")

# Generations of workers that a server may have rows for besides those that drain: those that
# serve, and those that a reload starts.
_GENERATIONS = 2
# Rows at the least: SIGTTIN may ask for more workers than the options do.
_FEWEST_ROWS = 64
# Seconds that a worker serves at least before it is taken for one that can.
_SHORT_LIFE = 5.0
# Seconds that a worker has to leave at once, before it is killed.
_CUT_OFF_TIMEOUT = 5.0


AnyWorker = ProxyWorker | AdoptedWorker
"""A worker that this version has forked, or the one before."""


class WorkerPool(Arbiter):
    """Starts workers, keeps them at their number, replaces them, and takes note of their ends.

    Attributes:
        options: the server's.
        tls: the contexts that workers and management process inherit, and how they are renewed.
        segment: the shared memory.
        redirect_sockets: of the redirect to HTTPS.
        draining: workers that have been told to stop, by pid, those that were first first.
    """

    options: Options
    tls: SharedTls
    segment: Segment
    redirect_sockets: list[socket.socket]

    def prepare_workers(
        self,
        options: Options,
        tls: SharedTls,
        redirect_sockets: list[socket.socket],
        state: Handover | None = None,
    ) -> None:
        """Make what the workers share, and what their account is kept in.

        Or take it, and the workers, from the version before, which has left ``state``. Raises
        ``OSError``.
        """
        self.options = options
        self.tls = tls
        self.redirect_sockets = redirect_sockets
        self.draining: dict[int, AnyWorker] = {}
        self._cut_off: dict[int, float] = {}
        self._renewal: Renewal | None = None
        self._boots = Backoff()
        self._has_served = False
        self._stopping = False
        if state is not None:
            self._adopt_workers(state)
            return
        rows = options.workers * (options.max_draining + _GENERATIONS)
        # The last row is the management process's.
        self.segment = Segment(rows=max(rows, _FEWEST_ROWS) + 1)
        self._journal = Journal(self.segment)

    @property
    def all_workers(self) -> list[AnyWorker]:
        """The workers that serve or are to, and those that drain."""
        return [*self.WORKERS.values(), *self.draining.values()]

    @property
    def are_coming_up(self) -> bool:
        """Whether there are workers that don't accept connections yet."""
        return self._renewal is not None or not all(
            worker.came_up for worker in self.WORKERS.values()
        )

    # -- from one version to the next

    def worker_states(self) -> list[WorkerState]:
        """Return what the next version has to know of the workers."""
        return [
            WorkerState(
                pid=pid,
                row=worker.row_index,
                heartbeat=worker.tmp.fileno(),
                age=worker.age,
                requests_before=worker.requests_before,
                made_at=worker.made_at,
                drains=pid in self.draining,
            )
            for pid, worker in (*self.draining.items(), *self.WORKERS.items())
        ]

    def _adopt_workers(self, state: Handover) -> None:
        """Look after the workers of the version before, until those of this one serve."""
        self.segment, self._journal = state.attach()
        for each in state.workers:
            workers = self.draining if each.drains else self.WORKERS
            workers[each.pid] = AdoptedWorker(each, self.segment)
        self.worker_age = state.worker_age
        self.num_workers = state.num_workers
        self._has_served = True
        self._renewal = Renewal(frozenset(self.WORKERS))

    # -- starting them

    def assign_row(self, worker: ProxyWorker) -> None:
        """Give a worker that is about to be forked its row and what is shared.

        Raises ``RuntimeError`` when there is no row left.
        """
        used = {worker.row_index for worker in self.all_workers}
        row = next((i for i in range(self.segment.rows - 1) if i not in used), None)
        if row is None:
            raise RuntimeError(f"there are {len(used)} workers already, draining ones included")
        worker.take(self.options, self.tls, self.segment, self._journal, row, self.redirect_sockets)
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

    def on_renewed(self, failure: str | None) -> None:
        """Take note that all workers have been replaced, or why they go on."""

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
            log.info("reloaded: %d new workers serve, the old ones drain", len(new))
            self.on_renewed(None)
        elif renewal.is_overdue:
            self._renewal = None
            log.error("not reloaded, the old workers go on: new ones did not come up in time")
            self._stop_workers(frozenset(self.WORKERS) - renewal.old)
            self.on_renewed("new workers did not come up in time")

    def _stop_workers(self, pids: frozenset[int]) -> None:
        for pid in pids:
            self.kill_worker(pid, signal.SIGTERM)

    def handle_usr1(self) -> None:
        """Have the workers open the access log anew, those that drain too (SIGUSR1)."""
        for pid in (*self.WORKERS, *self.draining):
            self.kill_worker(pid, signal.SIGUSR1)

    # -- their ends

    def note_end(self, pid: int, status: int) -> None:
        """Take note of a child that has ended, if it is a worker; ``status`` is ``waitpid``'s.

        Raises ``HaltServer`` when no worker can be started and none has ever served.
        """
        self._cut_off.pop(pid, None)
        if pid in self.draining:
            self._forget_worker(self.draining.pop(pid))
        elif pid in self.WORKERS:
            self._note_worker_end(pid, self.WORKERS.pop(pid), status)

    def _note_worker_end(self, pid: int, worker: AnyWorker, status: int) -> None:
        """Take note of a worker that nobody told to stop."""
        came_up = worker.came_up
        # Another may serve already, whom the loop has not looked at yet.
        self._has_served = (
            self._has_served or came_up or any(each.came_up for each in self.all_workers)
        )
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

    def _forget_worker(self, worker: AnyWorker) -> None:
        """Close the heartbeat of a worker that has ended, and zero the gauges of its row."""
        worker.tmp.close()
        reset_gauges(worker.row)
