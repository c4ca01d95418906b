from __future__ import annotations

import csv
import dataclasses
import io
import json
import math

import numpy as np
import pytest

from prefbench.boards.contrasts import Contrast, contrast
from prefbench.boards.scored import board_of
from prefbench.errors import InputError
from prefbench.leaderboard import Gathered, Measured
from prefbench.report.compare import STYLES, Told, notes_of, p_value
from prefbench.stats.estimates import Estimate
from tests.boards.test_pooled import QUIZ, TEXT, cell, gathered, row

HOSTILE = "evil\x1b[31m|`<script>\u202e"


def right_or_wrong(rng: np.random.Generator, *shares: float) -> Gathered:
    rows = [row(name, name) for name in ("sft", "dpo", "ipo")[: len(shares)]]
    cells = [
        cell(one, QUIZ, (rng.random(200) < share).astype(float))
        for one, share in zip(rows, shares, strict=True)
    ]
    return Gathered(tuple(rows), (QUIZ,), tuple(cells))


def test_a_contrast_is_the_boards_difference() -> None:
    whole = gathered()
    (quiz, _) = contrast(whole, ["dpo-s0", "sft"], n_resamples=300)
    board = board_of(whole, baseline="sft", n_resamples=300)
    assert quiz.difference == board.entries["dpo-s0", quiz.column.key].difference
    assert quiz.better(0.05) == "dpo-s0"
    assert quiz.needed == 0


def test_the_direction_is_the_metrics() -> None:
    quiz, text = contrast(gathered(), ["ipo", "sft"], n_resamples=300)
    assert quiz.difference.value < 0
    assert text.difference.value > 0  # a loss
    assert quiz.better(0.05) == text.better(0.05) == "sft"


def test_swapped_rows_swap_the_difference() -> None:
    forth = contrast(gathered(), ["ipo", "sft"], n_resamples=300)
    back = contrast(gathered(), ["sft", "ipo"], n_resamples=300)
    for one, other in zip(forth, back, strict=True):
        assert one.difference.value == -other.difference.value
        assert (one.difference.low, one.difference.high) == pytest.approx(
            (-other.difference.high, -other.difference.low)
        )
        assert one.p == pytest.approx(other.p)


def test_noise_is_known_from_a_row_that_is_not_compared() -> None:
    whole = gathered()
    sft = next(one for one in whole.measured if (one.checkpoint, one.group) == ("sft", "quiz"))
    again = dataclasses.replace(sft, quantities={"acc": sft.quantities["acc"] + 5})
    noisy = dataclasses.replace(whole, repeated=(again,))
    quiz, _ = contrast(noisy, ["dpo-s0", "ipo"], n_resamples=300)
    assert quiz.noise == pytest.approx(5)
    assert quiz.better(0.05) == "noise"


def test_the_notes_say_the_level_and_count_what_was_tested() -> None:
    whole = gathered()
    (quiz, text) = contrast(whole, ["dpo-s0", "sft"], confidence=0.995, n_resamples=300)
    untested = dataclasses.replace(text, p=math.nan)
    said = " ".join(notes_of(Told((quiz, untested), "holm", 0.995)))
    assert "99.5% bootstrap intervals" in said
    assert "for 1 comparison" in said
    assert "below 0.005" in said


def test_each_two_of_three_rows_are_one_family() -> None:
    rng = np.random.default_rng(4)
    whole = right_or_wrong(rng, 0.5, 0.55, 0.7)
    found = contrast(whole, ["ipo", "dpo", "sft"], n_resamples=300)
    assert [(one.first, one.second) for one in found] == [
        ("ipo", "dpo"),
        ("ipo", "sft"),
        ("dpo", "sft"),
    ]
    raw = [one.difference.p for one in found]
    assert found[int(np.argmin(raw))].p == pytest.approx(3 * min(raw))
    plain = contrast(whole, ["ipo", "dpo", "sft"], n_resamples=300, correction="none")
    assert [one.p for one in plain] == raw


def test_right_and_wrong_items_are_counted() -> None:
    whole = right_or_wrong(np.random.default_rng(1), 0.5, 0.6)
    (one,) = contrast(whole, ["dpo", "sft"], n_resamples=300)
    sft, dpo = (m.quantities["acc"] for m in whole.measured)
    assert (one.only_first, one.only_second) == (((dpo > sft).sum()), ((sft > dpo).sum()))
    (values, _) = contrast(gathered(), ["ipo", "sft"], n_resamples=300)
    assert values.only_first is None


