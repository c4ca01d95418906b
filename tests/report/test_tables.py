from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest

from prefbench.errors import InputError
from prefbench.leaderboard import Board, Group, Measured
from prefbench.metrics import Metric, metric_named
from prefbench.records import Checkpoint
from prefbench.report.tables import STYLES, figure, plain, render, written
from prefbench.stats.estimates import Estimate
from tests.boards.made import build_board

HOSTILE = "evil\x1b[31m|`<script>alert(1)</script>\u202e"


def board(*, n_groups: int = 2) -> Board:
    rows = [
        Checkpoint("sft", Path("sft"), "ready", method="sft"),
        Checkpoint("dpo/checkpoint-2", Path("dpo"), "ready", method="dpo", step=2),
        Checkpoint("dpo/checkpoint-10", Path("dpo"), "ready", method="dpo", step=10),
        Checkpoint(HOSTILE, Path("evil"), "refused", reason=f"pickled {HOSTILE}"),
    ]
    groups = [
        Group(f"quiz{i}", f"quiz{i}", "first 40 items" if i else "", ("acc",), {"acc": True})
        for i in range(n_groups)
    ]
    rng = np.random.default_rng(1)
    items = np.arange(40, dtype=np.int32)
    measured = [
        Measured(row.name, group.name, items, items, {"acc": (rng.random(40) < p).astype(float)})
        for group in groups
        for row, p in zip(rows[:2], (0.2, 0.9), strict=True)
    ]
    return build_board(rows, groups, measured, reasons={(rows[2].name, "quiz0"): "out of memory"})


def test_a_text_table_to_the_letter() -> None:
    table, notes = render(board(), "text", width=100).split("\n\n")
    assert table.splitlines() == [
        "                                       quiz0                  quiz1",
        "                                                              first 40 items",
        "                                       acc ↑                  acc ↑",
        "─" * 83,
        "SFT (baseline)                         17.5 [7.5, 30.0] b     20.0 [7.5, 32.5] b",
        "DPO (dpo/checkpoint-2)                 95.0 [87.5, 100.0] a▲  92.5 [82.5, 100.0] a▲",
        "DPO (dpo/checkpoint-10)                — (1)                  — (2)",
        "evil [31m|`<script>alert(1)</script>   — (3)                  — (3)",
        "╌" * 83,
        "items                                  40                     40",
        "detectable                             ±20.4                  ±21.5",
    ]
    assert notes.splitlines()[-3:] == [
        "(1) out of memory",
        "(2) not measured",
        "(3) pickled evil [31m|`<script>alert(1)</script> ",
    ]


@pytest.mark.parametrize("style", STYLES)
def test_no_control_character_reaches_a_reader(style: str) -> None:
    text = render(board(), style)
    assert "\x1b" not in text
    assert "\u202e" not in text


def test_few_items_are_warned_of() -> None:
    warning = "fewer than 30 items"
    assert warning not in render(board(), "text")
    items = np.arange(8, dtype=np.int32)
    row = Checkpoint("sft", Path("sft"), "ready", method="sft")
    few = Measured("sft", "quiz", items, items, {"acc": np.tile([0.0, 1.0], 4)})
    group = Group("quiz", "quiz", shown=("acc",), higher_is_better={"acc": True})
    assert warning in render(build_board([row], [group], [few]), "text")


def test_markdown_takes_hostile_names_literally() -> None:
    text = render(board(), "markdown")
    assert "<script>" not in text
    table = [line for line in text.splitlines() if line.startswith("|")]
    unescaped = [line.replace("\\|", "") for line in table]
    assert {line.count("|") for line in unescaped} == {4}


def test_text_blocks_fit_the_width_and_repeat_the_rows() -> None:
    text = render(board(n_groups=8), "text", width=80)
    body = text.split("\n\nValues")[0]
    assert max(len(line) for line in body.splitlines()) <= 80
    assert body.count("SFT (baseline)") == len(body.split("\n\n")) > 1


