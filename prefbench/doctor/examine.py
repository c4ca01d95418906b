"""Looks at all there is, and waits for what is tried meanwhile."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from prefbench import __version__
from prefbench.data import is_offline
from prefbench.doctor import engines, gpus, machine, sets
from prefbench.doctor.children import Child, Ended, attempt, outcome, started
from prefbench.doctor.endpoints import (
    OPENAI_KEY,
    Endpoint,
    ask_endpoint,
    endpoint_finding,
    find_endpoints,
    is_worth_asking,
    unasked,
)
from prefbench.doctor.findings import Finding
from prefbench.doctor.installed import packages_finding
from prefbench.doctor.questions import Question, Reply
from prefbench.engines.builds import ENVIRONMENT, ENVIRONMENT_ON_CPU
from prefbench.errors import InputError
from prefbench.tasks import shipped_folder

OFFLINE = {"HF_HUB_OFFLINE": "1"}
ENVIRONMENTS: Mapping[str, Mapping[str, str]] = {
    "vllm": {
        **OFFLINE,
        **ENVIRONMENT,
        **ENVIRONMENT_ON_CPU,  # on a GPU as well: to compile for two tokens only takes time
        "OMP_NUM_THREADS": "1",
        "VLLM_LOGGING_LEVEL": "ERROR",
    },
    "data": OFFLINE,
}
"""Variables that what is tried is started with, by its name in `attempts.ATTEMPTS`."""


def examine(
    *,
    engine: Sequence[str] = (),
    suites: Sequence[str] = (),
    tasks: Sequence[str] = (),
    mirrors: Sequence[Path] = (),
    task_folders: Sequence[Path] = (),
    endpoints: Sequence[str] = (),
    key_variable: str = OPENAI_KEY,
    results: Path = Path("results"),
    judges: Path | None = None,
    quick: bool = False,
    patience: float = 60.0,
    network_patience: float = 5.0,
    path: Sequence[str] | None = None,
    waiting: Callable[[str], None] = lambda what: None,
) -> list[Finding]:
    """What this machine can use: packages, engines, GPUs, memory, data, endpoints.

    Downloads nothing, and imports no torch: what must be tried is tried in processes of its own.

    Args:
        engine: engines that are asked for by name, and so must work.
        suites: whose data to look for, together with `tasks`; the paper suite if neither is given.
        tasks: see `suites`.
        mirrors: local directories with data sets; PREFBENCH_MIRROR comes after them.
        task_folders: of further task YAML files.
        endpoints: addresses that are asked for by name, besides OPENAI_BASE_URL and the judges'.
        key_variable: the environment variable that has the key of `endpoints`.
        results: where results would be written.
        judges: folder of judges; the shipped one by default.
        quick: try nothing, tell what is installed.
        patience: seconds that each trial may take.
        network_patience: seconds that each address may take.
        path: where packages are looked for; sys.path by default.
        waiting: is told what is being waited for.

    Raises:
        InputError: there is no such engine.
        TaskError: an unknown task or suite, or a task file that cannot be read.
    """
    if unknown := [name for name in engine if name not in engines.ENGINES]:
        known = ", ".join(engines.ENGINES)
        raise InputError(f"engine is one of {known}, not {unknown[0]!r}; --endpoint asks a server")
    asked = sets.Asked(tuple(suites), tuple(tasks), tuple(mirrors), tuple(task_folders))
    wanted = sets.find_wanted(asked)
    here = engines.look(path)
    folder = judges or shipped_folder("judges")
    with ExitStack() as children:
        trial = _Trials(children, patience, waiting, quick=quick)
        smi = trial.cards()
        hf = trial.begin("hf", when=bool(here.torch and here.transformers))
        vllm = trial.begin("vllm", when=len(here.builds) == 1)
        read = trial.begin("data", sets.to_read(wanted))
        listed = find_endpoints(endpoints, key_variable=key_variable, judges=folder)
        network = _Network(listed, network_patience)
        asked_endpoints, hub = network.answers(waiting)
        read_told = trial.end(read, "reading the data")
        hf_told = trial.end(hf, "running a small model in transformers")
        vllm_told = trial.end(vllm, f"starting vLLM with a small model, {patience:g} s at most")
        listing = smi.wait() if smi else None

    gpu = _gpu(here, listing, hf_told)
    return [
        Finding("prefbench", "version", "ok", f"prefbench {__version__}"),
        Finding("prefbench", "python", "ok", f"{_python()}, {machine.platform_name()}"),
        packages_finding(path),
        *engines.engine_findings(
            here,
            hf=hf_told,
            vllm=vllm_told,
            gpus=bool(gpu.facts.get("gpus")),
            needs_vllm="vllm" in engine,
            path=path,
        ),
        gpu,
        machine.processor_finding(vllm_cpu=here.cpu_build),
        machine.memory_finding(),
        machine.results_finding(results),
        *sets.data_findings(asked, wanted, read_told, hub),
        *asked_endpoints,
    ]


class _Trials:
    """What is tried, each in a process that ends with the stack."""

    def __init__(
        self, stack: ExitStack, patience: float, waiting: Callable[[str], None], *, quick: bool
    ) -> None:
        self._stack = stack
        self._patience = patience
        self._waiting = waiting
        self._quick = quick

    def begin(self, what: str, argument: str = "", *, when: bool = True) -> Child | None:
        if self._quick or not when:
            return None
        return self._stack.enter_context(
            attempt(what, argument, time_limit=self._patience, environment=ENVIRONMENTS.get(what))
        )

    def end(self, child: Child | None, what: str) -> dict[str, Any] | None:
        """What one told; None if it was not begun."""
        if child is None:
            return None
        self._waiting(what)
        return outcome(child)

    def cards(self) -> Child | None:
        """nvidia-smi, where there is one."""
        if not shutil.which(gpus.SMI[0]):
            return None
        try:
            return self._stack.enter_context(started(gpus.SMI, time_limit=min(10, self._patience)))
        except OSError:  # a program that cannot be started lists nothing
            return None


class _Network:
    """The endpoints and the hub, all asked at once."""

    def __init__(self, listed: Sequence[Endpoint], patience: float) -> None:
        self._listed = listed
        self._asked = {
            one: ask_endpoint(one, time_limit=patience) for one in listed if is_worth_asking(one)
        }
        self._hub = None if is_offline() else Question(sets.hub_address(), time_limit=patience)

    def answers(self, waiting: Callable[[str], None]) -> tuple[list[Finding], Reply | None]:
        """What there is to say of each endpoint, and what the hub said, unless we are offline."""
        who = [*(["endpoints"] if self._asked else []), *(["the hub"] if self._hub else [])]
        if who:
            waiting(f"asking {' and '.join(who)}")
        replies = {one: question.reply() for one, question in self._asked.items()}
        found = [endpoint_finding(one, replies.get(one) or unasked(one)) for one in self._listed]
        return found, self._hub.reply() if self._hub else None


def _gpu(here: engines.Installation, listing: Ended | None, told: engines.Told | None) -> Finding:
    """What nvidia-smi lists and torch, if it could be tried, sees."""
    return gpus.gpu_finding(
        gpus.read_cards(listing.output) if listing and not listing.problem else [],
        None if told and "error" in told else told,
        cpu_torch=here.cpu_torch,
        cpu_vllm=here.cpu_build,
        problem=listing.problem if listing else None,
    )


def _python() -> str:
    return f"Python {sys.version.split()[0]} in {sys.prefix}"
