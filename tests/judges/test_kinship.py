"""What a judge shares with contestants: the closest thing, and nothing where there is nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from prefbench.judges.kinship import shared
from prefbench.judges.opening import PlannedJudge
from prefbench.judges.recipe import JudgeRecipe
from prefbench.records import Checkpoint

DPO = {
    "name": "dpo",
    "path": "/runs/dpo",
    "fingerprint": "f",
    "reference": "/runs/sft",
    "base": None,
    "architecture": "Qwen3ForCausalLM",
}


def local(**facts: Any) -> PlannedJudge:
    recipe = JudgeRecipe(judge="one", kind="reward", model="some/judge")
    facts = {"fingerprint": "own", "architecture": "LlamaForSequenceClassification", **facts}
    path = facts.pop("path", "/models/judge")
    return PlannedJudge(recipe, Path("j.yaml"), Checkpoint("j", Path(path), "ready", **facts))


def served(model: str) -> PlannedJudge:
    recipe = JudgeRecipe.model_validate(
        {
            "judge": "one",
            "kind": "openai",
            "model": model,
            "endpoint": {"base_url": "http://x/v1"},
            "prompt": "{{ first }} {{ second }}",
            "verdict": {"by": "line", "labels": {"A": 1, "B": 0}},
        }
    )
    return PlannedJudge(recipe, Path("j.yaml"))


@pytest.mark.parametrize(
    ("judge", "what"),
    [
        (local(fingerprint="f"), "the very weights"),
        (local(path="/runs/dpo"), "the directory /runs/dpo"),
        (local(path="/runs/sft"), "/runs/sft, which is the judge and what they were tuned from"),
        (local(reference="/runs/dpo"), "weights that the judge was tuned from"),
        (local(base="/runs/sft"), "the base or reference /runs/sft"),
        (local(architecture="Qwen3ForSequenceClassification"), "the architecture family Qwen3"),
        (served("dpo"), "the model id dpo"),
        (served("Qwen/Qwen3-8B"), "the architecture family Qwen3"),
    ],
)
def test_what_is_shared(judge: PlannedJudge, what: str) -> None:
    assert shared(judge, [DPO]) == {what: ["dpo"]}
    panel = JudgeRecipe(judge="both", kind="panel", members=("one", "two"))
    both = PlannedJudge(panel, Path("p.yaml"), members=(judge, served("gpt-5")))
    assert shared(both, [DPO]) == {f"{what} (the member one)": ["dpo"]}


@pytest.mark.parametrize("judge", [local(), served("gpt-5"), local(architecture=None)])
def test_strangers_share_nothing(judge: PlannedJudge) -> None:
    assert shared(judge, [DPO, {**DPO, "architecture": None, "reference": None}]) == {}


def test_a_base_on_the_hub_is_known_by_its_id() -> None:
    adapter = {**DPO, "base": "some/judge"}
    assert shared(local(), [adapter]) == {"the model id some/judge": ["dpo"]}
