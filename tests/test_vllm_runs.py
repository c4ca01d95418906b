"""Whole runs through the real vLLM: the same tables, whatever happens to its process."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from prefbench.cells import Settings, in_units
from prefbench.checkpoints import read_checkpoint
from prefbench.engines.child import Child
from prefbench.engines.vllm import VLLMEngine
from prefbench.errors import StoreError
from prefbench.listener import Listener
from prefbench.report.collect import collect
from prefbench.report.tables import render
from prefbench.runner import Outcome, run
from prefbench.store import Store
from tests.small_models import make

TASK = "demo_arithmetic"
VLLM = Settings(engine="vllm", limit=12)


@pytest.fixture
def mirror(small_zoo: Path) -> Path:
    return small_zoo / "data"


@pytest.fixture
def runs(small_zoo: Path, tmp_path: Path) -> Path:
    """A directory of three checkpoints that a test may add to."""
    for name in ("sft", "dpo", "ipo"):
        shutil.copytree(
            small_zoo / "checkpoints" / name,
            tmp_path / "runs" / name,
            ignore=shutil.ignore_patterns("checkpoint-*"),
        )
    return tmp_path / "runs"


class Heard(Listener):
    """A listener that keeps what it is told."""

    def __init__(self) -> None:
        self.notices: list[str] = []
        super().__init__(on_notice=self.notices.append)


def measure(
    runs: Path, mirror: Path, to: str, settings: Settings, **more: Any
) -> tuple[Outcome, Path]:
    results = runs.parent / to
    more = {"tasks": [TASK], "mirrors": [mirror], "final_only": True, **more}
    return run(runs, results=results, settings=settings, **more), results


def texts(results: Path) -> dict[tuple[str, str], list[Any]]:
    """All answers, by checkpoint and task."""
    store = Store(results)
    (plan,) = store.plans()
    return {
        (cell["checkpoint"], cell["task"]): [
            dataclasses.asdict(one) for one in store.answers(cell["cell"])
        ]
        for cell in plan["cells"]
        if store.is_sealed(cell["cell"])
    }


def manifests(results: Path) -> dict[tuple[str, str], dict[str, Any]]:
    store = Store(results)
    (plan,) = store.plans()
    found = {(c["checkpoint"], c["task"]): store.manifest(c["cell"]) for c in plan["cells"]}
    return {key: manifest for key, manifest in found.items() if manifest}


def children() -> list[psutil.Process]:
    return [p for p in psutil.Process().children(recursive=True) if "vllm_child" in _line(p)]


def _line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


@pytest.fixture(autouse=True)
def nothing_is_left_behind() -> Iterator[None]:
    before = children()  # other tests of this process may share an engine
    yield
    assert not set(children()) - set(before)


def test_all_checkpoints_of_a_zoo_from_one_start(small_zoo: Path, tmp_path: Path) -> None:
    zoo = tmp_path / "zoo"
    zoo.symlink_to(small_zoo / "checkpoints")
    more = {"tasks": ["demo_arithmetic", "demo_everyday"]}
    mirror = small_zoo / "data"
    outcome, results = measure(zoo, mirror, "vllm", dataclasses.replace(VLLM, limit=6), **more)
    assert len(outcome.measured) == 22
    assert not outcome.failed
    assert len(list((results / "logs").iterdir())) == 1
    _, plain = measure(zoo, mirror, "hf", Settings(engine="hf", limit=6), **more)
    mine, theirs = texts(results), texts(plain)
    assert mine.keys() == theirs.keys()
    for key, answers in mine.items():
        for one, other in zip(answers, theirs[key], strict=True):
            assert one["logps"] == pytest.approx(other["logps"], abs=1e-4)
            assert {**one, "logps": ()} == {**other, "logps": ()}
    assert render(collect(results), "text") == render(collect(plain), "text")
    notes = [found["engine"]["notes"] for found in manifests(results).values()]
    assert sum(n == ["its weights were loaded into the vLLM that was running"] for n in notes) == 20


def test_auto_generates_by_vllm_and_scores_by_hf(runs: Path, mirror: Path) -> None:
    outcome, results = measure(
        runs, mirror, "auto", Settings(limit=4), tasks=["demo_arithmetic", "demo_everyday"]
    )
    assert not outcome.failed
    used = {task: found["engine"]["kind"] for (_, task), found in manifests(results).items()}
    assert used == {"demo_arithmetic": "vllm", "demo_everyday": "hf"}
    facts = manifests(results)["sft", "demo_arithmetic"]["engine"]
    assert facts["vllm"]["device"] == "cpu"
    assert (results / "logs" / facts["log"]).is_file()
    # What hf has scored for one run counts for the other.
    again, _ = measure(
        runs, mirror, "auto", Settings(engine="hf", limit=4), tasks=["demo_everyday"]
    )
    assert again.measured == ()


def kill_at(calls: set[int], monkeypatch: pytest.MonkeyPatch, how: signal.Signals) -> list[int]:
    """Has vLLM's process hit by a signal at some of its calls to generate; returns its pids."""
    call, seen = Child.call, []

    def hit(self: Child, name: str, *args: Any) -> Any:
        if name == "generate" and len(args[0]) > 1:  # not the probe
            seen.append(self.pid)
            if len(seen) in calls:
                os.kill(self.pid, how)
                self.timeout = 3.0
        return call(self, name, *args)

    monkeypatch.setattr(Child, "call", hit)
    return seen


