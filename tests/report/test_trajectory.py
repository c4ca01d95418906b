from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from prefbench.errors import InputError
from prefbench.leaderboard import Gathered, Group, Measured
from prefbench.records import Checkpoint
from prefbench.report.steps import STYLES, sentences_of, sparkline
from prefbench.report.trajectory import EXAMPLES
from prefbench.report.trajectory import trajectory as verb
from prefbench.steps.trajectory import Trajectory, trajectory

HOSTILE = "evil\x1b[31m|`<script>alert(1)</script>\u202e=1+1"
N = 100


def follow(run: str = "dpo", task: str = "quiz", **more: Any) -> Trajectory:
    """SFT, and a run whose steps get better, then worse; one step was not measured."""
    rng = np.random.default_rng(3)
    base = (np.arange(N) < 60).astype(float)
    group = Group(task, task, shown=("acc",), higher_is_better={"acc": True}, notes=(HOSTILE,))
    names = ("sft", *(f"{run}/checkpoint-{n}" for n in (10, 20, 30, 40)))
    rows = tuple(
        Checkpoint(name, Path("/r") / name, "ready", method="sft" if name == "sft" else "dpo",
                   step=None if name == "sft" else int(name.rpartition("-")[2]), fingerprint=name)
        for name in names
    )  # fmt: skip
    items = np.arange(N, dtype=np.int32)
    cells = tuple(
        Measured(name, task, items, items.astype(str), {"acc": values})
        for name, values in zip(
            names,
            (base, base, np.maximum(base, rng.random(N) < 0.6), base * (rng.random(N) < 0.5)),
            strict=False,
        )
    )
    reasons = {(f"{run}/checkpoint-40", task): "out of memory"}
    data = Gathered(rows, (group,), cells, reasons=reasons)
    return trajectory(data, run, n_resamples=1000, **more)


def test_the_text_to_the_letter() -> None:
    table, said = STYLES["text"](follow(), 100).split("\n\n")[1:]
    assert table.splitlines() == [
        "               quiz",
        "step           acc ↑",
        "─" * 33,
        "10             60.0 [50.0, 69.0]",
        "20             82.0 [74.0, 89.0]▲",
        "30             32.0 [23.0, 41.0]▼",
        "40             — (1)",
        "reference sft  60.0 [50.0, 69.0]",
        "               ▅█▁·",
    ]
    assert said.splitlines()[2:] == [
        "quiz, acc: the first step that is significantly worse is dpo/checkpoint-30 (step 30).",
        "Best step by quiz, acc: dpo/checkpoint-20, 82.0 [74.0, 89.0]; corrected for the choice "
        "among 3 steps 82.0 [74.0, 89.0].",
        "It is the best at 95%: no other step may be as good.",
        "not chosen from, as it lacks quiz/acc: dpo/checkpoint-40.",
        "(1) out of memory",
    ]


def iterates(run: str = "spin", *, start: bool = True, noise: float = 0.0) -> Trajectory:
    """Three iterates from SFT on; the second gains, the third loses."""
    names = ["sft", *(f"{run}_{n}" for n in (1, 2, 3))]
    rows = tuple(
        Checkpoint(name, Path("/r") / name, "ready", method="sft" if name == "sft" else "spin",
                   reference=f"/r/{before}" if before else None, fingerprint=name)
        for name, before in zip(names, [None, *names], strict=False)
    )  # fmt: skip
    items = np.arange(N, dtype=np.int32)

    def cell(name: str, right: float) -> Measured:
        values = (items < right).astype(float)
        return Measured(name, "quiz", items, items.astype(str), {"acc": values})

    cells = [cell(name, n) for name, n in zip(names, (60, 62, 80, 70), strict=True)]
    group = Group("quiz", "quiz", shown=("acc",), higher_is_better={"acc": True})
    repeated = (cell("sft", 60 + noise),) if noise else ()
    data = Gathered(rows, (group,), tuple(cells[not start :]), repeated=repeated)
    return trajectory(data, f"{run}_3", n_resamples=1000)


