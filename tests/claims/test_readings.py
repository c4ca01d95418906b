from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest

from prefbench.boards.scored import board_of
from prefbench.claims.readings import read, readings
from prefbench.leaderboard import Gathered, Measured
from prefbench.records import Checkpoint
from tests.claims.made import N, cell, gathered, margins, pairs, row, share

RNG = np.random.default_rng(5)
NOISE = RNG.normal(size=N)
SFT, DPO = row("sft"), row("dpo", reference="/zoo/sft")


def reading(cells: Sequence[Measured], rows: Sequence[Checkpoint] = (SFT, DPO)) -> str:
    return read(gathered(rows, cells), n_resamples=1000)[rows[-1].name]


def falling(part: float, mean: float | None = None) -> np.ndarray:
    """Changes, so large a part of which are falls; their mean moved by what falls lie far down."""
    delta = np.where(share(part) > 0, -1.0, 1.0) * (1 + 0.1 * np.abs(NOISE))
    if mean is not None:
        falls = delta < 0
        delta[falls] += (mean - delta.mean()) * N / falls.sum()
    return delta


def test_the_words_of_displacement_to_the_letter() -> None:
    said = reading([cell("dpo", "m", margins(falling(0.83), -3.0)), cell("sft", "x", {"q": NOISE})])
    assert said == (
        "DPO, tuned from SFT. On m the chosen log-prob fell on 83 % [78, 88] of the "
        "low-edit-distance pairs: likelihood displacement; its mean change, −0.71 [−0.82, −0.60] "
        "nats, is a fall. Both answers fell on 83 % [78, 88] of all pairs. By its implicit reward "
        "it ranks more than half of the pairs right on m (100 % [98, 100])."
    )


@pytest.mark.parametrize(
    ("part", "mean", "says", "keeps_quiet_of"),
    [
        (0.83, None, ": likelihood displacement; its mean change", "cannot be told"),
        (0.53, None, ": whether on most of them cannot be told", "displacement"),
        (0.10, None, ", less than half", "displacement"),
        (0.53, None, "may be none", "is a fall"),
        (0.10, None, "is a rise", "is a fall"),
        (0.10, -2.0, "is a fall", "displacement"),
    ],
)
def test_words_hang_on_the_interval(
    part: float, mean: float | None, says: str, keeps_quiet_of: str
) -> None:
    said = reading([cell("dpo", "m", margins(falling(part, mean), -9.0))])
    assert says in said
    assert keeps_quiet_of not in said


def test_a_mean_that_rises_is_no_displacement() -> None:
    """Most fall by little, some rise by much."""
    delta = np.where(share(0.7) > 0, -0.1, 9.0) + 0.01 * NOISE
    said = reading([cell("dpo", "m", margins(delta, -9.0))])
    assert "fell on 70 %" in said
    assert "is a rise" in said
    assert "displacement" not in said


def test_all_pairs_where_few_are_of_low_distance() -> None:
    said = reading([cell("dpo", "m", margins(falling(0.9), -3.0, low=share(0.05)))])
    assert "of the pairs: likelihood displacement" in said
    assert "low-edit" not in said


def test_against_the_reference_or_the_baseline_by_name() -> None:
    more = 0.02 * RNG.normal(size=N)
    cells = [
        cell("sft", "p", pairs(1.5, 0.7, NOISE)),
        cell("sft", "q", pairs(1.5, 0.7, NOISE)),
        cell("dpo", "p", pairs(1.9, 1.7, NOISE + more)),
        cell("dpo", "q", pairs(1.5, 0.7, NOISE)),
    ]
    said = reading(cells)
    assert said.startswith("DPO, tuned from SFT. Against SFT, perplexity is higher on p (+0.40 [")
    assert "; shows no difference on q (0.00 [0.00, 0.00]). Agility is higher on p (+1.00" in said
    assert said.endswith("On p, higher agility comes with worse perplexity.")
    alone = reading(cells, [SFT, row("dpo", reference="/elsewhere/base")])
    assert alone.startswith("DPO. Against SFT, perplexity is higher")
    swapped = [dataclasses.replace(one, checkpoint={"sft": "dpo", "dpo": "sft"}[one.checkpoint])
               for one in cells]  # fmt: skip
    assert "perplexity is lower on p (−0.40" in reading(swapped)
    assert "comes with" not in reading(swapped)


