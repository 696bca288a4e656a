"""The way to another version: it is asked for, checked in a process of its own, and then become."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from chp_gevent.master import handover, preflight
from chp_gevent.master.handover import Handover
from chp_gevent.runtime import first_steps
from chp_gevent.runtime.own_command import own_command, patient
from chp_gevent.shared.memory_file import memory_file

log = logging.getLogger("chp_gevent.server")

TIMEOUT: Final = 60.0
"""Seconds that the check may take."""

# The last of what a program says that fails is worth showing; the rest may be a traceback.
_MOST_OUTPUT = 64 * 1024


# As it is now: what is on the disk may be another version's when it is needed.
_FIRST_STEPS: Final = Path(first_steps.__file__).read_bytes()


class Upgrade:
    """An upgrade of the server that this process is the arbiter of.

    The arbiter reaps all children, and tells of the end of the check by :meth:`note_end`.

    Args:
        on_refused: called with the reason when the server stays what it is.

    Attributes:
        is_asked: whether somebody has asked for one that has not begun.
        is_checked: whether the check was passed: nothing is left but to become the next version.
        pid: of the process that checks, while there is one.
    """

    def __init__(self, on_refused: Callable[[str], None]) -> None:
        self.is_asked = False
        self.is_checked = False
        self.pid: int | None = None
        self._on_refused = on_refused
        self._process: subprocess.Popen[bytes] | None = None
        self._output = -1
        self._deadline = 0.0
        self._is_cancelled = False

    def begin(self, state: Handover, environ: Mapping[str, str]) -> None:
        """Start the check, with what would be left to the next version now."""
        self.is_asked = False
        command = own_command()
        descriptors = state.shared()
        try:
            with contextlib.ExitStack() as closing:
                self._output = memory_file("chp-gevent-check")
                file = handover.write(state)
                closing.callback(os.close, file)
                variables = {handover.VARIABLE: str(file), preflight.VARIABLE: "1"}
                self._process = subprocess.Popen(
                    [command.program, *command.arguments[1:]],
                    cwd=command.folder if os.path.isdir(command.folder) else None,
                    env={**environ, **variables},
                    stdin=subprocess.DEVNULL,
                    stdout=self._output,
                    stderr=self._output,
                    pass_fds=(*descriptors, file),
                )
        except (OSError, subprocess.SubprocessError) as error:
            self._refuse(f"cannot start {command.program}: {_reason(error)}")
            return
        self.pid = self._process.pid
        self._deadline = time.monotonic() + TIMEOUT

    def look_after(self) -> None:
        """End a check that takes too long."""
        if self.pid is not None and time.monotonic() > self._deadline:
            log.error("the check of the next version takes more than %g s; ending it", TIMEOUT)
            self._deadline = float("inf")
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def note_end(self, status: int) -> None:
        """Take note that the check has ended, with this status of ``waitpid``."""
        assert self._process is not None
        # It has been waited for already.
        code = self._process.returncode = os.waitstatus_to_exitcode(status)
        self._process = self.pid = None
        size = os.fstat(self._output).st_size
        last = os.pread(self._output, _MOST_OUTPUT, max(0, size - _MOST_OUTPUT))
        said = last.decode("utf-8", "replace")
        if code == 0:
            self.is_checked = True
            self._close_output()
        elif code < 0:
            self._refuse(f"its check was ended by {_name_of(-code)}")
        else:
            self._refuse(_last_line(said) or f"its check ended with status {code}")

    def cancel(self) -> None:
        """Stop what has begun: the server stops."""
        self.is_asked = self.is_checked = False
        self._is_cancelled = True
        if self.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def become_next(self, state: Handover, environ: Mapping[str, str]) -> None:
        """Become the next version. Returns only if that fails; signals must be blocked."""
        self.is_checked = False
        command = own_command()
        inherited: list[int] = []
        files: list[int] = []
        try:
            file = handover.write(state)
            files.append(file)
            files.append(memory_file("chp-gevent-first-steps"))
            os.write(files[-1], _FIRST_STEPS)
            command = patient(command, files[-1])
            for descriptor in (*files, *state.descriptors()):
                if not os.get_inheritable(descriptor):
                    os.set_inheritable(descriptor, True)
                    inherited.append(descriptor)
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            with _working_folder(command.folder):
                variables = {**environ, handover.VARIABLE: str(file)}
                os.execve(command.program, command.arguments, variables)
        except OSError as error:
            for descriptor in inherited:
                os.set_inheritable(descriptor, False)
            for file in files:
                os.close(file)
            self._refuse(f"cannot execute {command.program}: {_reason(error)}")

    def _refuse(self, reason: str) -> None:
        self._close_output()
        if self._is_cancelled:
            return
        log.error("not reloaded, the workers go on: %s", reason)
        self._on_refused(reason)

    def _close_output(self) -> None:
        if self._output >= 0:
            os.close(self._output)
            self._output = -1


def close_on_exec(descriptors: Iterable[int]) -> None:
    """Leave what this version was left to no program that it starts."""
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)


@contextlib.contextmanager
def _working_folder(folder: str) -> Iterator[None]:
    """Be in a folder, if it is still there."""
    before = os.open(".", os.O_PATH | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):
            os.chdir(folder)
        yield
    finally:
        with contextlib.suppress(OSError):
            os.fchdir(before)
        os.close(before)


def _name_of(number: int) -> str:
    """Return the name of a signal; those of real time have none."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1].removeprefix("error: ") if lines else ""


def _reason(error: Exception) -> str:
    # subprocess puts the name of a file behind it.
    return getattr(error, "strerror", None) or str(error)
