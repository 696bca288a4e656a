"""How many workers there are by default in a container or a service with a quota."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from chp_gevent.runtime.cpus import cpu_quota, usable_cpus


def tree(root: Path, cgroup: str, files: Mapping[str, str]) -> Path:
    """Make a ``/proc/self/cgroup`` and files below ``/sys/fs/cgroup``; return the root."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(cgroup)
    for name, text in files.items():
        file = root / "sys/fs/cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


V1 = "5:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n3:cpuset:/docker/abc\n"


@pytest.mark.parametrize(
    ("cgroup", "files", "quota"),
    [
        pytest.param("0::/\n", {}, None, id="v2, no files"),
        pytest.param("0::/\n", {"cpu.max": "max 100000\n"}, None, id="v2, no quota"),
        pytest.param("0::/\n", {"cpu.max": "150000 100000\n"}, 1.5, id="v2, in a container"),
        pytest.param(
            "0::/system.slice/chp.service\n",
            {
                "system.slice/chp.service/cpu.max": "400000 100000\n",
                "system.slice/cpu.max": "100000 50000\n",
            },
            2.0,
            id="v2, the slice has less than the service",
        ),
        pytest.param(
            "0::/kubepods/pod1/abc\n", {"cpu.max": "50000 100000"}, 0.5, id="v2, path of the host"
        ),
        pytest.param(
            "0::/../../other\n", {"cpu.max": "300000 100000"}, 3.0, id="v2, beyond the namespace"
        ),
        pytest.param(
            "4:cpu:/\n0::/a\n", {"unified/a/cpu.max": "300000 100000"}, 3.0, id="v1 and v2"
        ),
        pytest.param(
            V1,
            {
                "cpu,cpuacct/docker/abc/cpu.cfs_quota_us": "250000\n",
                "cpu,cpuacct/docker/abc/cpu.cfs_period_us": "100000\n",
                "cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
                "cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            },
            2.5,
            id="v1",
        ),
        pytest.param(
            V1,
            {"cpu/cpu.cfs_quota_us": "100000\n", "cpu/cpu.cfs_period_us": "100000\n"},
            1.0,
            id="v1, in a container that sees its own group only",
        ),
        pytest.param(
            "3:cpuset:/\n",
            {"cpu.cfs_quota_us": "100000", "cpu.cfs_period_us": "100000"},
            None,
            id="v1, without the controller",
        ),
        pytest.param("0::/\n", {"cpu.max": "nonsense"}, None, id="nonsense"),
        pytest.param("0::/\n", {"cpu.max": "1 0"}, None, id="no period"),
        pytest.param("\n:\nx", {"cpu.max": "100000 100000"}, None, id="lines that say nothing"),
    ],
)
def test_the_least_quota_on_the_way_to_the_root_counts(
    tmp_path: Path, cgroup: str, files: Mapping[str, str], quota: float | None
) -> None:
    assert cpu_quota(tree(tmp_path, cgroup, files)) == quota


@pytest.mark.parametrize(
    ("affinity", "cpu_max", "cpus"),
    [
        (64, "150000 100000", 2),
        (64, "max 100000", 64),
        (2, "800000 100000", 2),
        (4, "1000 100000", 1),
    ],
)
def test_a_started_cpu_counts_and_the_affinity_is_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, affinity: int, cpu_max: str, cpus: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(affinity)))
    assert usable_cpus(tree(tmp_path, "0::/\n", {"cpu.max": cpu_max})) == cpus


def test_without_proc_the_affinity_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2})
    assert usable_cpus(tmp_path) == 3