def test_a_killed_engine_costs_nothing(
    runs: Path, mirror: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = dataclasses.replace(VLLM, batch_size=4)
    _, whole = measure(runs, mirror, "whole", settings)
    pids = kill_at({2, 6}, monkeypatch, signal.SIGKILL)
    heard = Heard()
    outcome, results = measure(runs, mirror, "killed", settings, listener=heard)
    assert not outcome.failed
    assert len(set(pids)) == 3
    assert [n for n in heard.notices if "asked once more in a fresh engine" in n]
    assert texts(results) == texts(whole)
    assert render(collect(results), "text") == render(collect(whole), "text")


def test_a_cell_that_kills_its_engine_twice_fails_alone(
    runs: Path, mirror: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill_at({1, 2}, monkeypatch, signal.SIGKILL)
    outcome, results = measure(runs, mirror, "failed", VLLM)
    (reason,) = outcome.failed.values()
    assert "its process ended (by signal SIGKILL" in reason
    assert len(outcome.measured) == 2
    assert len(texts(results)) == 2
    again, _ = measure(runs, mirror, "failed", VLLM)
    assert len(again.measured) == 1
    assert not again.failed


def test_a_hung_engine_is_ended_and_replaced(
    runs: Path, mirror: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(runs / "ipo")
    pids = kill_at({1}, monkeypatch, signal.SIGSTOP)
    heard = Heard()
    outcome, _ = measure(runs, mirror, "hung", VLLM, listener=heard)
    assert not outcome.failed
    assert any("no progress for 3 s in 'generate'; ended it" in notice for notice in heard.notices)
    assert not psutil.pid_exists(pids[0])


PARENT = """
import sys
from pathlib import Path
from prefbench.checkpoints import read_checkpoint
from prefbench.engines import Engines
from prefbench.engines.base import EngineSettings

if __name__ == "__main__":
    with Engines() as engines:
        settings = EngineSettings(log_folder=Path(sys.argv[2]))
        with engines.open("vllm", read_checkpoint(Path(sys.argv[1])), settings) as engine:
            print(engine._running.child.pid, flush=True)
            sys.stdin.read()
"""


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_outlives_us(small_zoo: Path, tmp_path: Path, how: signal.Signals) -> None:
    folder = small_zoo / "checkpoints" / "sft"
    command = [sys.executable, "-c", PARENT, str(folder), str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout
        child = psutil.Process(int(parent.stdout.readline()))
        family = [child, *child.children(recursive=True)]
        os.kill(parent.pid, how)
        assert parent.wait() == -how
        _, alive = psutil.wait_procs(family, timeout=60)
        assert not [p for p in alive if p.status() != psutil.STATUS_ZOMBIE]


def test_what_vllm_does_not_know_is_measured_by_hf_and_told(runs: Path, mirror: Path) -> None:
    shutil.rmtree(runs / "ipo")
    facts = json.loads((make(runs / "narrow") / "config.json").read_text())  # heads of 16
    (runs / "narrow/config.json").write_text(json.dumps({**facts, "max_position_embeddings": 512}))
    heard = Heard()
    outcome, results = measure(runs, mirror, "mixed", VLLM, listener=heard)
    assert not outcome.failed
    assert any(n.startswith("narrow: measured by hf instead of vllm: ") for n in heard.notices)
    found = manifests(results)
    assert found["narrow", TASK]["engine"]["kind"] == "hf"
    assert found["sft", TASK]["engine"]["kind"] == "vllm"
    assert "the engine differs (vllm: dpo, sft; hf: narrow)" in render(collect(results), "text")


def adapter(
    base: Path, folder: Path, *, rank: int, modules: list[str], seed: int | None, **more: Any
) -> None:
    """A LoRA adapter whose B is drawn, or zero without a seed."""
    torch.manual_seed(seed or 0)
    model = AutoModelForCausalLM.from_pretrained(base)
    config = LoraConfig(
        r=rank, lora_alpha=2 * rank, target_modules=modules, task_type="CAUSAL_LM", **more
    )
    made = get_peft_model(model, config)
    if seed is not None:
        for name, values in made.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(values, std=0.6)
    made.save_pretrained(folder)
    facts = json.loads((folder / "adapter_config.json").read_text())
    facts["base_model_name_or_path"] = str(base)
    (folder / "adapter_config.json").write_text(json.dumps(facts))


def contents(folder: Path) -> dict[str, tuple[int, int]]:
    return {
        str(p.relative_to(folder)): (p.stat().st_size, p.stat().st_mtime_ns)
        for p in folder.rglob("*")
    }


def test_an_adapter_that_is_left_to_hf_is_not_open_beside_those_of_vllm(
    small_zoo: Path, tmp_path: Path
) -> None:
    """On a GPU each would have the other's memory taken away."""
    base = small_zoo / "checkpoints" / "sft"
    for name, more in (("one", {}), ("two", {}), ("dora", {"use_dora": True})):
        adapter(base, tmp_path / name, rank=2, modules=["q_proj"], seed=1, **more)
    cells: list[Any] = [
        SimpleNamespace(
            identity={"engine": "vllm", "dtype": "float32"},
            checkpoint=dataclasses.replace(read_checkpoint(tmp_path / name), fingerprint=name),
            task=SimpleNamespace(name=task),
            repeat=0,
            work="answers",
        )
        for name in ("one", "two", "dora")
        for task in ("first", "second")
    ]
    units = in_units(cells)
    together = [[(cell.checkpoint.path.name, cell.task.name) for cell in u.cells] for u in units]
    assert together == [
        [("one", "first"), ("two", "first")],
        [("one", "second"), ("two", "second")],
        [("dora", "first")],
        [("dora", "second")],
    ]
    assert len({unit.group for unit in units}) == 2


def test_adapters_of_one_base_are_served_together(
    small_zoo: Path, tmp_path: Path, mirror: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, runs = small_zoo / "checkpoints" / "sft", tmp_path / "adapters"
    adapter(base, runs / "one", rank=4, modules=["q_proj", "v_proj"], seed=1)
    adapter(base, runs / "two", rank=8, modules=["up_proj", "down_proj"], seed=2)
    adapter(base, runs / "three", rank=12, modules=["q_proj"], seed=3)
    adapter(base, runs / "untrained", rank=4, modules=["q_proj"], seed=None)
    adapter(base, runs / "dora", rank=4, modules=["q_proj"], seed=4, use_dora=True)
    before = {**contents(runs), **contents(base)}
    call, batches = Child.call, []

    def counted(self: Child, name: str, *args: Any) -> Any:
        if name == "generate" and len(args[0]) > 1:
            batches.append({ask.adapter.name for ask in args[0]})
        return call(self, name, *args)

    monkeypatch.setattr(Child, "call", counted)
    heard = Heard()
    tasks = ["demo_arithmetic", "demo_everyday"]
    outcome, results = measure(runs, mirror, "vllm", VLLM, listener=heard, tasks=tasks)
    assert not outcome.failed
    assert [len(names) for names in batches] == [4]
    assert {**contents(runs), **contents(base)} == before
    assert len(list((results / "logs").iterdir())) == 1
    _, plain = measure(runs, mirror, "hf", Settings(engine="hf", limit=12), tasks=tasks)
    mine, theirs = texts(results), texts(plain)
    for key, answers in mine.items():
        for one, other in zip(answers, theirs[key], strict=True):
            assert one["logps"] == pytest.approx(other["logps"], abs=1e-3)
            assert one["texts"] == other["texts"]
    scored = [mine[name, "demo_everyday"] for name in ("one", "two", "three", "untrained")]
    assert len({str(answers) for answers in scored}) == 4
    said = "the adapter changes nothing: all its B matrices are zero"
    assert f"untrained: {said}" in heard.notices
    assert f"untrained: {said}" in render(collect(results), "text")
    assert manifests(results)["dora", TASK]["engine"]["kind"] == "hf"
    assert any("dora" in n and "it sets use_dora" in n for n in heard.notices)


def test_what_goes_wrong_when_several_are_asked_at_once_is_each_cell_s_own(
    small_zoo: Path, tmp_path: Path, mirror: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, runs = small_zoo / "checkpoints" / "sft", tmp_path / "adapters"
    for seed, name in enumerate(("one", "two")):
        adapter(base, runs / name, rank=2, modules=["q_proj"], seed=seed)

    alone = VLLMEngine.generate_together

    def fail_by(error: Exception) -> None:
        def generate(self: VLLMEngine, others: Any, *rest: Any) -> Any:
            if others:
                raise error
            return alone(self, others, *rest)

        monkeypatch.setattr(VLLMEngine, "generate_together", generate)

    fail_by(KeyError("first"))
    heard = Heard()
    few = dataclasses.replace(VLLM, limit=3)
    outcome, _ = measure(runs, mirror, "alone", few, listener=heard)
    assert not outcome.failed
    assert len(outcome.measured) == 2
    assert f"{TASK}: asked one by one: KeyError: 'first'" in heard.notices

    fail_by(StoreError("no space left"))
    with pytest.raises(StoreError, match="no space left"):
        measure(runs, mirror, "full", few)


def test_a_sweep_over_temperatures_keeps_its_draws(runs: Path, mirror: Path) -> None:
    for name in ("ipo", "dpo"):
        shutil.rmtree(runs / name)
    few = dataclasses.replace(VLLM, limit=3)
    sweep = {"tasks": ["demo_arithmetic_sweep"]}
    outcome, results = measure(runs, mirror, "one", few, **sweep)
    assert not outcome.failed
    found = {task: answers for (_, task), answers in texts(results).items()}
    assert len(found) > 1
    warm = [task for task in found if not task.endswith("_t0")]
    assert {len(found[task]) for task in found} == {3}
    assert all(len(answer["texts"]) == 4 for task in warm for answer in found[task])
    assert len({text for task in warm for answer in found[task] for text in answer["texts"]}) > 3
    _, again = measure(runs, mirror, "two", dataclasses.replace(few, batch_size=1), **sweep)
    assert texts(again) == texts(results)
    _, plain = measure(runs, mirror, "hf", Settings(engine="hf", limit=3), **sweep)
    cold = ("sft", "demo_arithmetic_sweep_t0")
    assert texts(plain)[cold] == texts(results)[cold]
