from __future__ import annotations

import os
from pathlib import Path

import pytest

from prefbench.doctor.machine import memory_finding, processor_finding, results_finding
from tests.systems import write

GB = 10**9


@pytest.fixture
def system(tmp_path: Path) -> Path:
    return write(
        tmp_path,
        proc__meminfo="MemTotal: 16000000 kB\nMemFree: 1 kB\nMemAvailable: 9000000 kB\n",
        proc__cpuinfo="processor : 0\nflags : fpu sse2 avx2 avx512f\n\n",
    )


def test_memory_is_told_and_that_it_is_limited(system: Path) -> None:
    found = memory_finding(root=system)
    assert found.detail == "16.4 GB, 9.2 GB free"
    assert found.facts == {
        "total": 16_000_000 * 1024,
        "available": 9_000_000 * 1024,
        "limited": False,
    }
    write(
        system,
        proc__self__cgroup="0::/\n",
        sys__fs__cgroup__memory_dot_max=f"{4 * GB}\n",
        sys__fs__cgroup__memory_dot_current=f"{2 * GB}\n",
        sys__fs__cgroup__cpu_dot_max="50000 100000\n",
    )
    found = memory_finding(root=system)
    assert found.facts == {"total": 4 * GB, "available": 2 * GB, "limited": True}
    assert found.detail == "4.0 GB, 2.0 GB free; a control group sets this limit"
    assert processor_finding(root=system).facts["cores"] == 0.5


def test_a_system_without_proc_tells_its_memory_nevertheless(tmp_path: Path) -> None:
    found = memory_finding(root=tmp_path)
    assert found.state == "ok"
    assert found.facts["total"] > 0


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
