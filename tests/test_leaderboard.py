from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from prefbench.boards.shown import show
from prefbench.errors import InputError
from prefbench.leaderboard import Group, Measured, find_baseline, row_order
from prefbench.records import Checkpoint
from tests.boards.made import build_board

RNG = np.random.default_rng(0)
N = 60


def row(name: str, method: str | None = None, **facts: object) -> Checkpoint:
    return Checkpoint(name, Path(name), "ready", method=method or name, **facts)  # type: ignore[arg-type]


def cell(name: str, values: np.ndarray, group: str = "quiz", **more: np.ndarray) -> Measured:
    items = np.arange(len(values), dtype=np.int32)
    return Measured(name, group, items, items.astype(str), {"acc": values, **more})


ROWS = [row("dpo"), row("sft"), row("ipo")]
QUIZ = Group("quiz", "quiz", shown=("acc",), higher_is_better={"acc": True})
SFT = (RNG.random(N) < 0.5).astype(float)
BETTER = np.maximum(SFT, RNG.random(N) < 0.5)
CELLS = [cell("sft", SFT), cell("dpo", BETTER), cell("ipo", SFT)]


def test_values_are_means_and_lie_in_their_intervals() -> None:
    board = build_board(ROWS, [QUIZ], CELLS)
    (column,) = board.columns
    entry = board.entry(ROWS[0], column)
    assert entry is not None
    estimate = entry.score.estimate
    assert estimate.value == BETTER.mean()
    assert estimate.low < estimate.value < estimate.high
    assert estimate.n == N


def test_rows_are_ordered_by_method_then_step() -> None:
    rows = [row("x", "mystery"), row("c2", "dpo", step=10), row("c1", "dpo", step=9), row("sft")]
    assert [r.name for r in sorted(rows, key=row_order)] == ["sft", "c1", "c2", "x"]


def test_differences_to_the_baseline_are_paired() -> None:
    board = build_board(ROWS, [QUIZ], CELLS)
    (column,) = board.columns
    dpo, sft, ipo = (board.entry(r, column) for r in ROWS)
    assert dpo is not None
    assert sft is not None
    assert ipo is not None
    assert board.baseline == "sft"
    assert sft.difference is None
    assert dpo.difference is not None
    assert dpo.difference.value == pytest.approx(BETTER.mean() - SFT.mean())
    assert show(board).verdict(ROWS[0], column) == "better"
    assert ipo.difference is not None
    assert ipo.difference[:3] == (0, 0, 0)
    assert show(board).verdict(ROWS[2], column) == ""


def test_less_is_better_where_the_metric_says_so() -> None:
    group = Group("quiz", "quiz", shown=("acc",), higher_is_better={"acc": False})
    board = build_board(ROWS, [group], CELLS)
    assert show(board).verdict(ROWS[0], board.columns[0]) == "worse"


def test_a_checkpoint_alone_gets_the_same_numbers_as_in_company() -> None:
    together = build_board(ROWS, [QUIZ], CELLS)
    alone = build_board(ROWS[:1], [QUIZ], [CELLS[1]])
    assert together.entry(ROWS[0], together.columns[0]).score == (  # type: ignore[union-attr]
        alone.entry(ROWS[0], alone.columns[0]).score  # type: ignore[union-attr]
    )


def test_a_missing_item_is_missing_not_zero() -> None:
    values = BETTER.copy()
    values[:10] = np.nan
    board = build_board(ROWS, [QUIZ], [cell("sft", SFT), cell("dpo", values)])
    entry = board.entry(ROWS[0], board.columns[0])
    assert entry is not None
    assert entry.score.estimate.value == pytest.approx(BETTER[10:].mean())
    assert (entry.score.estimate.n, entry.score.estimate.n_missing) == (N - 10, 10)
    assert entry.difference is not None
    assert entry.difference.value == pytest.approx(BETTER[10:].mean() - SFT[10:].mean())


