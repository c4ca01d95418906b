from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from prefbench.boards.pooled import pooled_board, pools_of
from prefbench.boards.scored import board_of
from prefbench.boards.summary import summary_board
from prefbench.errors import InputError
from prefbench.leaderboard import Gathered, Group, Measured
from prefbench.records import Checkpoint
from prefbench.report.tables import render

N = 80
QUIZ = Group("quiz", "quiz", shown=("acc",), higher_is_better={"acc": True})
TEXT = Group("text", "text", shown=("loss",), higher_is_better={"loss": False})


def row(name: str, method: str, seed: int | None = 0, step: int | None = 10) -> Checkpoint:
    return Checkpoint(name, Path(name), "ready", method=method, seed=seed, step=step)


def cell(row: Checkpoint, group: Group, values: np.ndarray) -> Measured:
    items = np.arange(len(values), dtype=np.int32)
    return Measured(row.name, group.name, items, items.astype(str), {group.shown[0]: values})


ROWS = [row("sft", "sft"), *(row(f"dpo-s{i}", "dpo", seed=i) for i in range(3)), row("ipo", "ipo")]


def gathered(rows: list[Checkpoint] = ROWS) -> Gathered:
    rng = np.random.default_rng(0)
    common = rng.normal(size=N)
    shifts = {"sft": 0.0, "dpo": 1.0, "ipo": -0.5}
    cells = []
    for one in rows:
        shift = shifts[one.method or ""]
        seed = 0.1 * rng.normal()
        cells.append(cell(one, QUIZ, common + shift + seed + 0.3 * rng.normal(size=N)))
        cells.append(cell(one, TEXT, common - shift + seed + 0.3 * rng.normal(size=N)))
    return Gathered(tuple(rows), (QUIZ, TEXT), tuple(cells))


def test_rows_that_differ_in_their_seed_alone_are_one() -> None:
    found = {pool.row.name: pool.members for pool in pools_of(ROWS)}
    assert found == {
        "sft": ("sft",),
        "DPO, 3 seeds": ("dpo-s0", "dpo-s1", "dpo-s2"),
        "ipo": ("ipo",),
    }


def test_a_pool_without_a_step_is_not_named_by_one() -> None:
    rows = [row(f"{step}-{i}", "dpo", seed=i, step=step) for step in (10, None) for i in (1, 2)]
    assert {pool.row.name for pool in pools_of(rows)} == {"DPO, 2 seeds, step 10", "DPO, 2 seeds"}


def test_a_pools_intervals_do_not_hang_on_other_pools() -> None:
    ipo = [row(f"ipo-s{i}", "ipo", seed=i) for i in range(1, 3)]
    whole = gathered([*ROWS, *ipo])
    others = {f"dpo-s{i}" for i in range(3)}
    part = dataclasses.replace(
        whole,
        checkpoints=tuple(one for one in whole.checkpoints if one.name not in others),
        measured=tuple(one for one in whole.measured if one.checkpoint not in others),
    )
    alone, among = (pooled_board(one, n_resamples=300) for one in (part, whole))
    for group in (QUIZ, TEXT):
        key = "IPO, 3 seeds", (group.name, group.shown[0])
        assert alone.entries[key] == among.entries[key]


@pytest.mark.parametrize(
    "rows",
    [
        [row("a", "dpo", seed=1), row("b", "dpo", seed=1)],  # something unknown differs
        [row("a", "dpo", seed=1), row("b", "dpo", seed=None)],
        [row("a", "dpo", seed=1, step=10), row("b", "dpo", seed=2, step=20)],
    ],
)
def test_rows_that_may_differ_in_more_stay_apart(rows: list[Checkpoint]) -> None:
    assert sorted(pool.members for pool in pools_of(rows)) == [("a",), ("b",)]


def test_two_steps_of_the_same_seeds_are_two_rows() -> None:
    rows = [row(f"{step}-{seed}", "dpo", seed, step) for step in (10, 20) for seed in (0, 1)]
    names = [pool.row.name for pool in pools_of(rows)]
    assert names == ["DPO, 2 seeds, step 10", "DPO, 2 seeds, step 20"]


def test_a_pooled_value_is_the_mean_of_its_seeds() -> None:
    whole = gathered()
    board, pooled = board_of(whole, n_resamples=200), pooled_board(whole, n_resamples=200)
    column = board.columns[0]
    single = [board.entries[f"dpo-s{i}", column.key].score.estimate for i in range(3)]
    one = pooled.entries["DPO, 3 seeds", column.key]
    assert one.score.estimate.value == pytest.approx(np.mean([e.value for e in single]))
    assert one.difference is not None
    base = board.entries["sft", column.key].score.estimate.value
    assert one.difference.value == pytest.approx(one.score.estimate.value - base)
    # Seeds differ, and three of them say little of the next.
    assert one.score.estimate.se > single[0].se