def test_iterates_to_the_letter() -> None:
    head, table, said = STYLES["text"](iterates(), 100).split("\n\n")
    assert head == "Iterates sft → spin_1 → spin_2 → spin_3"
    assert table.splitlines() == [
        "                  quiz",
        "iteration         acc ↑",
        "─" * 36,
        "0 sft, reference  60.0 [50.0, 69.0]",
        "1 spin_1          62.0 [53.0, 72.0]",
        "2 spin_2          80.0 [72.0, 88.0]▲",
        "3 spin_3          70.0 [61.0, 78.0]▲",
        "                  ▁█▄",
    ]
    assert said.splitlines()[1:6] == [
        "▲ better, ▼ worse, ≠ different from sft: paired on the same items, tested at 5% with "
        "Holm's correction for the iterations of each column.",
        "quiz, acc: no iteration is significantly worse than sft.",
        "Each against the one before (▲ better, ▼ worse, ≠ different), paired on the same items "
        "and with Holm's correction for the changes of each column:",
        "quiz, acc: iteration 1 +2.0 [0.0, +5.0]; 2 +18.0 [+11.0, +25.0]▲; 3 -10.0 [-16.0, -5.0]▼.",
        "Best iteration by quiz, acc: spin_2, 80.0 [72.0, 88.0]; corrected for the choice among 3 "
        "iterations 80.0 [72.0, 88.0].",
    ]


def test_iterates_without_what_they_began_with() -> None:
    text = STYLES["markdown"](iterates(start=False), 100)
    assert text.startswith("**Iterates spin\\_1 → spin\\_2 → spin\\_3**")
    assert "reference sft" not in text
    assert "quiz, acc: iteration 2 +18.0" in text


def test_noise_has_a_mark_of_its_own() -> None:
    found = iterates(noise=12)
    text = STYLES["text"](found, 100)
    assert "3 spin_3          70.0 [61.0, 78.0]≈" in text
    assert "2 +18.0 [+11.0, +25.0]▲; 3 -10.0 [-16.0, -5.0]≈." in text
    assert any(line.startswith("≈ differs") for line in sentences_of(found))


def test_csv_and_json_hold_iterations_and_changes() -> None:
    found = iterates()
    rows = list(csv.DictReader(io.StringIO(STYLES["csv"](found, 80))))
    whole = json.loads(STYLES["json"](found, 80))
    assert [row["iteration"] for row in rows] == ["1", "2", "3"]
    assert [row["previous"] for row in rows] == ["sft", "spin_1", "spin_2"]
    assert [row["change_verdict"] for row in whole["rows"]] == [None, "better", "worse"]
    assert [row["verdict"] for row in whole["rows"]] == [None, "better", "better"]
    assert whole["rows"][2]["change"] == pytest.approx(-0.1)
    assert whole["rows"][2]["change_low"] < -0.1 < whole["rows"][2]["change_high"]
    assert 0 < whole["rows"][2]["change_p_corrected"] < 0.05
    assert (whole["start"], whole["steps"][2]["iteration"]) == ("sft", 3)
    steps = json.loads(STYLES["json"](follow(), 80))
    assert steps["start"] is None
    assert {row[key] for row in steps["rows"] for key in ("iteration", "previous", "change")} == {
        None
    }


@pytest.mark.parametrize("style", STYLES)
def test_hostile_names_of_iterates_stay_text(style: str) -> None:
    text = STYLES[style](iterates(run=HOSTILE), 100)
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert style != "markdown" or "<script>" not in text


