"""What a table shows: marks, letters and families of comparisons, on boards with known answers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from prefbench.boards.shown import Shown, show
from prefbench.errors import InputError
from prefbench.leaderboard import Board, Contest, Group, Measured
from prefbench.records import Checkpoint
from prefbench.stats.bootstrap import Resampling
from prefbench.stats.corrections import corrected
from prefbench.stats.estimates import Estimate
from prefbench.stats.pairs import MANY
from prefbench.stats.significance import bootstrap_p, detectable, items_needed
from tests.boards.made import build_board

N = 80
RNG = np.random.default_rng(0)
NOISE = RNG.normal(size=N)
"""What is hard or easy for all checkpoints."""


def names(k: int) -> list[str]:
    return ["sft", *(f"dpo{i}" for i in range(1, k))]


def row(name: str) -> Checkpoint:
    return Checkpoint(name, Path(name), "ready", method=name.rstrip("0123456789"))


def cell(name: str, values: np.ndarray, group: str = "quiz", **more: object) -> Measured:
    items = np.arange(len(values), dtype=np.int32)
    return Measured(name, group, items, items.astype(str), {"score": values}, **more)  # type: ignore[arg-type]


def board_of(
    values: dict[str, np.ndarray],
    *more: Measured,
    better: bool | None = True,
    n_resamples: int = 500,
    **settings: object,
) -> Board:
    """A board of one column, `score`, whose cells are the values by checkpoint."""
    direction = {} if better is None else {"score": better}
    group = Group("quiz", "quiz", shown=("score",), higher_is_better=direction)
    cells = [cell(name, one) for name, one in values.items()]
    rows = {one.checkpoint: row(one.checkpoint) for one in [*cells, *more]}
    return build_board(
        list(rows.values()),
        [group],
        [*cells, *more],
        n_resamples=n_resamples,
        **settings,  # type: ignore[arg-type]
    )


def shifted(*steps: float, noise: float = 0.3) -> dict[str, np.ndarray]:
    """The baseline and others beside it, as far as told, each with noise of its own."""
    rng = np.random.default_rng(1)
    return {
        name: NOISE + step + noise * rng.normal(size=N)
        for name, step in zip(names(1 + len(steps)), [0.0, *steps], strict=True)
    }


def told(shown: Shown, what: str) -> dict[str, object]:
    (column,) = shown.columns
    return {one.name: getattr(shown, what)(one, column) for one in shown.board.rows}


def test_marks_follow_the_direction_of_the_metric() -> None:
    values = shifted(1.0, -1.0, 0.0)
    marks = {
        better: list(told(show(board_of(values, better=better)), "verdict").values())
        for better in (True, False, None)
    }
    assert marks == {
        True: ["", "better", "worse", ""],
        False: ["", "worse", "better", ""],
        None: ["", "different", "different", ""],
    }


def test_a_metric_without_direction_has_no_letters_and_a_smaller_family() -> None:
    shown = show(board_of(shifted(1.0, -1.0, 0.0), better=None))
    assert set(told(shown, "letters").values()) == {""}
    assert set(told(shown, "in_best_group").values()) == {False}
    assert shown.n_comparisons == 3


@pytest.mark.parametrize("better", [True, False])
def test_letters_and_the_best_group(better: bool) -> None:
    shown = show(board_of(shifted(1.0, 1.05, -1.0), better=better))
    letters = {True: "baac", False: "bcca"}[better]
    assert "".join(map(str, told(shown, "letters").values())) == letters
    assert list(told(shown, "in_best_group").values()) == [one == "a" for one in letters]


def test_the_family_is_all_pairs_of_all_shown_columns() -> None:
    group = Group("quiz", "quiz", shown=("score", "other"), higher_is_better={"score": True})
    cells = [
        replace(one, quantities={**one.quantities, "other": RNG.random(N), "hidden": NOISE})
        for one in (cell(name, values) for name, values in shifted(0.05, 0.1, 0.15).items())
    ]
    board = build_board([row(name) for name in names(4)], [group], cells, n_resamples=300)
    # Six pairs of the one, three differences to the baseline of the other.
    shown = show(board)
    assert shown.n_comparisons == 9
    assert [column.metric.name for column in shown.columns] == ["score", "other"]
    raw = [
        *(entry.difference.p for entry in board.entries.values() if entry.difference),
        *board.contests["quiz", "score"].pairs.p[1:, 1:][np.triu_indices(3, 1)],
    ]
    hidden = [
        entry.difference.p
        for (_, (_, metric)), entry in board.entries.items()
        if entry.difference and metric == "hidden"
    ]
    for correction in ("holm", "bh", "none"):
        shown = show(board, correction=correction)  # type: ignore[arg-type]
        some = [p for p in raw if p not in hidden]
        expected = dict(zip(some, corrected(some, correction), strict=True))  # type: ignore[arg-type]
        for column in shown.columns:
            for one in board.rows[1:]:
                entry = shown.entry(one, column)
                assert entry is not None
                assert entry.difference is not None
                assert shown.adjusted(one, column) == pytest.approx(expected[entry.difference.p])
    # In all columns there are more comparisons, and no p is smaller for it.
    wider = show(board, everything=True)
    assert wider.n_comparisons == 12
    assert all(
        wider.adjusted(one, column) >= show(board).adjusted(one, column)
        for column in show(board).columns
        for one in board.rows[1:]
    )


def null_families(n_families: int, n_columns: int, k: int) -> np.ndarray:
    """p-values of each two of k checkpoints that are one, measured with fresh noise, by family."""
    rng = np.random.default_rng(0)
    size = (40, n_families, n_columns, k)
    values = rng.normal(size=(*size[:-1], 1)) + rng.gamma(1, 1, size)
    draws = Resampling(np.arange(40), n_resamples=300, seed=0).sums(values) / 40
    own = values.mean(axis=0)
    return np.concatenate(
        [
            bootstrap_p(own[..., :1] - own[..., 1:], draws[..., :1] - draws[..., 1:], 40)
            for own, draws in ((own[..., i:], draws[..., i:]) for i in range(k - 1))
        ],
        axis=-1,
    ).reshape(n_families, -1)


def test_identical_checkpoints_differ_in_at_most_one_of_twenty_tables() -> None:
    """Eight checkpoints that are one and the same, twelve columns, 336 comparisons a table."""
    p = null_families(200, 12, 8)
    assert p.shape == (200, 336)
    some = {
        correction: np.mean([(corrected(one, correction) < 0.05).any() for one in p])  # type: ignore[arg-type]
        for correction in ("holm", "bh", "none")
    }
    error = 3 * np.sqrt(0.05 * 0.95 / len(p))
    assert some["holm"] <= 0.05 + error
    assert some["bh"] <= 0.05 + error
    assert some["none"] > 0.95


def test_boards_of_identical_checkpoints_show_nothing() -> None:
    rng = np.random.default_rng(0)
    groups = [
        Group(f"quiz{g}", f"quiz{g}", shown=(name,), higher_is_better={name: True})
        for g, name in enumerate(["score", "acc"] * 6)
    ]
    rows = [row(name) for name in names(8)]
    n_marked, n_uncorrected, n_boards = 0, 0, 8
    for _ in range(n_boards):
        cells = []
        for group in groups:
            hard = rng.random(60)
            for one in rows:
                values = (
                    (rng.random(60) < hard).astype(float)
                    if group.shown == ("acc",)
                    else hard + rng.gamma(1, 1, 60)
                )
                same = cell(one.name, values, group.name)
                cells.append(replace(same, quantities={group.shown[0]: values}))
        board = build_board(rows, groups, cells, n_resamples=200)
        shown, bare = show(board), show(board, correction="none")
        assert shown.n_comparisons == 12 * 28
        n_marked += any(len(set(one.letters.values())) > 1 for one in shown.rivals.values())
        n_uncorrected += any(len(set(one.letters.values())) > 1 for one in bare.rivals.values())
    # One in twenty is expected; three or more of eight are at 1 in 170.
    assert n_marked <= 2
    assert n_uncorrected == n_boards


def test_a_row_that_is_marked_shares_no_letter_with_the_baseline() -> None:
    rng = np.random.default_rng(2)
    n_marked = n_alike = 0
    for _ in range(15):
        shown = show(board_of(shifted(*rng.normal(0, 0.25, 6), noise=0.6), n_resamples=300))
        (column,) = shown.columns
        base, *others = shown.board.rows
        for one in others:
            marked = shown.verdict(one, column) != ""
            shared = set(shown.letters(one, column)) & set(shown.letters(base, column))
            assert marked == (not shared)
            n_marked, n_alike = n_marked + marked, n_alike + (not marked)
        best = {one.name for one in shown.board.rows if shown.in_best_group(one, column)}
        assert best == {
            one.name for one in shown.board.rows if "a" in shown.letters(one, column)
        } | {shown.rivals[column.key].rows[0]}
    assert min(n_marked, n_alike) > 10


def test_below_the_noise_of_the_engine() -> None:
    values = shifted(0.4, 1.0, 0.0)
    again = values["sft"] + 0.5
    board = board_of(values, repeated=[cell("sft", again)])
    assert board.noise == {("quiz", "score"): pytest.approx(0.5)}
    assert list(told(show(board), "verdict").values()) == ["", "noise", "better", ""]
    assert "twice" in show(board).notes()[-1]
    assert "twice" not in " ".join(show(board_of(values)).notes())


def test_rows_with_missing_items_are_compared_on_what_all_have() -> None:
    values = shifted(1.0, -1.0, 0.0)
    values["dpo1"][:10] = np.nan
    values["dpo2"][20:] = np.nan
    board = board_of(values)
    shown = show(board)
    # dpo2 has a quarter of the items: too few for all others to be held to them.
    contest = board.contests["quiz", "score"]
    assert contest.rows == ("sft", "dpo1", "dpo3")
    assert contest.pairs.n == N - 10
    assert list(told(shown, "verdict").values()) == ["", "better", "worse", ""]
    assert list(told(shown, "letters").values()) == ["b", "a", "", "b"]
    assert list(told(shown, "in_best_group").values()) == [False, True, False, False]
    assert shown.n_comparisons == 4


@pytest.mark.parametrize("n_parts", [2, 3])
def test_rows_that_share_no_items_are_not_compared(n_parts: int) -> None:
    cells = []
    for part, name in enumerate(names(n_parts)):
        items = np.arange(20, dtype=np.int32) + 20 * part
        cells.append(Measured(name, "quiz", items, items.astype(str), {"score": RNG.random(20)}))
    shown = show(board_of({}, *cells))
    assert shown.n_comparisons == 0
    assert set(told(shown, "letters").values()) == {""}
    assert set(told(shown, "in_best_group").values()) == {False}
    assert set(told(shown, "items_needed").values()) == {None}
    assert shown.detectable(shown.columns[0]) is None


def test_more_rows_than_letters_are_for() -> None:
    k = MANY + 2
    steps = [*np.linspace(-0.1, 0.1, k - 3), 3.0, 3.05]
    board = board_of(shifted(*steps), n_resamples=200)
    shown = show(board)
    assert set(told(shown, "letters").values()) == {""}
    # Each with the baseline, and with the best and the worst.
    assert shown.n_comparisons == (k - 1) + (k - 2) + (k - 3)
    best = told(shown, "in_best_group")
    assert [name for name, inside in best.items() if inside] == names(k)[-2:]
    assert told(shown, "verdict")[names(k)[-1]] == "better"
    # One that lacks an item on which all others failed looks best. It was compared with few; who
    # may be as good as the best is told by the best on the items that all have.
    values = shifted(*steps)
    for name, one in values.items():
        one[0] = np.nan if name == "dpo5" else -300.0
    shown = show(board_of(values, n_resamples=200))
    assert shown.rivals["quiz", "score"].rows[0] == "dpo5"
    inside = [name for name, one in told(shown, "in_best_group").items() if one]
    assert set(inside) == {"dpo5", *names(k)[-2:]}


def test_a_comparison_that_ended_when_sure_is_not_compared() -> None:
    values = shifted(1.0, -1.0)
    sure = cell("dpo3", values["dpo1"], sure=Estimate(0.6, 0.51, 0.7, 40))
    shown = show(board_of(values, sure))
    assert list(told(shown, "verdict").values()) == ["", "better", "worse", ""]
    assert list(told(shown, "letters").values()) == ["b", "a", "c", ""]
    assert shown.n_comparisons == 3
    assert told(shown, "items_needed")["dpo3"] is None


def given(name: str, value: float, se: float) -> Measured:
    none = np.zeros(0, dtype=np.int32)
    reach = 1.96 * se
    estimate = Estimate(value, value - reach, value + reach, 500, method="given", se=se)
    return Measured(name, "quiz", none, none.astype(str), {}, given={"score": estimate})


def test_values_without_items_are_compared_unpaired() -> None:
    values = shifted(1.0)
    mean = values["sft"].mean()
    cells = [given("dpo2", mean + 2, 0.1), given("dpo3", mean + 0.1, 0.1)]
    cells.append(given("dpo4", mean + 2, np.nan))
    shown = show(board_of(values, *cells))
    assert list(told(shown, "verdict").values()) == ["", "better", "better", "", ""]
    # They have no letters: nobody else was compared with them.
    assert list(told(shown, "letters").values()) == ["b", "a", "", "", ""]
    assert shown.n_comparisons == 3
    assert any("cannot be paired" in line for line in shown.notes())
    assert not any("cannot be paired" in line for line in show(board_of(values)).notes())


def test_what_would_be_detectable() -> None:
    board = board_of(shifted(0.4, 0.05, 0.05))
    (column,) = board.columns
    errors = [entry.difference.se for entry in board.entries.values() if entry.difference]
    for correction, level in (("holm", 0.05 / 6), ("bh", 0.05 / 6), ("none", 0.05)):
        found = show(board, correction=correction).detectable(column)  # type: ignore[arg-type]
        assert found == pytest.approx(detectable(float(np.median(errors)), alpha=level))
    same = dict.fromkeys(names(3), NOISE)
    assert show(board_of(same)).detectable(column) is None


def test_items_that_are_needed() -> None:
    values = shifted(1.0, 0.03)
    values["dpo3"] = values["sft"]
    shown = show(board_of(values))
    needed = told(shown, "items_needed")
    gap = shown.entry(row("dpo2"), shown.columns[0]).difference  # type: ignore[union-attr]
    assert gap is not None
    assert needed == {
        "sft": None,
        "dpo1": 0,
        "dpo2": int(items_needed(gap.value, gap.se, N, alpha=0.05 / 6)),
        "dpo3": None,
    }
    assert needed["dpo2"] > 100  # type: ignore[operator]


def test_a_steady_difference_on_too_few_items_needs_more() -> None:
    rng = np.random.default_rng(0)
    sft = rng.normal(size=5)
    shown = show(board_of({"sft": sft, "dpo1": sft + 1 + 0.01 * rng.normal(size=5)}))
    assert told(shown, "verdict")["dpo1"] == ""
    assert told(shown, "items_needed")["dpo1"] == 1


def test_without_a_baseline_there_are_letters_and_no_marks() -> None:
    values = {f"dpo{i}": NOISE + i + 0.1 * RNG.normal(size=N) for i in range(3)}
    shown = show(board_of(values))
    assert shown.board.baseline is None
    assert list(told(shown, "letters").values()) == ["c", "b", "a"]
    assert set(told(shown, "verdict").values()) == {""}
    assert shown.n_comparisons == 3
    assert "▲" not in " ".join(shown.notes())


def test_a_value_that_is_undefined_does_not_disturb_the_order() -> None:
    values = {**shifted(1.0, 2.0, 3.0), "dpo4": np.full(N, np.nan)}
    board = board_of(values)
    key = board.columns[0].key
    # As of a round robin in which one never lost: a rival without a value, in the middle.
    some = [0, 1, 3, 2]
    contest = board.contests[key]
    pairs = contest.pairs
    again = Contest(
        ("dpo1", "dpo4", "dpo3", "dpo2"),
        pairs._replace(**{part: getattr(pairs, part)[np.ix_(some, some)] for part in ("se", "p")}),
    )
    rivals = show(replace(board, contests={key: again})).rivals[key]
    assert "dpo4" not in rivals.rows
    assert rivals.rows == ("dpo3", "dpo2", "dpo1")


def test_notes() -> None:
    lines = show(board_of(shifted(1.0, 0.0))).notes()
    assert lines == [
        "Values with 95% bootstrap intervals over items; percentages for shares.",
        "Differences are paired on the same items, and tested at 5% with Holm's correction for the "
        "3 comparisons of this table.",
        "▲ better, ▼ worse, ≠ different from sft.",
        "Rows that share a letter may be alike; the best has an a.",
        "Detectable: a difference to the baseline that these items show with 80% power.",
    ]
    board = board_of(shifted(1.0), confidence=0.999)
    lines = show(board, correction="bh").notes()
    assert "99.9% bootstrap" in lines[0]
    assert "at 0.1% with Benjamini and Hochberg's correction for the one comparison" in lines[1]
    assert "no correction for" in show(board, correction="none").notes()[1]
    assert show(board_of({"sft": NOISE})).notes() == [
        "Values with 95% bootstrap intervals over items; percentages for shares."
    ]


def test_message() -> None:
    for board in (board_of(shifted(1.0)), board_of({"sft": NOISE})):
        with pytest.raises(InputError, match="correction is one of holm, bh, none, not 'fdr'"):
            show(board, correction="fdr")  # type: ignore[arg-type]
