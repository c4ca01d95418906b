from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import pytest

from prefbench.errors import InputError
from prefbench.judges.verdicts import Verdicts
from prefbench.judging import VERDICTS
from prefbench.records import ROUND_ROBIN
from prefbench.report.collect import gather
from prefbench.report.page.page import write_page
from prefbench.report.page.samples import rows_of, sample_sets
from prefbench.report.page.verdicts import Kept, verdicts_of
from prefbench.store import Store
from tests.report.page.made import HOSTILE, Made, Voice, careful, panel, quiz, rating, talk
from tests.report.page.test_page import Parts

WHEN = datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)


def judged(folder: Path, judge: Voice) -> tuple[Made, str]:
    """dpo against sft."""
    made = Made(folder)
    for name in ("sft", "dpo"):
        made.checkpoint(name, name)
    cells = [talk(made, name) for name in ("sft", "dpo")]
    return made, made.compared("dpo", "sft", "talk", (cells[1], cells[0]), judge=judge)


def told(made: Made, cell: str) -> tuple[dict[int, list[dict[str, Any]]], str | None]:
    with Kept(made.folder / VERDICTS) as kept:
        return verdicts_of(Store(made.folder), kept, cell, ("dpo", "sft"))


def test_both_orders_are_told_from_the_checkpoints_side(tmp_path: Path) -> None:
    found, reason = told(*judged(tmp_path, careful()))
    assert reason is None
    # "dpo says 11" is as long as "sft says 11": whoever is shown first wins.
    assert [(one["first"], one["preference"], one["label"]) for one in found[11]] == [
        (True, 1.0, "A"),
        (False, 0.0, "A"),
    ]
    assert found[2] == [{"sample": 0, "identical": True}]
    assert found[5][0]["preference"] is None
    assert found[5][0]["reason"] == f"no label {HOSTILE[0]}"
    assert found[7] == []  # was not asked


def test_a_judge_whose_key_no_manifest_has_is_found_by_its_numbers(tmp_path: Path) -> None:
    made, cell = judged(tmp_path, rating())
    with Verdicts(tmp_path / VERDICTS) as kept:  # one of the same name, before
        kept._connection.execute(
            "INSERT INTO verdicts (key, judge, judge_key, shown, preference, reason, reply, n_in, "
            "n_out, cost, facts) SELECT 'old' || key, judge, 'older', shown, 1 - preference, "
            "reason, reply, n_in, n_out, cost, facts FROM verdicts"
        )
        kept._connection.commit()
    found, reason = told(made, cell)
    assert reason is None
    (only,) = found[4]  # a very long answer against a short one
    assert "first" not in only
    assert only["preference"] == 1.0
    own, other = only["scores"]
    assert own > 100_000 > other


def test_a_verdict_that_is_gone_is_no_loss(tmp_path: Path) -> None:
    made = Made(tmp_path)
    for name in ("sft", "dpo"):
        made.checkpoint(name, name)
    cells = talk(made, "sft"), talk(made, "dpo")
    cell = made.compared("sft", "dpo", "talk", cells, judge=rating())
    assert 0 in Store(tmp_path).records(cell)["win"].to_pylist()
    with Verdicts(tmp_path / VERDICTS) as kept:
        kept._connection.execute("DELETE FROM verdicts WHERE preference IN (0, 1)")
        kept._connection.commit()
    with Kept(tmp_path / VERDICTS) as left:
        found, reason = verdicts_of(Store(tmp_path), left, cell, ("sft", "dpo"))
    assert found == {}
    assert reason is not None
    assert "no verdicts of" in reason


def test_a_panel_is_told_with_its_members(tmp_path: Path) -> None:
    found, reason = told(*judged(tmp_path, panel()))
    assert reason is None
    one = found[11][0]
    assert one["preference"] == one["members"]["able"]["preference"]
    assert one["members"]["mute"] == {
        "preference": None, "reason": "says nothing", "reply": "…",
    }  # fmt: skip


def test_without_a_file_of_verdicts_the_reason_is_told(tmp_path: Path) -> None:
    made, cell = judged(tmp_path, careful())
    (tmp_path / VERDICTS).unlink()
    assert told(made, cell) == (
        {}, "no verdicts of careful that give these numbers are kept here"
    )  # fmt: skip


def test_a_round_robin_shows_every_pair_once(tmp_path: Path) -> None:
    made = Made(tmp_path / "results")
    names = "sft", "dpo", "ipo"
    for name in names:
        made.checkpoint(name, name)
    cells = {name: talk(made, name) for name in names}
    for first, second in (("sft", "dpo"), ("sft", "ipo"), ("dpo", "ipo")):
        both = cells[first], cells[second]
        made.compared(first, second, "talk", both, judge=rating(), against=ROUND_ROBIN)
    folder = made.write()
    gathered = gather(folder)
    store = Store(folder)
    (one,) = sample_sets(store, gathered, store.plans())
    assert {(each.checkpoint, each.opponent) for each in one.comparisons} == {
        ("sft", "dpo"), ("sft", "ipo"), ("dpo", "ipo"),
    }  # fmt: skip
    with Kept(folder / VERDICTS) as kept:
        row = list(rows_of(store, kept, one, None).rows)[11]
    assert [len(each["verdicts"]) for each in row["judged"]] == [1, 1, 1]
    write_page(tmp_path / "p.html", gathered, folder, when=WHEN)
    parts = Parts(tmp_path / "p.html")
    assert parts.unpacked("index-0")["comparisons"][2] == {
        "checkpoint": 1, "other": 2, "opponent": "IPO", "judge": "rating",
    }  # fmt: skip
    assert "DPO against IPO" in parts.text


def test_values_without_items_leave_the_others_samples_alone(tmp_path: Path) -> None:
    made = Made(tmp_path / "results")
    for name in ("sft", "dpo"):
        made.checkpoint(name, name)
    quiz(made, "sft", (1, 0))
    empty = {"shown": ["acc"], "config": {}, "better": {"acc": True}}
    made.cell("dpo", "quiz", [], [], [], **empty)  # type: ignore[arg-type]
    folder = made.write()
    assert write_page(tmp_path / "p.html", gather(folder), folder, when=WHEN) == []
    assert Parts(tmp_path / "p.html").unpacked("index-0")["checkpoints"] == ["SFT (baseline)"]


def test_a_file_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    made = Made(tmp_path / "results")
    made.checkpoint("sft", "sft")
    quiz(made, "sft", (1, 0))
    folder = made.write()
    with pytest.raises(InputError, match="cannot be written: Is a directory"):
        write_page(tmp_path, gather(folder), folder, when=WHEN)


def test_a_judge_of_another_version_loses_its_verdicts_only(tmp_path: Path) -> None:
    made, cell = judged(tmp_path, careful())
    manifest = made.store.manifest(cell)
    assert manifest is not None
    manifest["judging"]["judge"]["recipe"]["of_another_version"] = 1
    (tmp_path / "cells" / cell / "manifest.json").write_text(json.dumps(manifest))
    assert told(made, cell) == (
        {}, "the verdicts of careful cannot be told from its manifest"
    )  # fmt: skip
