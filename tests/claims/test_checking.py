from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from scipy.stats import binom, spearmanr

from prefbench.claims.checking import Checked, check
from prefbench.claims.claim import Claim, Line
from prefbench.claims.drawing import FEWEST
from prefbench.claims.literature import CLAIMS, claims_named
from prefbench.errors import InputError
from prefbench.leaderboard import Gathered, Measured
from prefbench.records import Checkpoint
from tests.claims.made import N, cell, gathered, margins, pairs, row, share
from tests.claims.nothing import world

RNG = np.random.default_rng(11)
NOISE = 0.3 * RNG.normal(size=N)
SFT = row("sft")
DPO = row("dpo", reference="/zoo/sft")
DPOP = row("dpop", reference="/zoo/sft")


def about(
    name: str,
    cells: Sequence[Measured],
    rows: Sequence[Checkpoint] = (SFT, DPO, DPOP),
    **asked: Any,
) -> Checked:
    """What comes of one claim."""
    return check(gathered(rows, cells), claims=claims_named([name]), n_resamples=1000, **asked)


def verdicts(checked: Checked) -> dict[tuple[str, str], str]:
    return {(line.row, line.task): line.verdict for line in checked.lines}


def only(checked: Checked) -> Line:
    (line,) = checked.lines
    return line


def falling(part: float, by: float = 2.0) -> np.ndarray:
    """Changes of log-probs, so large a part of which are falls."""
    return np.where(share(part) > 0, -by, by) + NOISE


@pytest.mark.parametrize(
    ("part", "verdict"), [(0.83, "holds"), (0.52, "not shown"), (0.17, "does not hold")]
)
def test_displacement_by_the_share_of_low_edit_pairs(part: float, verdict: str) -> None:
    line = only(about("displacement", [cell("dpo", "m", margins(falling(part), -3.0))]))
    assert (line.row, line.task, line.verdict) == ("dpo", "m", verdict)
    (found,) = line.findings
    assert found.estimate.value == pytest.approx(part)
    assert found.estimate.low < part < found.estimate.high
    exact = min(1.0, 2 * binom.cdf(round(N * min(part, 1 - part)), N, 0.5))
    assert found.p == pytest.approx(exact)  # items are independent and 0 or 1: the sign test
    ((number, mean),) = line.shown
    assert number.name == "delta_chosen@low_edit"
    assert mean.value == pytest.approx(falling(part).mean())


def test_only_low_edit_pairs_count() -> None:
    """On the other pairs all rises, which must change nothing."""
    low = share(0.3)
    delta = np.where(low > 0, -2.0, 5.0) + NOISE
    line = only(about("displacement", [cell("dpo", "m", margins(delta, -3.0, low=low))]))
    assert line.verdict == "holds"
    (found,) = line.findings
    assert (found.estimate.value, found.estimate.n) == (1.0, 60)
    assert found.estimate.low == pytest.approx(0.94, abs=0.01)  # Wilson's, of 60 and not of 200


def test_too_few_low_edit_pairs() -> None:
    low = share((FEWEST - 1) / N)
    line = only(about("displacement", [cell("dpo", "m", margins(falling(0.9), -3.0, low=low))]))
    assert line.verdict == "cannot be checked"
    assert line.why == "of low edit distance there are 19 items; 20 are needed"


def test_dpop_beside_dpo_is_paired() -> None:
    """Shares of 40 and 48 %, of which unpaired samples could not be told apart."""
    cells = [
        cell("dpo", "m", margins(falling(0.48), -3.0)),
        cell("dpop", "m", margins(falling(0.40), -3.0)),
    ]
    line = only(about("dpop-dpo", cells))
    (found,) = line.findings
    assert (line.verdict, found.other) == ("holds", "dpo")
    assert found.estimate.value == pytest.approx(-0.08)
    assert found.p == pytest.approx(2 * 0.5**16)  # 16 pairs differ, all one way: McNemar's
    swapped = [dataclasses.replace(one, checkpoint=other) for one, other in
               zip(cells, ("dpop", "dpo"), strict=True)]  # fmt: skip
    assert only(about("dpop-dpo", swapped)).verdict == "does not hold"
    assert only(about("dpop-dpo", cells[1:])).why == "no DPO row was measured"
    elsewhere = cell("dpo", "other", margins(falling(0.5), -3.0))
    line = only(about("dpop-dpo", [*cells[1:], elsewhere]))
    assert (line.task, line.why) == ("m", "DPO was not measured on it")


