from __future__ import annotations

import dataclasses
import json

import pytest

from prefbench.trackers.curves import curves_of
from tests.trackers.boards import EVIL, ROWS, board, curves, row


def test_checkpoints_of_one_run_are_points_of_one_curve_by_step() -> None:
    dpo, evil, ipo = curves()
    assert [(point.step, point.checkpoint) for point in dpo.points] == [
        (100, "dpo/checkpoint-100"),
        (200, "dpo/checkpoint-200"),
        (300, "dpo"),
    ]
    assert (dpo.name, ipo.name) == ("dpo", "ipo")
    assert [point.step for point in ipo.points] == [50]
    assert evil.name.isprintable()
    assert {name for curve in curves() for name in curve.points[0].scores} == {
        f"{task}/exact_match,strict{end}"
        for task in ("quiz", "puzzle")
        for end in ("", "_low", "_high", "_n")
    }


def test_scores_are_the_tables_with_their_bounds() -> None:
    made = board()
    (dpo,) = (curve for curve in curves_of(made).curves if curve.name == "dpo")
    (column, *_) = made.columns
    entry = made.entry(ROWS[1], column)
    assert entry is not None
    estimate = entry.score.estimate
    scores = dpo.points[0].scores
    name = "quiz/exact_match,strict"
    assert scores[name] == estimate.value == 15 / 40
    assert (scores[f"{name}_low"], scores[f"{name}_high"]) == (estimate.low, estimate.high)
    assert scores[f"{name}_n"] == 40


def test_what_is_known_of_a_curve_has_no_paths() -> None:
    (dpo, *_) = curves()
    assert dpo.about["fingerprints"]["200"] == "bytes of dpo/checkpoint-200"
    assert dpo.about["checkpoints"]["300"] == "dpo"
    assert (dpo.about["method"], dpo.about["seed"]) == ("dpo", 3)
    assert "runs" not in json.dumps(dpo.about)


def test_a_final_model_at_the_step_of_a_checkpoint_is_one_point() -> None:
    same = row("dpo/checkpoint-300", 300, "bytes of dpo")
    found = curves_of(board([*ROWS[:3], same]))
    assert [point.step for point in found.curves[0].points] == [100, 200, 300]
    assert found.notes == ()
    other = row("dpo/checkpoint-300", 300, "other bytes")
    found = curves_of(board([*ROWS[:3], other]))
    assert found.curves[0].points[-1].fingerprint == "other bytes"
    assert found.notes == ("dpo: left out, dpo/checkpoint-300 is at its step, too",)


def test_without_a_step() -> None:
    found = curves_of(board([*ROWS[:2], row("dpo", None), row("base", None)]))
    dpo, base = found.curves
    assert [point.step for point in dpo.points] == [100, 200]
    assert [point.step for point in base.points] == [0]
    assert found.notes == (
        "dpo: left out, nothing says at which step it was",
        "base: at step 0, nothing says at which it was",
    )


def test_curves_have_names_of_their_own() -> None:
    rows = [row("a/checkpoint-1", 1, name="checkpoint-1"), row("b/a", 1, name="a")]
    assert [curve.name for curve in curves(rows=rows)] == ["a", "a 2"]


def test_rows_without_scores_make_no_curve() -> None:
    made = board(ROWS[:2])
    lost = dataclasses.replace(made, rows=(*made.rows, row("lost", 5)))
    assert [curve.name for curve in curves_of(lost).curves] == ["dpo"]


@pytest.mark.parametrize("everything", [False, True])
def test_metrics_that_are_not_shown_are_pushed_when_asked_for(everything: bool) -> None:
    made = board(ROWS[:1])
    hidden = dataclasses.replace(
        made, columns=tuple(dataclasses.replace(c, shown=False) for c in made.columns)
    )
    assert bool(curves_of(hidden, everything=everything).curves) == everything


def test_hostile_names_are_printable_everywhere() -> None:
    _, evil, _ = curves(tasks=(EVIL,))
    assert all(name.isprintable() for name in evil.points[0].scores)
    assert json.dumps(evil.about, ensure_ascii=False).isprintable()
