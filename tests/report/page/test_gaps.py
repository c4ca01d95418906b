"""What the page says and draws of rows whose values are not there."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from prefbench.boards.shown import Shown, show
from prefbench.leaderboard import Group, Measured
from prefbench.records import Checkpoint
from prefbench.report.page.drawings import figures_of
from prefbench.report.page.remarks import remarks_of
from tests.boards.made import build_board


def pairs(**lost: float) -> Shown:
    """A task of pairs; `lost` is the share of items that each row has no value for."""
    rng, items = np.random.default_rng(0), np.arange(40, dtype=np.int32)
    rows = [Checkpoint(name, Path(name), "ready", method=name) for name in lost]
    group = Group("pairs", "pairs", shown=("perplexity", "agility"))
    cells = []
    for row in rows:
        columns = {}
        for kind in ("chosen", "rejected"):
            gone = items < lost[row.name] * len(items)
            columns[f"sum_logp_{kind}"] = np.where(gone, np.nan, -rng.gamma(4, 10, 40))
            columns[f"n_tokens_{kind}"] = np.where(gone, np.nan, rng.integers(9, 40, 40))
        cells.append(Measured(row.name, "pairs", items, items, columns))
    return show(build_board(rows, [group], cells, n_resamples=200))


def test_a_row_without_values_is_no_point_of_a_figure() -> None:
    drawn = "".join(str(figure) for figure in figures_of(pairs(sft=0.0, dpo=0.0, ipo=1.0)))
    assert "DPO" in drawn
    assert "nan" not in drawn


def test_items_without_values_are_told_first() -> None:
    def told(shown: Shown) -> list[str]:
        return [remark.text for remark in remarks_of(shown) if remark.kind == "missing"]

    assert told(pairs(sft=0.0, dpo=0.25)) == ["some items have no value — pairs: DPO"]
    assert told(pairs(sft=0.0, dpo=0.0)) == []


def test_a_board_of_nothing_is_told_of() -> None:
    found = remarks_of(show(build_board([], [], [])))
    assert [remark.text for remark in found] == ["nothing was measured"]
