"""The suite `demo_preference` on two checkpoints of a small zoo, from its YAML to its columns."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from prefbench.boards.shown import show
from prefbench.cells import Settings
from prefbench.report.collect import collect
from prefbench.report.tables import rows_of
from prefbench.runner import run
from prefbench.tasks import load_tasks, tasks_folder

pytestmark = pytest.mark.xdist_group("preference")  # one run of the suite serves them all

TEMPERATURES = (0, 0.25, 0.5, 0.75, 1)
N = 4


Found = dict[tuple[str, str], dict[str, Any]]
"""Rows of the table by task and metric."""


@pytest.fixture(scope="module")
def found(small_zoo: Path, tmp_path_factory: pytest.TempPathFactory) -> Found:
    """What a run of the suite, and of the win rates beside it, finds of SPIN."""
    folder = tmp_path_factory.mktemp("preference")
    for name in ("sft", "spin-1"):
        shutil.copytree(small_zoo / "checkpoints" / name, folder / "runs" / name)
    outcome = run(
        [folder / "runs"],
        tasks=["demo_preference", "demo_winrate"],
        results=folder / "results",
        settings=Settings(engine="hf", limit=N),
        mirrors=[small_zoo / "data"],
        final_only=True,
    )
    assert not outcome.failed
    rows = rows_of(show(collect(folder / "results", plan=outcome.plan)))
    return {
        (row["task"], row["metric"].partition(".v")[0]): row
        for row in rows
        if row["checkpoint"] == "spin-1"
    }


def test_every_task_of_the_suite_shows_its_columns(found: Found) -> None:
    for task, _ in load_tasks(["demo_preference"], [tasks_folder()]):
        for metric in task.recipe.metrics:
            assert found[task.name, metric]["n"] > 0, (task.name, metric)


def test_both_bands_are_in_one_task(found: Found) -> None:
    shares = {
        metric: row["value"]
        for (name, metric), row in found.items()
        if name == "demo_mixed_gradients" and metric.startswith("in@")
    }
    assert shares == {"in@low_edit": 0.5, "in@mid_edit": 0, "in@high_edit": 0.5}


def test_texts_that_two_tasks_ask_for_are_generated_once(found: Found) -> None:
    definition = {
        task.name: task.definition
        for task, _ in load_tasks(["demo_preference", "demo_winrate"], [tasks_folder()])
    }
    assert definition["demo_samples"] == definition["demo_samples_winrate"]
    assert definition["demo_winrate"] == definition["demo_winrate_sweep_t0"]
    assert (
        found["demo_samples", "distinct_2"]["value"]
        == found["demo_samples_winrate", "distinct_2"]["value"]
    )


def test_a_comparison_is_judged_at_every_temperature(found: Found) -> None:
    rates = [f"demo_winrate_sweep_t{t:g}" for t in TEMPERATURES]
    assert all(0 <= found[task, "win_rate"]["value"] <= 1 for task in rates)
    assert found[rates[0], "win_rate"]["value"] == found["demo_winrate", "win_rate"]["value"]
    # What is drawn is hotter the less it repeats itself.
    assert found[rates[0], "distinct_1"]["value"] < found[rates[-1], "distinct_1"]["value"]