@pytest.mark.parametrize(
    ("perplexity", "agility", "verdict"),
    [
        (1.4, 0.9, "holds"),
        (1.6, 0.9, "does not hold"),
        (1.4, 0.5, "does not hold"),
        (1.5, 0.9, "not shown"),
    ],
)
def test_both_of_two_questions(perplexity: float, agility: float, verdict: str) -> None:
    more = 0.1 * RNG.normal(size=N)
    rows = [SFT, row("exmate", reference="/zoo/base")]
    cells = [
        cell("sft", "p", pairs(1.5, 0.7, NOISE)),
        cell("exmate", "p", pairs(perplexity, agility, NOISE + more)),
    ]
    line = only(about("exmate", cells, rows))
    assert line.verdict == verdict
    gap = line.findings[0].estimate
    assert gap.value == pytest.approx(perplexity - 1.5, abs=1e-9)
    assert [one.other for one in line.findings] == ["sft", "sft"]


def test_compared_with_what_it_was_tuned_from_else_with_the_baseline() -> None:
    other = row("sft2", "sft")
    cells = [cell(name, "p", pairs(1.5, 0.7, NOISE)) for name in ("sft", "sft2", "dpo")]
    rows = [SFT, other, row("dpo", reference="/zoo/sft2")]
    line = only(about("dpo-perplexity", cells, rows))
    assert line.findings[0].other == "sft2"
    unknown = [SFT, other, row("dpo")]
    line = only(about("dpo-perplexity", cells, unknown))
    assert line.why == "there is not one SFT row; --baseline names one"
    line = only(about("dpo-perplexity", cells, unknown, baseline="sft2"))
    assert line.findings[0].other == "sft2"
    with pytest.raises(InputError, match="no checkpoint"):
        about("dpo-perplexity", cells, rows, baseline="kto")


def test_one_line_per_task_that_has_the_quantities_whatever_its_name() -> None:
    cells = [
        cell("dpo", "anything", margins(falling(0.9), -3.0)),
        cell("dpo", "pairs alone", pairs(1.5, 0.7, NOISE)),
        cell("dpo", "something", margins(falling(0.1), -3.0)),
    ]
    found = verdicts(about("displacement", cells))
    assert found == {("dpo", "anything"): "holds", ("dpo", "something"): "does not hold"}


def test_the_same_items_are_asked_once() -> None:
    """Pairs beside their reference have all that the pairs alone have."""
    names, noise = ("sft", "dpo"), NOISE + 0.05 * RNG.normal(size=N)
    alone = [
        cell(name, "p", pairs(1.5, 0.7, x)) for name, x in zip(names, (NOISE, noise), strict=True)
    ]
    again = [cell(one.checkpoint, "m", {**one.quantities, "delta_chosen": NOISE}) for one in alone]
    checked = about("dpo-perplexity", [*alone, *again])
    assert [line.task for line in checked.lines] == ["p"]
    other = {**again[1].quantities, "sum_logp_chosen": again[1].quantities["sum_logp_chosen"] - 0.1}
    again[1] = cell("dpo", "m", other)
    assert len(about("dpo-perplexity", [*alone, *again]).lines) == 2


def test_each_run_by_its_last_step() -> None:
    names = ("dpo/checkpoint-9", "dpo/checkpoint-10", "ipo")
    rows = [
        row("dpo/checkpoint-9", "dpo", step=9),
        row("dpo/checkpoint-10", "dpo", step=10),
        row("ipo", step=60),
        row("ipo/checkpoint-60", "ipo", step=60),
    ]
    cells = [cell(one.name, "m", margins(falling(0.9), -3.0)) for one in rows]
    assert [line.row for line in about("displacement", cells, rows).lines] == list(names[1:])
    every = about("displacement", cells, rows, all_steps=True)
    assert len(every.lines) == 4


def gradients(cosine: Any, distance: Any, **more: Any) -> dict[str, Any]:
    cosines, distances = np.broadcast_arrays(np.asarray(cosine) + NOISE, distance)
    bands = {"in@low_edit": distances < 0.1, "in@high_edit": distances >= 0.5}
    return {
        "cosine": cosines,
        "edit_distance": distances,
        **bands,
        **{name.replace("in@", "cosine@"): cosines * there for name, there in bands.items()},
        **more,
    }