def test_rows_of_one_seed_keep_their_numbers() -> None:
    whole = gathered()
    board, pooled = board_of(whole, n_resamples=200), pooled_board(whole, n_resamples=200)
    for column in board.columns:
        key = "ipo", column.key
        assert pooled.entries[key].score.estimate[:4] == board.entries[key].score.estimate[:4]
        first, second = pooled.entries[key].difference, board.entries[key].difference
        assert first is not None
        assert second is not None
        assert first == second


def test_the_table_says_what_was_pooled() -> None:
    text = render(pooled_board(gathered(), n_resamples=200))
    assert "DPO, 3 seeds: the mean over dpo-s0, dpo-s1, dpo-s2" in text


def test_without_seeds_there_is_nothing_to_pool() -> None:
    with pytest.raises(InputError, match="no seeds to pool"):
        pooled_board(gathered(ROWS[:2]))


def test_a_member_as_baseline_names_its_pool() -> None:
    assert pooled_board(gathered(), baseline="dpo-s1", n_resamples=50).baseline == "DPO, 3 seeds"


def test_a_summary_is_better_where_every_task_is() -> None:
    board = summary_board(gathered(), n_resamples=500)
    assert [column.metric.name for column in board.columns] == ["mean", "interquartile mean"]
    for column in board.columns:
        values = {row.name: board.entries[row.name, column.key] for row in board.rows}
        dpo, ipo = values["DPO, 3 seeds"].score.estimate, values["ipo"].score.estimate
        assert values["sft"].score.estimate[:3] == (0, 0, 0)
        assert dpo.low > 0 > ipo.high


def test_a_summary_does_not_hang_on_a_tasks_unit_or_size() -> None:
    whole = gathered()
    scaled = tuple(
        dataclasses.replace(one, quantities={k: 100 * v for k, v in one.quantities.items()})
        if one.group == "quiz"
        else one
        for one in whole.measured
    )
    first = summary_board(whole, n_resamples=200)
    second = summary_board(dataclasses.replace(whole, measured=scaled), n_resamples=200)
    for key, entry in first.entries.items():
        assert second.entries[key].score.estimate[:3] == pytest.approx(entry.score.estimate[:3])


def test_a_task_where_all_are_alike_is_left_out_and_said() -> None:
    flat = Group("flat", "flat", shown=("acc",), higher_is_better={"acc": True})
    whole = gathered()
    cells = tuple(cell(one, flat, np.ones(N)) for one in ROWS)
    more = dataclasses.replace(
        whole, groups=(*whole.groups, flat), measured=(*whole.measured, *cells)
    )
    board = summary_board(more, n_resamples=50)
    assert "flat is left out: no row differs from another" in board.notes
    assert board.entries == summary_board(whole, n_resamples=50).entries


def test_a_row_that_lacks_a_task_is_left_out_and_said() -> None:
    whole = gathered()
    lacking = tuple(one for one in whole.measured if (one.checkpoint, one.group) != ("ipo", "text"))
    board = summary_board(dataclasses.replace(whole, measured=lacking), n_resamples=50)
    assert "ipo" not in {row.name for row in board.rows}
    assert "ipo is left out: it lacks a task" in board.notes


def test_a_summary_needs_a_baseline() -> None:
    rows = [row("dpo", "dpo"), row("ipo", "ipo")]
    with pytest.raises(InputError, match="needs a baseline"):
        summary_board(gathered(rows))


def test_seeds_that_are_all_right_are_not_certain() -> None:
    cells = tuple(
        cell(one, QUIZ, np.ones(N) if one.method == "dpo" else np.arange(N) % 2.0) for one in ROWS
    )
    board = pooled_board(Gathered(tuple(ROWS), (QUIZ,), cells), n_resamples=50)
    estimate = board.entries["DPO, 3 seeds", board.columns[0].key].score.estimate
    assert estimate.value == estimate.high == 1
    assert estimate.method == "wilson"
    assert estimate.low < 0.98


def test_a_pooled_share_lies_between_none_and_all() -> None:
    rng = np.random.default_rng(1)
    shares = {"dpo-s0": 0.9, "dpo-s1": 0.3, "dpo-s2": 0.6}
    cells = tuple(
        cell(one, QUIZ, (rng.random(N) < shares.get(one.name, 0.5)).astype(float)) for one in ROWS
    )
    board = pooled_board(Gathered(tuple(ROWS), (QUIZ,), cells), n_resamples=500)
    estimate = board.entries["DPO, 3 seeds", board.columns[0].key].score.estimate
    assert 0 <= estimate.low < 0.2
    assert estimate.high == 1
