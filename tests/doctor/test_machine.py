from __future__ import annotations

import os
from pathlib import Path

import pytest

from prefbench.doctor.machine import (
    memory_finding,
    processor_finding,
    read_limits,
    results_finding,
)

GB = 10**9


def write(root: Path, **files: str) -> Path:
    """Files of a system, a slash in a name written as two underscores."""
    for name, text in files.items():
        file = root / name.replace("__", "/").replace("_dot_", ".")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


@pytest.fixture
def system(tmp_path: Path) -> Path:
    return write(
        tmp_path,
        proc__meminfo="MemTotal: 16000000 kB\nMemFree: 1 kB\nMemAvailable: 9000000 kB\n",
        proc__cpuinfo="processor : 0\nflags : fpu sse2 avx2 avx512f\n\n",
    )


def test_no_control_group_limits_nothing(system: Path) -> None:
    found = memory_finding(root=system)
    assert found.facts == {
        "total": 16_000_000 * 1024,
        "available": 9_000_000 * 1024,
        "limited": False,
    }
    assert read_limits(system).cores is None


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
    found = memory_finding(root=system)
    assert found.facts == {"total": 4 * GB, "available": 2 * GB, "limited": True}
    assert found.detail == "4.0 GB, 2.0 GB free; a control group sets this limit"
    assert read_limits(system).cores == 1.5


def test_limits_of_version_1(system: Path) -> None:
    write(
        system,
        proc__self__cgroup="5:memory:/job\n3:cpu,cpuacct:/job\n1:name=systemd:/\n0::/\n",
        sys__fs__cgroup__memory__job__memory_dot_limit_in_bytes=f"{2 * GB}\n",
        sys__fs__cgroup__memory__job__memory_dot_usage_in_bytes=f"{GB}\n",
        sys__fs__cgroup__memory__memory_dot_limit_in_bytes="9223372036854771712\n",
        sys__fs__cgroup__cpu__job__cpu_dot_cfs_quota_us="50000\n",
        sys__fs__cgroup__cpu__job__cpu_dot_cfs_period_us="100000\n",
        sys__fs__cgroup__cpu__cpu_dot_cfs_quota_us="-1\n",
        sys__fs__cgroup__cpu__cpu_dot_cfs_period_us="100000\n",
    )
    assert memory_finding(root=system).facts["available"] == GB
    assert read_limits(system).cores == 0.5
    assert processor_finding(root=system).facts["cores"] == 0.5


def test_a_group_whose_folder_is_not_mounted_is_the_top_one(system: Path) -> None:
    write(
        system,
        proc__self__cgroup="0::/outside/of/the/container\n",
        sys__fs__cgroup__memory_dot_max=f"{GB}\n",
        sys__fs__cgroup__memory_dot_current="0\n",
    )
    assert memory_finding(root=system).facts["total"] == GB


def test_a_limit_above_the_memory_is_none(system: Path) -> None:
    write(
        system,
        proc__self__cgroup="0::/\n",
        sys__fs__cgroup__memory_dot_max="9223372036854771712\n",
    )
    assert memory_finding(root=system).facts["limited"] is False


def test_a_system_without_proc_tells_its_memory_nevertheless(tmp_path: Path) -> None:
    found = memory_finding(root=tmp_path)
    assert found.state == "ok"
    assert found.facts["total"] > 0
    assert found.facts["available"] is None


def test_what_the_processor_can_do(system: Path) -> None:
    found = processor_finding(vllm_cpu=True, root=system)
    assert found.state == "ok"
    assert found.facts["extensions"] == ["AVX2", "AVX-512"]
    assert found.facts["cores"] <= (os.cpu_count() or 1)
    write(system, proc__cpuinfo="flags : fpu sse2\n")
    assert processor_finding(root=system).state == "ok"
    old = processor_finding(vllm_cpu=True, root=system)
    assert (old.state, old.fix) == ("missing", "prefbench run RUNS --engine hf")


def test_this_machine_is_read_without_an_error() -> None:
    assert memory_finding().facts["available"] > 0
    assert processor_finding().facts["cores"] > 0


def test_results_can_be_written_and_are_not_made(tmp_path: Path) -> None:
    found = results_finding(tmp_path / "new" / "results")
    assert found.state == "ok"
    assert "will be made" in found.detail
    assert found.facts["free"] > 0
    assert list(tmp_path.iterdir()) == []


def test_results_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    found = results_finding(tmp_path / "file" / "results")
    assert found.fails
    assert "is not a directory" in found.detail


@pytest.mark.skipif(not Path("/proc/version").exists(), reason="needs a folder nobody can write to")
def test_results_where_nothing_can_be_written() -> None:
    found = results_finding(Path("/proc/results"))
    assert found.fails
    assert "--results DIR" in str(found.fix)