def test_entanglement_within_a_task() -> None:
    low = share(0.3) > 0
    distance = np.where(low, 0.05, 0.8)
    line = only(
        about("entanglement", [cell("dpo", "g", gradients(np.where(low, 0.9, 0.2), distance))])
    )
    assert line.verdict == "holds"
    noise = NOISE[low].mean() - NOISE[~low].mean()
    assert line.findings[0].estimate.value == pytest.approx(0.7 + noise)
    assert [number.name for number, _ in line.shown] == ["cosine@low_edit", "cosine@high_edit"]
    line = only(
        about("entanglement", [cell("dpo", "g", gradients(np.where(low, 0.2, 0.9), distance))])
    )
    assert line.verdict == "does not hold"
    line = only(about("entanglement", [cell("dpo", "g", gradients(0.5, 0.05))]))
    assert "of high edit distance there are 0 items" in line.why


def test_entanglement_between_tasks() -> None:
    cells = [
        cell("dpo", "far", gradients(0.2, 0.8)),
        cell("dpo", "near", gradients(0.9, 0.05)),
        cell("dpo", "neither", gradients(0.9, 0.3)),
    ]
    line = only(about("entanglement-tasks", cells))
    (found,) = line.findings
    assert (line.verdict, line.task, found.other) == ("holds", "near", "far")
    assert found.estimate.value == pytest.approx(0.7)
    # Two samples: the variance is the sum of both, though the noise of the items is one.
    assert found.estimate.se == pytest.approx(np.sqrt(2 / N) * NOISE.std(), rel=0.1)
    line = only(about("entanglement-tasks", cells[1:]))
    assert line.why == "no task has a mean edit distance of 0.5 or more"


def test_directions_of_both_answers() -> None:
    good = {"chosen_agrees": share(0.97), "rejected_agrees": share(0.9)}
    assert only(about("direction", [cell("dpo", "g", good)])).verdict == "holds"
    one = {**good, "rejected_agrees": share(0.5)}
    assert only(about("direction", [cell("dpo", "g", one)])).verdict == "not shown"
    assert only(about("direction-adamw", [cell("dpo", "g", good)])).verdict == "cannot be checked"


@pytest.mark.parametrize(
    ("predicted", "verdict"), [(0.85, "holds"), (0.5, "does not hold"), (0.72, "not shown")]
)
def test_as_many_fall_as_predicted(predicted: float, verdict: str) -> None:
    """Seen of 170 of 200, predicted of a sample in another order and of the reference."""
    seen = margins(np.where(share(0.85) > 0, -2.0, 1.0), -1.0)
    seen["edit_distance"] = np.arange(N) / N
    some = RNG.permutation(N)[:150]
    given = {
        "edit_distance": seen["edit_distance"][some],
        "chosen_rises/dpo": 1 - share(predicted, 150),
        "rejected_falls/dpo": np.ones(150),
    }
    cells = [cell("dpo", "m", seen), cell("sft", "g", given)]
    line = only(about("both-fall", cells))
    (found,) = line.findings
    assert (line.verdict, line.task, found.other) == (verdict, "m", "sft")
    assert [one.value for one in found.values] == pytest.approx([predicted, 0.85], abs=0.01)
    apart = [cells[0], cell("sft", "g", {**given, "edit_distance": np.full(150, 0.123)})]
    assert "has its pairs" in only(about("both-fall", apart)).why


def test_without_a_reference_the_norms_predict() -> None:
    seen = margins(np.where(share(0.85) > 0, -2.0, 1.0), -1.0)
    norms = {"inner": 2.0, "norm_chosen": np.where(share(0.85) > 0, 1.0, 1.5), "norm_rejected": 2.0}
    given = {"edit_distance": seen["edit_distance"], **norms}
    line = only(about("both-fall", [cell("dpo", "m", seen), cell("sft", "g", given)]))
    assert [one.value for one in line.findings[0].values] == pytest.approx([0.85, 0.85])
    assert line.verdict == "holds"


def test_ches_beside_edit_distance() -> None:
    delta = RNG.normal(size=N)
    other = RNG.normal(size=N)
    given = {"ches": -delta + 0.3 * other, "edit_distance": other, "delta_chosen": delta}
    line = only(about("ches", [cell("dpo", "m", given)]))
    assert line.verdict == "holds"
    rho, gap = (one.estimate.value for one in line.findings)
    assert rho == pytest.approx(spearmanr(given["ches"], -delta)[0])
    assert gap == pytest.approx(rho - spearmanr(-other, -delta)[0])
    given["edit_distance"] = delta  # ranks the falls without error
    line = only(about("ches", [cell("dpo", "m", given)]))
    assert [one.verdict for one in line.findings] == ["holds", "does not hold"]
    assert line.verdict == "does not hold"


