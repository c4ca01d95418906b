"""What the machine lends this process: cores and memory, less where control groups set limits."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path("/")


class Memory(NamedTuple):
    """Bytes in all and left now, None where the system does not tell.

    `limited` says that a control group's limit is below what the machine has.
    """

    total: int | None
    available: int | None
    limited: bool


class Limits(NamedTuple):
    """What control groups allow: bytes in all and left now, and cores; None is no limit."""

    memory: int | None
    left: int | None
    cores: float | None


def available_memory(root: Path = ROOT) -> int | None:
    """Bytes that this process can still get; None where the system does not tell."""
    return read_memory(root).available


def read_memory(root: Path = ROOT) -> Memory:
    """Memory of the machine, or of a control group that has less."""
    system = _meminfo(root)
    total = system.get("MemTotal", _pages("SC_PHYS_PAGES"))
    free = system.get("MemAvailable", _pages("SC_AVPHYS_PAGES"))
    limits = read_limits(root)
    limited = limits.memory is not None and (total is None or limits.memory < total)
    return Memory(
        limits.memory if limited else total,
        min((one for one in (free, limits.left) if one is not None), default=None),
        limited,
    )


def count_cores(root: Path = ROOT) -> int:
    """Whole cores that this process may use, at least one."""
    return max(1, int(usable_cores(root)))


def usable_cores(root: Path = ROOT) -> float:
    """Cores that this process may use: those it is bound to, or a smaller share of their time."""
    try:
        allowed = len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        allowed = os.cpu_count() or 1
    share = read_limits(root).cores
    return allowed if share is None else min(float(allowed), share)


def read_extensions(root: Path = ROOT) -> frozenset[str]:
    """The processor's flags by Linux's names; none elsewhere."""
    for line in _lines(root / "proc/cpuinfo"):
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()


def read_limits(root: Path = ROOT) -> Limits:
    """The narrowest limits of the control groups that this process is in, version 1 and 2."""
    limits: list[int] = []
    left: list[int] = []
    cores: list[float] = []
    for folder in _groups(root, "memory"):
        for limit_name, used_name, cache in (
            ("memory.max", "memory.current", "inactive_file"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ):
            limit = _number(folder / limit_name)
            if limit is None:
                continue
            # The kernel gives this part of the cache back when memory is asked for.
            spare = _statistics(folder / "memory.stat").get(cache, 0)
            used = max(0, (_number(folder / used_name) or 0) - spare)
            limits.append(limit)
            # The group with the narrowest limit is not always the fullest: above it, others share.
            left.append(max(0, limit - used))
    for folder in _groups(root, "cpu"):
        quota, _, period = next(_lines(folder / "cpu.max"), "").partition(" ")
        if quota.isdigit() and period.isdigit():
            cores.append(int(quota) / int(period))
        share = _number(folder / "cpu.cfs_quota_us")
        per = _number(folder / "cpu.cfs_period_us")
        if share and per:
            cores.append(share / per)
    return Limits(min(limits, default=None), min(left, default=None), min(cores, default=None))


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


def _pages(name: str) -> int | None:
    """A number of memory pages in bytes, where the system knows the name."""
    try:
        n_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf(name)
    except (AttributeError, ValueError, OSError):
        return None
    return n_bytes if n_bytes > 0 else None


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