def test_words_where_several_may_be_the_best() -> None:
    found = follow(reference="dpo/checkpoint-30")
    none = "quiz, acc: no step is significantly worse than dpo/checkpoint-30."
    assert none in sentences_of(found)
    rows = found.steps[:1] + found.steps[2:]
    rng = np.random.default_rng(5)
    items = np.arange(N, dtype=np.int32)
    cells = tuple(
        Measured(row.name, "quiz", items, items.astype(str),
                 {"acc": rng.permutation((np.arange(N) < right).astype(float))})
        for row, right in zip(rows, (60, 65, 30), strict=True)
    )  # fmt: skip
    group = Group("quiz", "quiz", shown=("acc",), higher_is_better={"acc": True})
    found = trajectory(Gathered(rows, (group,), cells), "dpo", n_resamples=1000)
    assert found.selected is not None
    best, other = "dpo/checkpoint-30", "dpo/checkpoint-10"
    assert (found.selected.best, found.selected.earliest) == (best, other)
    said = sentences_of(found)
    assert f"May be as good, at 95% and corrected for the steps: {other}." in said
    assert (
        f"The earliest of these is {other}: nothing shows that training on from there gains "
        "anything by this metric."
    ) in said
    assert not any("significantly" in line for line in said)  # there is nothing to compare with


def test_csv_and_json_hold_everything() -> None:
    found = follow()
    rows = list(csv.DictReader(io.StringIO(STYLES["csv"](found, 80))))
    whole = json.loads(STYLES["json"](found, 80))
    assert len(rows) == len(whole["rows"]) == 4
    assert [row["verdict"] for row in whole["rows"]] == [None, "better", "worse", None]
    assert [row["best"] for row in rows] == ["False", "True", "False", "False"]
    assert whole["rows"][3]["missing"] == "out of memory"
    assert whole["first_worse"] == [
        {"task": "quiz", "metric": "acc", "checkpoint": "dpo/checkpoint-30", "step": 30,
         "stays_worse": True}
    ]  # fmt: skip
    assert whole["selected"]["best"] == whole["selected"]["earliest"] == "dpo/checkpoint-20"
    assert sum(whole["selected"]["share_of_resamples"]) == pytest.approx(1)
    assert whole["rows"][1]["difference_low"] > 0


@pytest.mark.parametrize("style", STYLES)
def test_hostile_names_stay_text(style: str) -> None:
    text = STYLES[style](follow(run=HOSTILE, task=HOSTILE), 100)
    assert "\x1b" not in text
    assert "\u202e" not in text
    if style == "markdown":
        assert "<script>" not in text
        table = [line for line in text.splitlines() if line.startswith("|")]
        assert {line.replace("\\|", "").count("|") for line in table} == {3}


def test_csv_is_no_formula() -> None:
    assert "'=1+1" in STYLES["csv"](follow(run="=1+1"), 80)


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ([1.0, 2.0, 3.0], "▁▅█"),
        ([2.0, 2.0], "▁▁"),
        ([1.0, None, float("nan"), 0.0], "█··▁"),
        ([None], ""),
        ([], ""),
    ],
)
def test_sparklines(values: list[float | None], line: str) -> None:
    assert sparkline(values) == line


def test_the_verb(tmp_path: Path) -> None:
    from tests.report.test_gate import make_store

    results = make_store(tmp_path / "results", {"sft": 300, "dpo": 250})
    app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command(epilog=EXAMPLES)(verb)
    found = CliRunner().invoke(app, ["dpo", "--results", str(results), "--by", "quiz/acc"])
    assert found.exit_code == 0
    assert "reference sft" in found.stdout
    assert "the first step that is significantly worse is dpo." in found.stdout
    assert "this run has one step" in found.stdout
    found = CliRunner().invoke(app, ["dpo", "-r", str(results), "--confidence", "95"])
    assert isinstance(found.exception, InputError)
    assert "between 0 and 1, not 95" in str(found.exception)
    found = CliRunner().invoke(app, ["kto", "-r", str(results)])
    assert "'kto' names no run; give one of: sft, dpo" in str(found.exception)
