from __future__ import annotations

import os
from pathlib import Path

import pytest

from prefbench.machine import (
    Limits,
    Memory,
    available_memory,
    count_cores,
    read_limits,
    read_memory,
    usable_cores,
)
from tests.systems import write

GB = 10**9


@pytest.fixture
def system(tmp_path: Path) -> Path:
    return write(
        tmp_path,
        proc__meminfo="MemTotal: 16000000 kB\nMemFree: 1 kB\nMemAvailable: 9000000 kB\n",
    )


def test_no_control_group_limits_nothing(system: Path) -> None:
    assert read_limits(system) == Limits(None, None, None)
    assert read_memory(system) == Memory(16_000_000 * 1024, 9_000_000 * 1024, limited=False)


def test_limits_of_version_2_and_of_the_groups_above(system: Path) -> None:
    write(
        system,
        proc__self__cgroup="0::/user/job\n",
        sys__fs__cgroup__user__memory_dot_max=f"{4 * GB}\n",
        sys__fs__cgroup__user__memory_dot_current=f"{3 * GB}\n",
        sys__fs__cgroup__user__memory_dot_stat=f"anon 1\ninactive_file {GB}\n",
        sys__fs__cgroup__user__job__memory_dot_max="max\n",
        sys__fs__cgroup__user__job__cpu_dot_max="150000 100000\n",
        sys__fs__cgroup__user__cpu_dot_max="max 100000\n",
    )
    assert read_limits(system) == Limits(4 * GB, 2 * GB, 1.5)
    assert read_memory(system) == Memory(4 * GB, 2 * GB, limited=True)


def test_limits_of_version_1(system: Path) -> None:
    write(
        system,
        proc__self__cgroup="5:memory:/job\n3:cpu,cpuacct:/job\n1:name=systemd:/\n0::/\n",
        sys__fs__cgroup__memory__job__memory_dot_limit_in_bytes=f"{2 * GB}\n",
        sys__fs__cgroup__memory__job__memory_dot_usage_in_bytes=f"{2 * GB}\n",
        sys__fs__cgroup__memory__job__memory_dot_stat=f"total_inactive_file {GB}\n",
        sys__fs__cgroup__memory__memory_dot_limit_in_bytes="9223372036854771712\n",
        sys__fs__cgroup__cpu__job__cpu_dot_cfs_quota_us="50000\n",
        sys__fs__cgroup__cpu__job__cpu_dot_cfs_period_us="100000\n",
        sys__fs__cgroup__cpu__cpu_dot_cfs_quota_us="-1\n",
        sys__fs__cgroup__cpu__cpu_dot_cfs_period_us="100000\n",
    )
    assert read_limits(system) == Limits(2 * GB, GB, 0.5)
    assert available_memory(system) == GB
    assert usable_cores(system) == 0.5
    assert count_cores(system) == 1


def test_a_fuller_group_above_leaves_less_than_the_narrowest(system: Path) -> None:
    write(
        system,
        proc__self__cgroup="0::/user/job\n",
        sys__fs__cgroup__user__memory_dot_max=f"{8 * GB}\n",
        sys__fs__cgroup__user__memory_dot_current=f"{7 * GB}\n",
        sys__fs__cgroup__user__job__memory_dot_max=f"{4 * GB}\n",
        sys__fs__cgroup__user__job__memory_dot_current="0\n",
    )
    assert read_memory(system) == Memory(4 * GB, GB, limited=True)


def test_a_group_may_leave_more_than_the_machine_has(system: Path) -> None:
    write(
        system,
        proc__self__cgroup="0::/\n",
        sys__fs__cgroup__memory_dot_max=f"{14 * GB}\n",
        sys__fs__cgroup__memory_dot_current="0\n",
    )
    assert read_memory(system) == Memory(14 * GB, 9_000_000 * 1024, limited=True)


def test_a_group_over_its_limit_leaves_nothing(system: Path) -> None:
    write(
        system,
        proc__self__cgroup="0::/\n",
        sys__fs__cgroup__memory_dot_max=f"{GB}\n",
        sys__fs__cgroup__memory_dot_current=f"{2 * GB}\n",
    )
    assert available_memory(system) == 0


def test_a_group_whose_folder_is_not_mounted_is_the_top_one(system: Path) -> None:
    write(
        system,
        proc__self__cgroup="0::/outside/of/the/container\n",
        sys__fs__cgroup__memory_dot_max=f"{GB}\n",
        sys__fs__cgroup__memory_dot_current="0\n",
    )
    assert read_memory(system).total == GB


def test_a_limit_above_the_memory_is_none(system: Path) -> None:
    write(
        system,
        proc__self__cgroup="0::/\n",
        sys__fs__cgroup__memory_dot_max="9223372036854771712\n",
    )
    assert read_memory(system) == Memory(16_000_000 * 1024, 9_000_000 * 1024, limited=False)


def test_a_system_without_proc_tells_what_sysconf_knows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 1000}

    def sysconf(name: str) -> int:
        if name not in known:
            raise ValueError("unrecognized configuration name")
        return known[name]

    monkeypatch.setattr(os, "sysconf", sysconf)
    assert read_memory(tmp_path) == Memory(4_096_000, None, limited=False)
    known["SC_AVPHYS_PAGES"] = 10
    assert available_memory(tmp_path) == 40_960
    known.clear()
    assert read_memory(tmp_path) == Memory(None, None, limited=False)


def test_cores_without_affinity_are_the_machines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert count_cores(tmp_path) == 6
    write(
        tmp_path,
        proc__self__cgroup="0::/\n",
        sys__fs__cgroup__cpu_dot_max="250000 100000\n",
    )
    assert usable_cores(tmp_path) == 2.5
    assert count_cores(tmp_path) == 2


def test_this_machine_is_read_without_an_error() -> None:
    total, available, _ = read_memory()
    assert total is not None
    assert available is not None
    assert 0 < available <= total
    assert 1 <= count_cores() <= (os.cpu_count() or 1)