def test_differences_that_may_be_none() -> None:
    cells = [
        cell("sft", "p", pairs(1.5, 0.7, NOISE)),
        cell("dpo", "p", pairs(1.505, 0.7, NOISE + 0.2 * RNG.normal(size=N))),
    ]
    said = reading(cells)
    assert "perplexity may be the same on p" in said
    assert "higher" not in said
    assert "lower" not in said


def test_win_rates_right_answers_and_candidates() -> None:
    cells = [
        cell("sft", "w", {"win": 0.5}),
        cell("dpo", "w", {"win": share(0.7)}),
        cell("sft", "a", {"exact_match,strict-match": share(0.9)}),
        cell("dpo", "a", {"exact_match,strict-match": share(0.6)}),
        cell("dpo", "r", {"kendall_tau": 0.5 + 0.1 * NOISE}),
    ]
    data = gathered([SFT, DPO], cells, {"a": {"shown": ("exact_match,strict-match",)}})
    found = read(data, n_resamples=1000)
    assert found["sft"] == "SFT is what others are compared with."
    assert "It wins more often than it loses on w (70 % [64, 76])." in found["dpo"]
    assert "the share of right answers is lower on a (−30 points [−36, −24])." in found["dpo"]
    assert (
        "its log-probs rank candidates as their rewards do on r (0.49 [0.48, 0.51])" in found["dpo"]
    )


def test_no_two_bounds_read_as_what_they_are_not() -> None:
    """49.6 to 50.4 would read as 50, which the interval holds all the same; 50.3 must not."""
    rng = np.random.default_rng(8)
    n = 20_000
    wins = rng.permutation(share(0.51, n))
    said = read(gathered([DPO], [cell("dpo", "w", {"win": wins})]), n_resamples=1000)["dpo"]
    assert "wins more often than it loses on w (51.0 % [50.3, 51.7])" in said


def test_a_paragraph_for_each_row_of_a_board() -> None:
    cells = [cell("dpo", "m", margins(falling(0.83), -3.0))]
    data = gathered([SFT, DPO, row("ipo")], cells)
    found = readings(data, board_of(data, n_resamples=100))
    assert list(found) == ["dpo"]  # of the others nothing was measured at all
    assert "83 %" in found["dpo"]
    odd = gathered([row("kto")], [cell("kto", "t", {"unknown": NOISE})])
    assert read(odd)["kto"] == "KTO: nothing was measured that can be read here."
    assert read(Gathered((), (), ())) == {}


def test_readings_of_nothing_seldom_say_anything() -> None:
    """Of intervals at 95 % over pure chance, about one sentence in twenty takes a side."""
    rng = np.random.default_rng(6)
    sides = []
    for _ in range(60):
        delta = rng.standard_t(4, size=100)
        said = read(
            gathered([DPO], [cell("dpo", "m", margins(delta, delta[::-1]))]), n_resamples=300
        )["dpo"]
        sides += [
            "whether on most" not in said,
            "may be none" not in said,
            "perhaps half right" not in said,
        ]
    assert 0 < np.mean(sides) < 0.05 + 3 * np.sqrt(0.05 * 0.95 / len(sides))


def test_many_tasks_are_told_together() -> None:
    cells = [
        cell("dpo", "arith", margins(falling(0.9), -3.0)),
        cell("dpo", "talk", margins(falling(0.8), -3.0, low=share(0.05))),
        cell("dpo", "plot", margins(falling(0.7), -3.0, low=share(0.05))),
        *(cell("dpo", f"w_t{t:g}, against sft by j", {"win": share(w)})
          for t, w in ((0, 0.7), (0.5, 0.8), (1, 0.3))),
        cell("dpo", "g", {"cosine": 0.5 + 0.1 * NOISE, "chosen_agrees": share(0.9),
                          "rejected_agrees": share(0.95)}),
    ]  # fmt: skip
    said = reading(cells)
    assert "On arith the chosen log-prob fell on 90 %" in said
    assert "The chosen log-prob fell on most pairs of talk and plot (from 70 % [64, 76] to" in said
    assert (
        "Against sft by j, it wins more often than it loses on w at temperature 0 and 0.5 (from "
        "70 % [64, 76] to 80 % [74, 86]); loses more often than it wins on w at temperature 1 ("
    ) in said
    assert "moves both answers as predicted on more than half of the pairs of g (at least 90 %" in (
        said
    )
