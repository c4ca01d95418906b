"""The whole of it: real trainings, and a watch beside them that is killed again and again."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from prefbench.requests import is_whole, read_request
from prefbench.watch.status import read_status
from tests.watch.real_training import Measured, check_same_as_one_run, kill_after, train, work

N_KILLS = 4
STEPS = 20
KEPT = 2
TASKS = ("demo_dialogues", "demo_everyday")


def allow(pace: Path, steps: int) -> None:
    """Lets trainings go on up to a step."""
    written = pace.with_suffix(".new")
    written.write_text(str(steps))
    written.replace(pace)


def goes_on(results: Path, before: dict[str, int]) -> bool:
    return work(results) != before


def has_measured(results: Path) -> bool:
    return any(row.state == "measured" for row in read_status(results).rows)


def losses(run: Path) -> list[dict[str, Any]]:
    """What training has logged, but for how long it took."""
    rows = json.loads((run / "trainer_state.json").read_text())["log_history"]
    return [{name: row[name] for name in row if not name.startswith("train_")} for row in rows]


def test_a_watch_killed_beside_real_trainings_ends_with_the_table_of_one_run(
    small_zoo: Path, tmp_path: Path
) -> None:
    runs, pace, start = tmp_path / "runs", tmp_path / "pace", small_zoo / "base"
    runs.mkdir()
    allow(pace, 1)
    settings = {"steps": STEPS, "save_steps": 2, "limit": KEPT}
    trainings = [train(kind, start, runs / kind, **settings, pace=pace) for kind in ("dpo", "lora")]
    trainings.append(train("dpo", start, tmp_path / "undisturbed", callback=False, **settings))
    measured = Measured(runs, TASKS, small_zoo / "data", limit=12, batch_size=2)
    results = tmp_path / "results"
    rng = Random(8)
    # Nobody waits for files to be quiet: what training says of them is believed.
    for life in range(1, N_KILLS + 1):
        allow(pace, 4 * life)
        before = work(results)
        watching = measured.watch(results, "--interval", 0.2, "--quiet", 3600)
        # One of them lives until it is done with a checkpoint; the others have begun one.
        happened = (
            partial(has_measured, results) if life == 2 else partial(goes_on, results, before)
        )
        kill_after(watching, happened, rng.uniform(0, 1.5))
        assert all(training.poll() is None for training in trainings[:2])
    allow(pace, STEPS)
    for training in trainings:
        said, _ = training.communicate(timeout=300)
        assert training.returncode == 0, said
    last = measured.watch(results, "--interval", 0.2, "--quiet", 3600, "--once")
    said, _ = last.communicate(timeout=300)
    assert last.returncode == 0, said

    kept = [f"checkpoint-{STEPS - 2 * i}" for i in range(KEPT)]
    here = {f"{kind}{name}" for kind in ("dpo", "lora") for name in ("", *(f"/{k}" for k in kept))}
    assert {
        str(folder.relative_to(runs)) for folder in [*runs.iterdir(), *runs.glob("*/checkpoint-*")]
    } == here
    for name in here:
        assert is_whole(runs / name, read_request(runs / name))
    rows = read_status(results).rows
    assert {(row.name, row.state, row.reason) for row in rows if row.name in here} == {
        (name, "measured", None) for name in here
    }
    gone = {(row.state, str(row.reason).split(";")[0]) for row in rows if row.name not in here}
    assert gone <= {("pruned", "deleted before it was measured"), ("measured", "deleted since")}
    assert ("measured", "deleted since") in gone
    assert not list(results.rglob("failure.json"))
    # Of each run the model that was saved last is that of its last step.
    n_cells = check_same_as_one_run(measured, results, tmp_path / "alone")
    assert n_cells == len(TASKS) * 2 * KEPT

    disturbed, undisturbed = runs / "dpo", tmp_path / "undisturbed"
    weights = [run / "model.safetensors" for run in (disturbed, undisturbed)]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    assert losses(disturbed) == losses(undisturbed)
    assert len(losses(disturbed)) == STEPS + 1