def test_items_that_one_lacks_do_not_count() -> None:
    whole = right_or_wrong(np.random.default_rng(1), 0.5, 0.6)
    values = whole.measured[1].quantities["acc"].copy()
    values[:20] = np.nan
    lacking = dataclasses.replace(whole.measured[1], quantities={"acc": values})
    (one,) = contrast(
        dataclasses.replace(whole, measured=(whole.measured[0], lacking)),
        ["dpo", "sft"],
        n_resamples=300,
    )
    assert (one.difference.n, one.difference.n_missing) == (180, 20)
    sft = whole.measured[0].quantities["acc"][20:]
    assert one.only_first == (values[20:] > sft).sum()


def test_values_that_came_without_items_are_compared_unpaired() -> None:
    whole = right_or_wrong(np.random.default_rng(1), 0.5)
    items = np.zeros(0, np.int32)
    old = Measured(
        "old", "quiz", items, items, {}, given={"acc": Estimate(0.9, 0.86, 0.94, 200, se=0.02)}
    )
    rows = (*whole.checkpoints, row("old", "dpo"))
    (one,) = contrast(
        dataclasses.replace(whole, checkpoints=rows, measured=(*whole.measured, old)),
        ["old", "sft"],
        n_resamples=300,
    )
    own = one.values[1].se
    assert one.difference.method == "unpaired"
    assert one.difference.se == pytest.approx(math.hypot(0.02, own))
    assert one.better(0.05) == "old"


def test_a_difference_below_the_engines_noise_is_no_finding() -> None:
    whole = gathered()
    first = next(m for m in whole.measured if (m.checkpoint, m.group) == ("sft", "quiz"))
    again = dataclasses.replace(first, quantities={"acc": first.quantities["acc"] + 5})
    noisy = dataclasses.replace(whole, repeated=(again,))
    quiz, text = contrast(noisy, ["dpo-s0", "sft"], n_resamples=300)
    assert quiz.noise == pytest.approx(5)
    assert quiz.better(0.05) == "noise"
    assert text.noise is None
    assert text.better(0.05) == "dpo-s0"


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (["sft"], "two rows or more"),
        (["sft", "sft"], "each once"),
        (["sft", "SFT"], "each once"),
        (["sft", "nobody"], "'nobody' names no checkpoint"),
        (["sft", "dpo"], "names 3 checkpoints: dpo-s0, dpo-s1, dpo-s2"),
    ],
)
def test_rows_that_cannot_be_compared_are_refused(rows: list[str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        contrast(gathered(), rows)


def test_rows_without_a_common_task_have_nothing_to_compare() -> None:
    whole = gathered()
    apart = tuple(
        one
        for one in whole.measured
        if one.checkpoint not in ("sft", "ipo")
        or (one.checkpoint, one.group) in (("sft", QUIZ.name), ("ipo", TEXT.name))
    )
    found = contrast(dataclasses.replace(whole, measured=apart), ["sft", "ipo"])
    assert found == []
    assert "Nothing to compare" in STYLES["text"](Told((), "holm", 0.95), 100)


# --- as text


def told(**facts: object) -> Told:
    found = contrast(gathered(), ["dpo-s0", "sft", "ipo"], n_resamples=300)
    return Told(tuple(dataclasses.replace(one, **facts) for one in found), "holm", 0.95)


@pytest.mark.parametrize("style", STYLES)
def test_hostile_names_do_nothing(style: str) -> None:
    text = STYLES[style](told(first=HOSTILE), 200)
    assert "\x1b" not in text
    assert "\u202e" not in text
    if style == "markdown":
        assert "<script>" not in text


def test_a_text_table_fits_its_width() -> None:
    for width in (70, 110):
        lines = STYLES["text"](told(), width).partition("Differences on")[0].splitlines()
        assert max(map(len, lines)) <= width


def test_csv_and_json_say_the_same() -> None:
    rows = list(csv.DictReader(io.StringIO(STYLES["csv"](told(), 100))))
    whole = json.loads(STYLES["json"](told(), 100))
    assert len(rows) == len(whole["rows"]) == 6
    for flat, one in zip(rows, whole["rows"], strict=True):
        assert float(flat["difference"]) == one["difference"]
        assert one["p"] <= one["p_corrected"]


def test_a_p_value_is_never_written_as_zero() -> None:
    assert [p_value(p) for p in (0.0, 1e-9, 0.0456, 1.0, math.nan)] == [
        "<0.001",
        "<0.001",
        "0.046",
        "1.000",
        "—",
    ]


def test_further_items_are_told_where_two_are_not_separated() -> None:
    one = told().contrasts[0]
    assert isinstance(one, Contrast)
    apart = dataclasses.replace(one, needed=1234, p=0.2)
    assert "+1,234" in STYLES["text"](Told((apart,), "holm", 0.95), 200)
