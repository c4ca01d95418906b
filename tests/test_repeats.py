"""A checkpoint measured twice: what the two times differ by is noise."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest

from prefbench.boards.scored import board_of
from prefbench.cells import find, in_units, plan_cells, plan_tasks
from prefbench.errors import InputError
from prefbench.measures.answers import plan, seed_of
from prefbench.report.collect import collect, gather
from prefbench.report.progress import showing
from prefbench.report.tables import render
from prefbench.runner import run
from tests.test_runner import FEW, mirror, runs  # noqa: F401  # fixtures

TWICE = dataclasses.replace(FEW, twice=("sft",))


class Items:
    """As many items as it is told."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __len__(self) -> int:
        return self.n


@pytest.mark.parametrize("n", [0, 1, 5, 8, 9, 40])
@pytest.mark.parametrize("size", [1, 2, 8])
def test_a_repeat_asks_the_same_items_in_other_batches(n: int, size: int) -> None:
    first, again = plan(Items(n), size), plan(Items(n), size, 1)  # type: ignore[arg-type]
    for batches in (first, again):
        assert [i for batch in batches for i in batch] == list(range(n))
        assert all(0 < len(batch) <= size for batch in batches)
    if size > 1 and n > size:
        assert set(first).isdisjoint(again)


def test_a_repeat_draws_from_other_seeds() -> None:
    first = {seed_of(0, item, sample) for item in range(20) for sample in range(3)}
    again = {seed_of(0, item, sample, 1) for item in range(20) for sample in range(3)}
    assert not first & again


def test_what_is_measured_once_keeps_its_cells(runs: Path, mirror: Path) -> None:  # noqa: F811
    checkpoints = find(runs, FEW, final_only=False)
    tasks = plan_tasks(["demo_everyday", "demo_winrate"], mirrors=[mirror])
    once = [cell.cell for cell in plan_cells(checkpoints, tasks, FEW)]
    cells = plan_cells(checkpoints, tasks, TWICE)
    again = [cell for cell in cells if cell.repeat]
    assert [cell.cell for cell in cells if not cell.repeat] == once
    # Not what a judge would have to be paid for a second time.
    assert [(cell.checkpoint.name, cell.task.name) for cell in again] == [("sft", "demo_everyday")]
    assert again[0].title == "sft × demo_everyday again"
    # Together they would be one question to one engine.
    assert all(len({c.repeat for c in unit.cells}) == 1 for unit in in_units(cells))


def test_a_run_says_what_it_measures_again(
    runs: Path,  # noqa: F811
    mirror: Path,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    with showing() as listener:
        run(
            runs,
            tasks=["demo_everyday"],
            results=runs / "said",
            settings=TWICE,
            mirrors=[mirror],
            listener=listener,
        )
    lines = [line.partition(": ")[0] for line in capsys.readouterr().err.splitlines()]
    assert lines.count("sft × demo_everyday") == lines.count("sft × demo_everyday again") == 1


def test_a_checkpoint_that_is_not_there_cannot_be_measured_twice(
    runs: Path,  # noqa: F811
    mirror: Path,  # noqa: F811
) -> None:
    settings = dataclasses.replace(FEW, twice=("nobody",))
    with pytest.raises(InputError, match="--twice nobody"):
        run(runs, tasks=["demo_everyday"], results=runs / "r", settings=settings, mirrors=[mirror])


def test_the_table_knows_the_noise_of_what_was_measured_twice(
    runs: Path,  # noqa: F811
    mirror: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    results, names = tmp_path / "results", ["demo_everyday", "demo_dialogues"]
    once = run(runs, tasks=names, results=results, settings=FEW, mirrors=[mirror])
    table = render(collect(results))
    outcome = run(runs, tasks=names, results=results, settings=TWICE, mirrors=[mirror])
    assert len(outcome.done) == len(once.measured)
    assert len(outcome.measured) == len(names)
    board = collect(results)
    # float32 on a processor: what batches change is far below a digit of the table.
    assert set(board.noise) == {column.key for column in board.columns}
    assert max(board.noise.values()) < 1e-4
    assert render(board).splitlines()[:4] == table.splitlines()[:4]
    assert "noise" in render(board)
    assert "sft was measured twice on demo_everyday" in "".join(board.notes)
    assert len(board.rows) == len(collect(results, plan=once.plan).rows)


def test_rows_that_share_a_cell_are_told_by_their_own_names(
    runs: Path,  # noqa: F811
    mirror: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    shutil.copytree(runs / "sft", runs / "copy")
    results, settings = tmp_path / "results", dataclasses.replace(TWICE, max_length=24)
    run(runs, tasks=["demo_everyday", "demo_arithmetic"], results=results,
        settings=settings, mirrors=[mirror])  # fmt: skip
    said = gather(results).notes
    assert len([note for note in said if "measured twice" in note]) == 1
    assert not any("copy, copy" in note or "sft, sft" in note for note in said), said


def test_noise_is_the_largest_gap_of_a_checkpoint_to_itself(
    runs: Path,  # noqa: F811
    mirror: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    results = tmp_path / "results"
    run(runs, tasks=["demo_everyday"], results=results, settings=TWICE, mirrors=[mirror])
    gathered = gather(results)
    noisy = tuple(
        dataclasses.replace(
            one, quantities={**one.quantities, "acc_norm": 1 - one.quantities["acc_norm"]}
        )
        for one in gathered.repeated
    )
    board = board_of(dataclasses.replace(gathered, repeated=noisy))
    value = next(
        float(np.mean(one.quantities["acc_norm"]))
        for one in gathered.measured
        if one.checkpoint == "sft"
    )
    column = next(column for column in board.columns if column.metric.name == "acc_norm")
    assert board.noise[column.key] == pytest.approx(abs(2 * value - 1))
