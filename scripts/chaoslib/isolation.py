"""How the server is started so that the kernel can refuse things to it, and to nobody else."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

# A /dev/shm of the server's own, small enough to be filled at once.
_PRIVATE_SHM = (
    "sh",
    "-c",
    'mount -t tmpfs -o size=1m,nr_inodes=100,mode=1777 tmpfs /dev/shm && exec "$@"',
    "sh",
)
# RLIMIT_NPROC does not bind root: for a time without forks the server is nobody, who may read
# files all the same (an interpreter under /root, say).
_NOBODY = (
    "setpriv",
    "--reuid=65534",
    "--regid=65534",
    "--clear-groups",
    "--inh-caps=+dac_override",
    "--ambient-caps=+dac_override",
    "--bounding-set=-all,+dac_override",
)
_CAN_FORK = """
import os, resource
resource.setrlimit(resource.RLIMIT_NPROC, (0, resource.getrlimit(resource.RLIMIT_NPROC)[1]))
try:
    os._exit(os.fork() and 0)
except BlockingIOError:
    os._exit(7)
"""
_REFUSED = 7


@dataclass(frozen=True)
class Isolation:
    """What comes before the server's command.

    Attributes:
        prefix: the words of it.
        missing: what can't be done to the server, and why.
    """

    prefix: tuple[str, ...] = ()
    missing: dict[str, str] = field(default_factory=dict)


def find_isolation() -> Isolation:
    """Try out what this system and this user allow."""
    root = os.geteuid() == 0
    prefix: tuple[str, ...] = ()
    missing = {}
    # An ordinary user may mount as root of a user namespace.
    alone = ("unshare", "--mount", *(() if root else ("--user", "--map-root-user")), *_PRIVATE_SHM)
    if _status(alone, "") == 0:
        prefix += alone
    else:
        missing["shm"] = "no mount namespace can be made here"
    if root:
        prefix += _NOBODY if _status((*prefix, *_NOBODY), "") == 0 else ()
    if _status(prefix, _CAN_FORK) != _REFUSED:
        missing["fork"] = "RLIMIT_NPROC does not bind the server here"
    return Isolation(prefix, missing)


def _status(prefix: Sequence[str], program: str) -> int:
    """Run a Python program behind a prefix; return its exit status."""
    try:
        done = subprocess.run(
            [*prefix, sys.executable, "-c", program], capture_output=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return -1
    return done.returncode