def test_what_must_be_zero() -> None:
    same = share(0.5)
    steps: dict[str, Any] = {
        "same_target@1": same,
        "gradient_difference_l2@1": (1 - same) * np.sqrt(2),
        "probability_difference_l2@1": 0.0,
    }
    checked = about("gradient-zero", [cell("dpo", "one prompt", steps)])
    assert only(checked).verdict == "holds"
    assert checked.n_tested == 0
    wrong = {**steps, "gradient_difference_l2@1": 0.1}
    assert only(about("gradient-zero", [cell("dpo", "t", wrong)])).verdict == "does not hold"
    two = {**steps, "probability_difference_l2@1": 0.3}
    assert only(about("gradient-zero", [cell("dpo", "t", two)])).verdict == "cannot be checked"


def test_steps_and_random_models() -> None:
    given = {f"probability_difference_l2@{t}": 0.1 * t + np.abs(NOISE) for t in (1, 2, 3)}
    given |= {f"probability_difference_l2_random@{t}": 0.01 + 0 * NOISE for t in (1, 2, 3)}
    (first,) = about("gradient-first-step", [cell("dpo", "g", given)]).lines
    assert first.verdict == "holds"
    assert first.findings[0].estimate.value == pytest.approx(0.1 - 0.25)
    (random,) = about("gradient-random", [cell("dpo", "g", given)]).lines
    assert random.verdict == "holds"
    own = (0.2 + np.abs(NOISE)).mean()
    assert random.findings[0].estimate.value == pytest.approx(0.01 - own)


def test_information_where_prompts_differ() -> None:
    def given(scale: float, first: float) -> Mapping[str, Any]:
        values = {f"information_difference@{t}": scale * (1 + np.abs(NOISE)) for t in (1, 2, 3)}
        return {**values, "probability_difference_l2@1": first}

    cells = [cell("dpo", "one", given(1.0, 0.0)), cell("dpo", "two", given(0.1, 0.4))]
    line = only(about("information", cells))
    assert (line.task, line.findings[0].other, line.verdict) == ("two", "one", "holds")
    line = only(about("information", cells[:1]))
    assert line.why == "no task has pairs whose answers have different prompts"


def test_iterations_of_spin() -> None:
    rows = [SFT, row("spin1", "spin", reference="/zoo/sft"),
            row("spin2", "spin", reference="/zoo/spin1")]  # fmt: skip
    cells = [
        cell(name, "p", pairs(perplexity, 0.7, NOISE + 0.02 * RNG.normal(size=N)))
        for name, perplexity in (("sft", 1.5), ("spin1", 1.3), ("spin2", 1.4))
    ]
    line = only(about("spin-perplexity", cells, rows))
    assert (line.row, line.findings[0].other, line.verdict) == ("spin2", "spin1", "does not hold")
    line = only(about("spin-perplexity", cells, rows[:2]))
    assert line.why == "no row was tuned from a measured row of its own method"


def test_rrhf_ranks() -> None:
    rows = [SFT, row("rrhf", reference="/zoo/sft")]
    cells = [cell("sft", "r", {"kendall_tau": 0.1 + NOISE}),
             cell("rrhf", "r", {"kendall_tau": 0.4 + NOISE, "best_first": share(0.6)})]  # fmt: skip
    line = only(about("rrhf", cells, rows))
    assert line.verdict == "holds"
    assert [one.other for one in line.findings] == ["", "sft"]
    assert line.shown[0][1].value == pytest.approx(0.6)


def test_what_was_stopped_when_sure_is_not_tested() -> None:
    from prefbench.stats.estimates import Estimate

    wins = {"win": share(0.9)}
    sure = Estimate(0.9, 0.6, 1.0, 0)
    cells = [cell("sft", "w", {"win": share(0.5)}), cell("dpo", "w", wins, sure=sure)]
    assert only(about("win-rate", cells)).verdict == "cannot be checked"
    assert only(about("win-rate", [cells[0], cell("dpo", "w", wins)])).verdict == "holds"


def test_missing_items_are_left_out_and_counted() -> None:
    given = margins(falling(0.9), -3.0)
    given["displaced@low_edit"][:50] = np.nan
    line = only(about("displacement", [cell("dpo", "m", given)]))
    estimate = line.findings[0].estimate
    assert (estimate.n, estimate.n_missing) == (150, 50)
    assert estimate.value == pytest.approx((180 - 50) / 150)