def test_a_metric_that_one_checkpoint_lacks_altogether_has_no_number() -> None:
    extra = cell("dpo", BETTER, other=BETTER)
    board = build_board(ROWS, [QUIZ], [cell("sft", SFT), extra])
    column = next(c for c in board.columns if c.metric.name == "other")
    entry = board.entry(ROWS[1], column)
    assert entry is not None
    assert np.isnan(entry.score.estimate.value)
    assert entry.score.estimate.n == 0


def test_missing_cells_have_their_reason() -> None:
    broken = Checkpoint("slic", Path("slic"), "incomplete", reason="no weights", method="slic")
    board = build_board(
        [*ROWS, broken], [QUIZ], CELLS[:1], reasons={("dpo", "quiz"): "out of memory"}
    )
    (column,) = board.columns
    assert board.reason(ROWS[0], column) == "out of memory"
    assert board.reason(broken, column) == "no weights"
    assert board.reason(ROWS[2], column) == "not measured"


def test_a_group_that_nobody_has_keeps_its_columns() -> None:
    group = Group("pairs", "pairs", shown=("perplexity", "agility"))
    board = build_board(ROWS, [group], [])
    assert [c.metric.name for c in board.columns] == ["perplexity.v1", "agility.v1"]


def test_the_same_task_is_resampled_the_same_whatever_its_conditions() -> None:
    other = Group("quiz, first 60 items", "quiz", "first 60 items", ("acc",), {"acc": True})
    board = build_board(ROWS, [QUIZ, other], [CELLS[1], cell("dpo", BETTER, other.name)])
    first, second = (board.entry(ROWS[0], c) for c in board.columns)
    assert first is not None
    assert second is not None
    assert first.score.estimate == second.score.estimate


@pytest.mark.parametrize(("wanted", "found"), [(None, "sft"), ("dpo", "dpo"), ("IPO", "ipo")])
def test_the_baseline_is_named_by_row_or_method(wanted: str | None, found: str) -> None:
    assert find_baseline(ROWS, wanted) == found


def test_two_sft_rows_are_no_baseline_by_default() -> None:
    rows = [row("a", "sft"), row("b", "sft")]
    assert find_baseline(rows, None) is None
    with pytest.raises(InputError, match="2 checkpoints: a, b"):
        find_baseline(rows, "sft")


def test_an_unknown_baseline_is_refused() -> None:
    with pytest.raises(InputError, match="'rlhf' names no checkpoint"):
        find_baseline(ROWS, "rlhf")


def test_a_judged_comparison_has_intervals_and_differences_for_all_its_metrics() -> None:
    rng = np.random.default_rng(1)
    group = Group("duel", "duel", shown=("win_rate", "lc_win_rate"))

    def judged(name: str, shift: float) -> Measured:
        lengths = rng.integers(100, 900, (2, N)).astype(float)
        longer = np.tanh((lengths[0] - lengths[1]) / 300)
        win = (rng.random(N) < 0.5 + 0.3 * longer + shift) * 1.0
        items = np.arange(N, dtype=np.int32)
        quantities = {"win": win, "n_chars": lengths[0], "n_chars_opponent": lengths[1]}
        return Measured(name, group.name, items, items.astype(str), quantities)

    cells = [judged("sft", 0.0), judged("dpo", 0.2), judged("ipo", 0.0)]
    cells[2].quantities["n_chars"][:5] = np.nan
    board = build_board(ROWS, [group], cells, n_resamples=500)
    shown = [column.metric.name for column in board.columns if column.shown]
    assert shown == ["win_rate.v1", "lc_win_rate.v1"]
    for column in board.columns[:2]:
        entry = board.entry(ROWS[0], column)
        assert entry is not None
        one, gap = entry.score.estimate, entry.difference
        assert one.low < one.value < one.high
        assert gap is not None
        assert gap.low < gap.value < gap.high
    short = board.entry(ROWS[2], board.columns[1])
    assert short is not None
    assert (short.score.estimate.n, short.score.estimate.n_missing) == (N - 5, 5)