def test_missing_cells_are_numbered_and_explained() -> None:
    text = render(board(), "text")
    assert "(1) " in text
    assert "out of memory" in text
    assert "pickled evil" in text


def test_csv_and_json_hold_every_number_and_reason() -> None:
    rows = list(csv.DictReader(io.StringIO(render(board(), "csv"))))
    whole = json.loads(render(board(), "json"))
    assert len(rows) == len(whole["rows"]) == 8
    first = whole["rows"][0]
    assert first["low"] <= first["value"] <= first["high"]
    assert float(rows[0]["value"]) == first["value"]
    assert [r["missing"] for r in whole["rows"] if r["value"] is None] == [
        "out of memory", "not measured", f"pickled {HOSTILE}", f"pickled {HOSTILE}",
    ]  # fmt: skip
    better = [r for r in whole["rows"] if r["verdict"] == "better"]
    assert {r["checkpoint"] for r in better} == {"dpo/checkpoint-2"}
    assert all(r["difference_low"] > 0 for r in better)


def test_csv_is_no_formula() -> None:
    rows = [Checkpoint("=1+1", Path("x"), "refused", reason="@SUM(A1)")]
    group = Group("quiz", "quiz", shown=("acc",))
    text = render(build_board(rows, [group], []), "csv")
    assert "'=1+1" in text
    assert "'@SUM" in text


ACC, PPL, AGILITY = (metric_named(n) for n in ("acc", "perplexity", "agility"))


@pytest.mark.parametrize(
    ("metric", "estimate", "text"),
    [
        (ACC, Estimate(0.5, 0.25, 1.0, 9), "50.0 [25.0, 100.0]"),
        (PPL, Estimate(12.345, 11.0, 99.994, 9), "12.35 [11.00, 99.99]"),
        (PPL, Estimate(847.0, 123.4, 5e9, 9), "847.0 [123.4, 5.000e+09]"),
        (AGILITY, Estimate(-0.0001, -0.25, 12.5, 9), "0.000 [-0.250, 12.50]"),
        (ACC, Estimate(0.5, np.nan, np.nan, 1), "50.0"),
        (ACC, Estimate(np.nan, np.nan, np.nan, 0), "undefined"),
    ],
)
def test_numbers_as_written(metric: Metric, estimate: Estimate, text: str) -> None:
    assert written(estimate, metric) == text


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(InputError, match="'latex'; there are: text, markdown, csv, json"):
        render(board(), "latex")


def test_plain_keeps_letters_of_all_scripts() -> None:
    assert plain("é 日本 α\x07\n") == "é 日本 α  "


def test_large_figures_keep_their_digits() -> None:
    perplexity = metric_named("perplexity.v1")
    assert figure(-10003.0, perplexity) == "-1.000e+04"
    assert figure(1.25e58, perplexity) == "1.250e+58"


def test_a_row_on_too_few_items_is_told_of_and_one_without_values_counts_no_items() -> None:
    rows = [Checkpoint(name, Path(name), "ready", method=name) for name in ("sft", "dpo", "ipo")]
    group = Group("quiz", "quiz", shown=("acc",), higher_is_better={"acc": True})
    items = np.arange(60, dtype=np.int32)
    right = np.tile([0.0, 1.0, 1.0], 20)
    partly = np.where(items < 20, right, np.nan)

    def text(values: np.ndarray) -> str:
        columns = (right, right[::-1].copy(), values)
        cells = [
            Measured(row.name, "quiz", items, items, {"acc": column})
            for row, column in zip(rows, columns, strict=True)
        ]
        return render(build_board(rows, [group], cells), "text")

    assert "too few of the items" in text(partly)
    assert "too few of the items" not in text(right)
    nothing = text(np.full(60, np.nan))
    assert "undefined" in nothing
    assert "0–60" not in nothing


def test_a_table_of_nothing_says_so() -> None:
    row = Checkpoint("sft", Path("sft"), "ready", method="sft")
    text = render(build_board([row], [], []), "text")
    assert "Nothing was measured." in text
    assert "interval" not in text