def test_items_of_one_cluster_count_once() -> None:
    """Ten copies of each item are no more than the item."""
    part = falling(0.6)[::10]
    once = dataclasses.replace(cell("dpo", "m", margins(np.repeat(part, 10), -3.0)))
    clustered = dataclasses.replace(once, clusters=np.repeat(np.arange(20), 10).astype(str))
    wide = only(about("displacement", [clustered])).findings[0].estimate
    narrow = only(about("displacement", [once])).findings[0].estimate
    assert (wide.high - wide.low) > 2.5 * (narrow.high - narrow.low)


def test_the_family_is_corrected_together() -> None:
    """Of a p-value that is a finding alone, none is left among twenty tasks of nothing."""
    strong = cell("dpo", "m0", margins(falling(0.58), -3.0))
    alone = about("displacement", [strong])
    assert (only(alone).verdict, alone.n_tested) == ("holds", 1)
    nothing = [cell("dpo", f"m{k}", margins(k * falling(0.5), -3.0)) for k in range(1, 20)]
    together = about("displacement", [strong, *nothing])
    assert together.n_tested == 20
    assert together.lines[0].findings[0].p == pytest.approx(
        20 * only(alone).findings[0].p, rel=1e-9
    )
    assert {line.verdict for line in together.lines} == {"not shown"}
    assert together.lines[0].findings[0].beyond == "above"


def test_to_look_at_one_claim_makes_it_no_surer() -> None:
    half = {"chosen_agrees": share(0.5), "rejected_agrees": share(0.5)}
    cells = [
        cell("dpo", "m", margins(falling(0.58), -3.0)),
        *(cell("dpo", f"g{k}", {"cosine": k + NOISE, **half}) for k in range(9)),
    ]
    everything = check(gathered([SFT, DPO], cells), n_resamples=500)
    some = everything.only(claims_named(["displacement"]))
    assert [line.claim.id for line in some.lines] == ["displacement"]
    assert (some.n_tested, only(some).verdict) == (everything.n_tested, "not shown")


def test_how_it_does_not_depend_on_company() -> None:
    """A line's numbers are the same whatever else is asked, bit for bit."""
    cells = [
        cell("sft", "p", pairs(1.5, 0.7, NOISE)),
        cell("dpo", "p", pairs(1.6, 0.9, NOISE[::-1])),
        cell("dpo", "m", margins(falling(0.6), -3.0)),
        cell("dpop", "m", margins(falling(0.3), -3.0)),
    ]
    everything = check(gathered([SFT, DPO, DPOP], cells), n_resamples=500)
    for name in ("dpo-perplexity", "displacement", "dpop-dpo"):
        alone = check(gathered([SFT, DPO, DPOP], cells), claims=claims_named([name]),
                      n_resamples=500)  # fmt: skip
        (same,) = [one for one in everything.lines if one.claim.id == name and not one.why]
        assert same.findings[0].estimate == only(alone).findings[0].estimate


def test_a_family_about_nothing_seldom_finds_anything() -> None:
    """Zoos in which all lies at the neutral value: one in twenty at most has a finding at all.

    Not one test alone: those err in about one case of twenty, as they should.
    """
    rng = np.random.default_rng(1)
    n_worlds, false, raw = 12, 0, []
    for _ in range(n_worlds):
        checked = check(world(rng, 60), n_resamples=300)
        assert checked.n_tested > 190
        false += any(line.verdict in ("holds", "does not hold") for line in checked.lines)
        raw += [one.estimate.p for line in checked.lines for one in line.findings]
    assert false <= 3  # of 12 at a rate of 5 %: more are found in 2 of 1,000 cases
    assert 0.03 < np.mean(np.array(raw) < 0.05) < 0.08


def test_nothing_measured() -> None:
    found = check(Gathered((), (), ()))
    assert {line.verdict for line in found.lines} == {"cannot be checked"}
    assert len(found.lines) == len(CLAIMS)
    assert all(line.why for line in found.lines)
    assert found.n_tested == 0


def test_the_confidence_is_a_share() -> None:
    with pytest.raises(InputError, match="between 0 and 1, not 95"):
        check(Gathered((), (), ()), confidence=95)


def test_claims_are_well_formed() -> None:
    ids = [claim.id for claim in CLAIMS]
    assert len(set(ids)) == len(ids)
    for claim in CLAIMS:
        assert claim.questions
        assert not claim.sentence.endswith(".")
        assert claim.source
    with pytest.raises(InputError, match="no claim is named 'nosuch'"):
        claims_named(["nosuch"])
    assert isinstance(claims_named(["ches"])[0], Claim)
