"""Results that real checkpoints gave, and what lm-eval writes of the same checkpoint and tasks."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from lm_eval import simple_evaluate
from lm_eval.loggers import EvaluationTracker
from lm_eval.tasks import TaskManager

from prefbench.cells import Settings
from prefbench.comparisons import Judging
from prefbench.runner import run
from tests.asking import build, task_named

LIMIT = 8
TASKS = ("demo_facts", "demo_sums", "demo_text", "demo_dialogues", "demo_winrate")
ROLLED = """
task: demo_text
output_type: loglikelihood_rolling
dataset_path: prefbench/demo-facts
test_split: test
doc_to_text: ""
doc_to_target: "{{question}}"
metric_list:
  - {metric: word_perplexity, aggregation: weighted_perplexity, higher_is_better: false}
  - {metric: bits_per_byte, aggregation: bits_per_byte, higher_is_better: false}
metadata: {version: 2.0, prefbench: {metrics: [word_perplexity]}}
"""
SHORT = """
include: {}
task: demo_sums
generation_kwargs: {{until: ["Question:"], do_sample: false, temperature: 0.0, max_gen_toks: 6}}
"""


@pytest.fixture(scope="session")
def task_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tasks of a user's own beside the shipped ones."""
    folder = tmp_path_factory.mktemp("tasks")
    (folder / "demo_text.yaml").write_text(ROLLED)
    (folder / "demo_sums.yaml").write_text(SHORT.format(task_named("demo_arithmetic").file))
    return folder


@pytest.fixture(scope="session")
def measured_once(
    small_zoo: Path, task_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Two checkpoints on tasks of every kind; leave it as it is."""
    place = tmp_path_factory.mktemp("measured")
    for name in ("sft", "dpo"):
        shutil.copytree(
            small_zoo / "checkpoints" / name,
            place / "runs" / name,
            ignore=shutil.ignore_patterns("checkpoint-*"),
        )
    run(
        place / "runs",
        tasks=TASKS,
        results=place / "results",
        settings=Settings(limit=LIMIT, engine="hf"),
        judging=Judging(),
        mirrors=[small_zoo / "data"],
        task_folders=[task_folder],
    )
    return place / "results"


@pytest.fixture
def measured(measured_once: Path, tmp_path: Path) -> Path:
    """A copy that a test may add to."""
    return Path(shutil.copytree(measured_once, tmp_path / "results"))


@pytest.fixture(scope="session")
def theirs_once(
    measured_once: Path, small_zoo: Path, task_folder: Path, tmp_path_factory: Any
) -> Path:
    """The folder with lm-eval's own files of the SFT checkpoint."""
    place = Path(tmp_path_factory.mktemp("lm_eval"))
    tracker = EvaluationTracker(output_path=str(place))
    path = measured_once.parent / "runs" / "sft"
    out = simple_evaluate(
        "hf",
        model_args={"pretrained": str(path), "dtype": "float32"},
        device="cpu",
        tasks=[
            build(task_named(name, task_folder), small_zoo / "data")
            for name in ("demo_facts", "demo_sums", "demo_text")
        ],
        limit=LIMIT,
        bootstrap_iters=0,
        evaluation_tracker=tracker,
        task_manager=TaskManager(include_defaults=False),
    )
    samples = out.pop("samples")
    tracker.save_results_aggregated(results=out, samples=samples)
    for name in samples:
        tracker.save_results_samples(task_name=name, samples=samples[name])
    (folder,) = place.iterdir()
    return folder


@pytest.fixture
def theirs(theirs_once: Path, tmp_path: Path) -> Path:
    """A copy of lm-eval's files that a test may damage."""
    return Path(shutil.copytree(theirs_once, tmp_path / "theirs"))
