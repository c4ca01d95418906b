"""What a task may say of what is measured beside a reference."""

from __future__ import annotations

from pathlib import Path

import pytest

from prefbench.errors import TaskError
from prefbench.tasks import load_index

PAIRS = """
task: own
output_type: multiple_choice
dataset_path: json
metadata: {prefbench: {%s}}
"""
TEXTS = """
task: own
output_type: generate_until
dataset_path: json
generation_kwargs: {%s}
metadata: {prefbench: {measure: divergence}}
"""
OWN_SAMPLES = "do_sample: true, temperature: 1.0"


def read(folder: Path, text: str):
    (folder / "own.yaml").write_text(text)
    tasks, _ = load_index([folder])
    return tasks["own"]


@pytest.mark.parametrize("measure", ["margins", "gradients", "ranking"])
def test_what_is_measured_of_pairs_is_a_task_of_pairs(tmp_path, measure):
    assert read(tmp_path, PAIRS % f"measure: {measure}").recipe.pairs


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ("measure: margins, pairs: false", "leave out"),
        ("measure: margins, beta: 0", "greater than 0"),
        ("measure: margins, beta: .nan", "finite"),
        ("measure: gradients, beta: 0.1", "beta belongs to measure: margins"),
        ("measure: margins, sample: 4", "sample belongs to measure: gradients"),
        ("measure: gradients, sample: 0", "sample"),
        ("measure: gradients, objective: ppo", "objective is one of"),
        ("measure: gradients, parameters: head", "parameters"),
        ("measure: margins, judge: demo_reward", "a judge belongs to"),
        ("measure: ranking, judge: [one, two]", "one judge"),
        ("measure: ranking, opponent: sft", "an opponent belongs to"),
        ("measure: gradient", "measure"),
    ],
)
def test_a_recipe_that_makes_no_sense_is_refused(tmp_path, recipe, message):
    with pytest.raises(TaskError, match=message):
        read(tmp_path, PAIRS % recipe)


def test_a_divergence_is_generated(tmp_path):
    assert not read(tmp_path, TEXTS % OWN_SAMPLES).recipe.pairs
    with pytest.raises(TaskError, match="a divergence has output_type: generate_until"):
        read(tmp_path, PAIRS % "measure: divergence")


@pytest.mark.parametrize(
    ("settings", "wrong"),
    [
        ("", "do_sample: True, temperature: 1"),
        ("do_sample: true, temperature: 0.7", "temperature: 1"),
        (f"{OWN_SAMPLES}, top_p: 0.9", "top_p: 1"),
        (f"{OWN_SAMPLES}, top_k: 50", "top_k: 0"),
        ("temperature: 1.0", "do_sample: True"),
    ],
)
def test_texts_that_are_no_plain_samples_have_no_divergence(tmp_path, settings, wrong):
    with pytest.raises(TaskError, match=f"plain samples; set {wrong}"):
        read(tmp_path, TEXTS % settings)


def test_tasks_on_the_same_pairs_ask_the_same(tmp_path):
    definitions = {
        read(tmp_path, PAIRS % f"measure: {measure}").definition
        for measure in ("margins", "gradients", "ranking")
    }
    definitions.add(read(tmp_path, PAIRS % "pairs: true").definition)
    assert len(definitions) == 1
    assert read(tmp_path, PAIRS % "").definition not in definitions


def test_a_folder_is_no_file_to_include(tmp_path):
    for name in ("''", "."):
        with pytest.raises(TaskError, match=r"own\.yaml: include: .* is a folder"):
            read(tmp_path, f"include: {name}\n" + PAIRS % "pairs: true")
