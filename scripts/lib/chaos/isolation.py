"""How the server is started so that the kernel can refuse things to it, and to nobody else."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from dataclasses import dataclass, field

# A /dev/shm of the server's own, small enough to be filled at once.
_PRIVATE_SHM = (
    "sh",
    "-c",
    'mount -t tmpfs -o size=1m,nr_inodes=100,mode=1777 tmpfs /dev/shm && exec "$@"',
    "sh",
)
# RLIMIT_NPROC does not bind root: the server is nobody, who may read files all the same (an
# interpreter under /root, say).
_AS_NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
_MAY_READ = (
    "--inh-caps=+dac_override",
    "--ambient-caps=+dac_override",
    "--bounding-set=-all,+dac_override",
)
# Says when it can be limited, waits until it is, and forks.
_FORKS = """
import os, sys
print("ready", flush=True)
sys.stdin.readline()
try:
    os._exit(os.fork() and 0)
except BlockingIOError:
    os._exit(7)
"""
_REFUSED = 7
_TIMEOUT = 20.0


@dataclass(frozen=True)
class Isolation:
    """What comes before the server's command.

    Attributes:
        prefix: the words of it.
        owner: what comes before a command that is to run as the server's user.
        missing: what can't be done to the server, and why.
    """

    prefix: tuple[str, ...] = ()
    owner: tuple[str, ...] = ()
    missing: dict[str, str] = field(default_factory=dict)

    def limit_processes(self, pid: int, most: int | None) -> None:
        """Let a process fork while its user has fewer processes than ``most`` (None: as we)."""
        if most is None:
            soft, _ = resource.getrlimit(resource.RLIMIT_NPROC)
            value = "unlimited" if soft == resource.RLIM_INFINITY else str(soft)
        else:
            value = str(most)
        # The limits of a process are its user's to change, not root's without CAP_SYS_RESOURCE.
        command = [*self.owner, "prlimit", f"--pid={pid}", f"--nproc={value}:"]
        subprocess.run(command, capture_output=True, timeout=_TIMEOUT, check=False)


def find_isolation() -> Isolation:
    """Try out what this system and this user allow."""
    root = os.geteuid() == 0
    prefix: tuple[str, ...] = ()
    owner: tuple[str, ...] = ()
    missing = {}
    # An ordinary user may mount as root of a user namespace.
    alone = ("unshare", "--mount", *(() if root else ("--user", "--map-root-user")), *_PRIVATE_SHM)
    if _runs(alone):
        prefix += alone
    else:
        missing["shm"] = "no mount namespace can be made"
    if root and _runs((*prefix, *_AS_NOBODY, *_MAY_READ)):
        prefix += (*_AS_NOBODY, *_MAY_READ)
        owner = _AS_NOBODY
    if not _forks_can_fail(Isolation(prefix, owner)):
        missing["fork"] = "RLIMIT_NPROC does not bind the server"
    return Isolation(prefix, owner, missing)


def _runs(prefix: tuple[str, ...]) -> bool:
    """Whether the interpreter can be started behind a prefix."""
    command = [*prefix, sys.executable, "-c", ""]
    try:
        done = subprocess.run(command, capture_output=True, timeout=_TIMEOUT, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _forks_can_fail(isolation: Isolation) -> bool:
    """Whether a process that is started like the server can be kept from forking, and let again."""
    outcomes = []
    for most in (0, None):
        with subprocess.Popen(
            [*isolation.prefix, sys.executable, "-c", _FORKS],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            try:
                isolation.limit_processes(process.pid, 0)
                isolation.limit_processes(process.pid, most)
                process.communicate(b"\n", timeout=_TIMEOUT)
            except (OSError, subprocess.TimeoutExpired):
                process.kill()
        outcomes.append(process.returncode)
    return outcomes == [_REFUSED, 0]
