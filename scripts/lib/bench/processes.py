"""Processes of a run: started, measured through /proc, and ended one by one by their id."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
STOP_SECONDS = 8.0
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None)


class BenchError(Exception):
    """A step that failed, in one line that can stand in the report."""


def _end_with_parent() -> None:
    """In the child: no process outlives a benchmark that was killed."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def start(
    command: Sequence[str],
    log: Path,
    env: Mapping[str, str] | None = None,
    *,
    piped: bool = False,
) -> subprocess.Popen[str]:
    """Start a command with its output in ``log``; ``piped``: stdin and stdout are pipes."""
    with log.open("ab") as output:
        return subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE if piped else subprocess.DEVNULL,
            stdout=subprocess.PIPE if piped else output,
            stderr=output,
            env={**os.environ, **(env or {})},
            text=True,
            start_new_session=True,
            preexec_fn=_end_with_parent,
        )


def prefer(pid: int) -> None:
    """Let a process have a processor whenever it wants one, where we may (as root).

    A real-time class, since the kernel's groups of processes by session leave nice(1) without
    effect between sessions.
    """
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(pid, os.SCHED_RR, os.sched_param(1))


def run(command: Sequence[str], timeout: float, env: Mapping[str, str] | None = None) -> str:
    """Run a command to its end and return its output.

    Raises:
        BenchError: it failed, or took longer than ``timeout`` seconds.
    """
    try:
        done = subprocess.run(
            list(command),
            capture_output=True,
            text=True,
            timeout=timeout,
            env={**os.environ, **(env or {})},
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BenchError(f"{Path(command[0]).name}: {error}") from error
    if done.returncode != 0:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["no output"]
        raise BenchError(f"{Path(command[0]).name} ended with {done.returncode}: {lines[-1]}")
    return done.stdout


def descendants(root: int) -> list[int]:
    """The ids of ``root`` and of every process below it."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            fields = _stat_fields(int(entry.name))
            if fields:
                children.setdefault(int(fields[1]), []).append(int(entry.name))
    found, waiting = [], [root]
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        waiting.extend(children.get(pid, ()))
    return found


def _stat_fields(pid: int) -> list[str]:
    """/proc/PID/stat from the state on (the name before it may hold anything)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return text.rpartition(")")[2].split()


def cpu_by_process(root: int) -> dict[int, float]:
    """Seconds of CPU (user and system, reaped children included) of each process of a tree."""
    return {pid: spent for pid in descendants(root) if (spent := _cpu_of(pid)) is not None}


def _cpu_of(pid: int) -> float | None:
    """utime + stime by the process's CPU clock (/proc has them in steps of 10 ms), with the
    cutime + cstime of /proc for the children that it has waited for."""
    fields = _stat_fields(pid)
    if not fields:
        return None
    reaped = (int(fields[13]) + int(fields[14])) / TICKS_PER_SECOND
    try:
        # The clock of another process: clock_getcpuclockid(3), as the kernel encodes it.
        return time.clock_gettime((~pid << 3) | 2) + reaped
    except OSError:
        return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND + reaped


def cpu_seconds(root: int) -> float:
    """Seconds of CPU of a whole process tree."""
    return sum(cpu_by_process(root).values())


def memory_bytes(root: int) -> int:
    """Resident memory of a process tree; pages that it shares within itself count once (PSS)."""
    total = 0
    for pid in descendants(root):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text("utf-8").splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
    return total


def connections_by_process(root: int, port: int) -> dict[int, int]:
    """How many accepted TCP connections on ``port`` each process of a tree holds."""
    established = "01"
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(table).read_text("utf-8").splitlines()[1:]:
                fields = line.split()
                if fields[3] == established and int(fields[1].rpartition(":")[2], 16) == port:
                    inodes.add(f"socket:[{fields[9]}]")
    held = {}
    for pid in descendants(root):
        count = 0
        with contextlib.suppress(OSError):
            for descriptor in os.scandir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):
                    count += os.readlink(descriptor.path) in inodes
        held[pid] = count
    return held


def stop(process: subprocess.Popen[str]) -> None:
    """End a process and what it started: SIGTERM to it, SIGKILL to whatever is left."""
    family = descendants(process.pid)
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
    if process.poll() is None:
        process.kill()
        process.wait()
    for pid in family:
        if pid != process.pid and _is_alive(pid, process.pid):
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()


def _is_alive(pid: int, session: int) -> bool:
    """Whether ``pid`` still belongs to the session of a stopped process (ids are reused)."""
    fields = _stat_fields(pid)
    return bool(fields) and fields[0] != "Z" and int(fields[3]) == session


@contextlib.contextmanager
def running(
    command: Sequence[str],
    log: Path,
    env: Mapping[str, str] | None = None,
    *,
    piped: bool = False,
) -> Iterator[subprocess.Popen[str]]:
    """A process for the time of a ``with`` block."""
    process = start(command, log, env, piped=piped)
    try:
        yield process
    finally:
        stop(process)


@contextlib.contextmanager
def deadline(seconds: float, what: str) -> Iterator[None]:
    """Raise BenchError in the block when it takes longer than ``seconds``."""

    def expire(_signal: int, _frame: object) -> None:
        raise BenchError(f"{what}: not done after {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def wait_until(check: object, seconds: float, what: str, process: subprocess.Popen[str]) -> None:
    """Call ``check()`` until it is true.

    Raises:
        BenchError: the process ended, or ``seconds`` passed.
    """
    assert callable(check)
    end = time.monotonic() + seconds
    while not check():
        if process.poll() is not None:
            raise BenchError(f"{what}: ended with {process.returncode}")
        if time.monotonic() > end:
            raise BenchError(f"{what}: not ready after {seconds:.0f} s")
        time.sleep(0.05)
