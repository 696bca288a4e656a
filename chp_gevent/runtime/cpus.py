"""How many CPUs this process may use: by its affinity, and by the quotas of its control groups."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath


def usable_cpus(root: Path = Path("/")) -> int:
    """Return how many CPUs can be kept busy, at least 1.

    A container or service that may use 1.5 CPUs of 64 (``docker --cpus``, Kubernetes' limits,
    systemd's ``CPUQuota=``) sees all 64 in its affinity. A started CPU counts as one. ``root``
    is where ``/proc`` and ``/sys`` are.
    """
    quota = cpu_quota(root)
    affinity = len(os.sched_getaffinity(0))
    return affinity if quota is None else max(1, min(affinity, math.ceil(quota)))


def cpu_quota(root: Path) -> float | None:
    """Return the least quota of the process's control groups and those around them, in CPUs.

    None if there is none, or none that can be read.
    """
    try:
        groups = (root / "proc/self/cgroup").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    quotas = [
        quota
        for line in groups.splitlines()
        for folder in _folders(line, root / "sys/fs/cgroup")
        if (quota := _quota_v2(folder) or _quota_v1(folder)) is not None
    ]
    return min(quotas, default=None)


def _folders(line: str, mounted: Path) -> Iterator[Path]:
    """Yield the folders of a group that a line of ``/proc/self/cgroup`` names, and of its parents.

    In a container the path may be that of the host, which is not to be seen from inside; then
    the topmost folder is the container's own group.
    """
    number, _, rest = line.partition(":")
    controllers, _, path = rest.partition(":")
    if number == "0" and not controllers:
        hierarchies = ["", "unified"]  # version 2: alone, or beside version 1
    elif "cpu" in controllers.split(","):
        hierarchies = [controllers, "cpu"]
    else:
        return
    group = PurePosixPath("/", path).relative_to("/")
    for hierarchy in hierarchies:
        for each in (group, *group.parents):
            if ".." not in each.parts:
                yield mounted / hierarchy / each


def _quota_v2(folder: Path) -> float | None:
    words = _words(folder / "cpu.max")
    return _ratio(*words) if len(words) == 2 else None


def _quota_v1(folder: Path) -> float | None:
    words = _words(folder / "cpu.cfs_quota_us") + _words(folder / "cpu.cfs_period_us")
    return _ratio(*words) if len(words) == 2 else None


def _words(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return []


def _ratio(quota: str, period: str) -> float | None:
    """Return quota by period; None for ``max`` (version 2) and -1 (version 1)."""
    try:
        return int(quota) / int(period) if int(quota) > 0 else None
    except (ValueError, ZeroDivisionError):
        return None
