from __future__ import annotations

import dataclasses
import json
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from prefbench.cells import Settings
from prefbench.errors import InputError
from prefbench.gate.elsewhere import with_baseline
from prefbench.gate.gating import Gate, gate
from prefbench.gate.policies import Amount, Policy, Rule
from prefbench.leaderboard import Gathered, Group, Measured, Ranked
from prefbench.records import Checkpoint
from prefbench.report.collect import gather
from prefbench.runner import run
from prefbench.stats.estimates import Estimate
from prefbench.store import Store

QUIZ = Group("quiz", "quiz", shown=("acc",), higher_is_better={"acc": True})
PAIRS = Group("pairs", "pairs", shown=("perplexity", "agility"))
GIVEN = {"acc": Estimate(0.5, 0.4, 0.6, 400)}
DROP = Rule(task="quiz", metric="acc", max_drop=Amount(2.0))


def row(name: str, method: str | None = None, **facts: Any) -> Checkpoint:
    return Checkpoint(name, Path(name), facts.pop("state", "ready"), method=method, **facts)


def cell(name: str, values: Any, group: str = "quiz", **more: Any) -> Measured:
    columns = values if isinstance(values, Mapping) else {"acc": np.asarray(values, dtype=float)}
    items = np.arange(len(next(iter(columns.values()))), dtype=np.int32)
    return Measured(name, group, items, items.astype(str), columns, **more)


def gathered(*cells: Measured, groups: Sequence[Group] = (QUIZ,), **more: Any) -> Gathered:
    names = dict.fromkeys(one.checkpoint for one in cells)
    rows = tuple(row(name, name.partition("/")[0]) for name in names)
    return Gathered(rows + more.pop("others", ()), tuple(groups), cells, **more)


def policy(*rules: Rule, **facts: Any) -> Policy:
    return Policy(baseline=facts.pop("baseline", "sft"), rules=rules or (DROP,), **facts)


def share(n_right: int, n: int = 400) -> np.ndarray:
    return (np.arange(n) < n_right).astype(float)


def outcomes(found: Gate) -> dict[str, str]:
    return {one.check.checkpoint: one.outcome for one in found.verdicts}


def test_each_outcome_of_a_share() -> None:
    rng = np.random.default_rng(0)
    found = gate(
        policy(),
        gathered(
            cell("sft", share(300)),
            cell("same", share(300)),
            cell("bad", share(250)),
            cell("near", share(291)),
            cell("noisy", rng.permutation(share(300))),
        ),
    )
    assert outcomes(found) == {
        "same": "pass", "bad": "regression", "near": "inconclusive", "noisy": "inconclusive",
    }  # fmt: skip
    assert (found.outcome, found.exit_code) == ("regression", 1)
    bad = next(one for one in found.verdicts if one.outcome == "regression")
    assert bad.difference == pytest.approx(-0.125)
    assert bad.corrected_low < bad.low < -0.125 < bad.high < bad.corrected_high < -0.02
    assert (bad.value, bad.baseline, bad.n) == (0.625, 0.75, 400)
    assert bad.check.asked == "may fall by at most 2 points"
    near = next(one for one in found.verdicts if one.check.checkpoint == "near")
    assert near.n_needed is not None
    assert near.n_needed > 400
    assert "items would decide (400 so far), likely as regression" in near.reason


def test_what_lies_at_the_margin_cannot_be_decided() -> None:
    found = gate(policy(), gathered(cell("sft", share(300)), cell("dpo", share(292))))
    assert found.exit_code == 2
    assert found.verdicts[0].reason == (
        "cannot be decided: the difference seems to lie at the margin; more items hardly help"
    )
    assert found.verdicts[0].n_needed is None


def test_equal_answers_to_few_items_prove_little() -> None:
    """Resamples of 20 items that all agree have no spread; that is not to say that more would."""
    found = gate(policy(), gathered(cell("sft", share(10, 20)), cell("dpo", share(10, 20))))
    assert found.outcome == "inconclusive"
    assert found.verdicts[0].n_needed is not None


def pairs(per_token: float, n: int = 80, **more: Any) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(2)
    tokens = rng.integers(5, 30, size=n).astype(float)
    noise = rng.normal(scale=0.1, size=n)
    return {
        "sum_logp_chosen": (noise - per_token) * tokens,
        "n_tokens_chosen": tokens,
        "sum_logp_rejected": (noise - 2.0) * tokens,
        "n_tokens_rejected": tokens,
        **more,
    }


@pytest.mark.parametrize(
    ("rule", "outcome"),
    [
        (Rule(task="pairs", metric="perplexity", max_rise=Amount(0.05, relative=True)), "pass"),
        (Rule(task="pairs", metric="perplexity.v1", max_rise=Amount(0.2)), "pass"),
        (Rule(task="pairs", metric="perplexity", max_rise=Amount(0.01)), "regression"),
        (
            Rule(task="pairs", metric="perplexity", max_rise=Amount(0.02, relative=True)),
            "regression",
        ),
        # Falling is what a rule may forbid, too, whatever the metric likes.
        (Rule(task="pairs", metric="perplexity", max_drop=Amount(0.01)), "pass"),
        (Rule(task="pairs", metric="agility", max_drop=Amount(0.1)), "pass"),
        (Rule(task="pairs", metric="agility", max_drop=Amount(0.01)), "regression"),
        (Rule(task="pairs", metric="agility", require="better"), "regression"),
        (Rule(task="pairs", metric="perplexity", require="better"), "regression"),
        (
            Rule(task="pairs", metric="perplexity", require="better", higher_is_better=True),
            "pass",
        ),
        (
            Rule(
                task="pairs",
                metric="perplexity",
                require="better",
                by=Amount(0.2),
                higher_is_better=True,
            ),
            "regression",
        ),
    ],
)
def test_directions_and_units(rule: Rule, outcome: str) -> None:
    """The chosen replies cost 0.03 nats a token more: perplexity rises by 3 %."""
    found = gate(
        policy(rule),
        gathered(
            cell("sft", pairs(1.0), "pairs"), cell("dpo", pairs(1.03), "pairs"), groups=[PAIRS]
        ),
    )
    (one,) = found.verdicts
    assert one.outcome == outcome
    assert one.difference is not None
    if one.check.allowed.relative:
        assert one.difference == pytest.approx(math.expm1(0.03))
    elif one.check.metric.name == "agility.v1":
        assert one.difference == pytest.approx(-0.03)


def test_words_for_what_is_asked() -> None:
    rules = [
        Rule(task="pairs", metric="agility", max_drop=Amount(1.0), max_rise=Amount(2.0)),
        Rule(task="pairs", metric="perplexity", max_rise=Amount(0.05, relative=True)),
        Rule(task="pairs", metric="agility_acc", require="better", by=Amount(1.0)),
        Rule(task="pairs", metric="bits_per_byte", require="better"),
    ]
    more = {"preferred": np.tile([0.0, 1.0], 40), "n_bytes_chosen": np.full(80, 9.0)}
    found = gate(
        policy(*rules),
        gathered(
            cell("sft", pairs(1.0, **more), "pairs"),
            cell("dpo", pairs(1.0, **more), "pairs"),
            groups=[PAIRS],
        ),
    )
    assert [one.check.asked for one in found.verdicts] == [
        "may fall by at most 1 nat",
        "may rise by at most 2 nats",
        "may rise by at most 5% of the baseline",
        "must rise by more than 1 point",
        "must fall",
    ]


def test_a_column_belongs_to_the_first_rule_that_fits_it() -> None:
    everything = Rule(task="*", max_drop=Amount(1.0), max_rise=Amount(0.01, relative=True))
    data = gathered(
        cell("sft", share(300)),
        cell("dpo", share(300)),
        cell("sft", pairs(1.0), "pairs"),
        cell("dpo", pairs(1.0), "pairs"),
        groups=[QUIZ, PAIRS],
    )
    found = gate(policy(DROP, everything), data)
    assert [(one.check.rule, one.check.metric.name) for one in found.verdicts] == [
        (1, "acc"), (2, "perplexity.v1"), (2, "agility.v1"),
    ]  # fmt: skip
    with pytest.raises(InputError, match=r"rule 2 asks nothing: earlier .* the particular before"):
        gate(policy(everything, DROP), data)
    found = gate(policy(everything, Rule(task="q*", max_drop=Amount(1.0))), data)
    assert "rule 2 asks nothing: earlier rules take all that it fits" in found.notes


def test_what_a_general_rule_cannot_judge_is_said() -> None:
    data = gathered(
        cell("sft", pairs(1.0), "pairs"), cell("dpo", pairs(1.0), "pairs"), groups=[PAIRS]
    )
    found = gate(policy(Rule(task="*", metric="*", max_drop=Amount(1.0))), data)
    assert {one.check.metric.name for one in found.verdicts} == {
        "agility.v1",
        "agility_ppl_diff.v1",
    }
    assert "not gated: pairs, perplexity.v1: rule 1 says no max_rise" in found.notes
    assert (
        "not gated: pairs, perplexity_rejected.v1: neither direction is better, "
        "and rule 1 does not name it"
    ) in found.notes
    with pytest.raises(InputError, match="asks nothing of anything measured here: not gated"):
        gate(policy(Rule(task="*", metric="perp*", max_drop=Amount(1.0))), data)


def test_checkpoints_by_row_method_and_pattern() -> None:
    data = gathered(*(cell(name, share(300)) for name in ("sft", "dpo", "ipo/a", "ipo/b")))
    assert set(outcomes(gate(policy(), data))) == {"dpo", "ipo/a", "ipo/b"}
    assert set(outcomes(gate(policy(checkpoints=("DPO",)), data))) == {"dpo"}
    assert set(outcomes(gate(policy(checkpoints=("ipo", "ipo/a")), data))) == {"ipo/a", "ipo/b"}
    assert set(outcomes(gate(policy(checkpoints=("*/b", "dpo")), data))) == {"ipo/b", "dpo"}
    with pytest.raises(InputError, match="'kto' fits no row; beside sft there are: dpo, ipo/a"):
        gate(policy(checkpoints=("kto",)), data)
    assert set(outcomes(gate(policy(), data, baseline="dpo"))) == {"sft", "ipo/a", "ipo/b"}


def test_errors_are_never_a_pass() -> None:
    holes = share(300)
    holes[:40] = np.nan
    all_holes = np.full(400, np.nan)
    data = gathered(
        cell("sft", share(300)),
        cell("holes", holes),
        cell("nothing", all_holes),
        cell("sure", share(300), sure=Estimate(0.5, 0.4, 0.6, 9)),
        Measured("old", "quiz", np.zeros(0, np.int32), np.zeros(0, str), {}, given=GIVEN),
        others=(row("broken", state="refused", reason="pickled weights"), row("late")),
        reasons={("late", "quiz"): "out of memory"},
    )
    names = ("holes", "nothing", "sure", "old", "broken", "late")
    found = gate(policy(checkpoints=names), data)
    assert {one.check.checkpoint: one.reason for one in found.verdicts} == {
        "holes": "the checkpoint lacks 40 of 400 items that the other has, more than max_missing "
        "(0.01 of them) allows",
        "nothing": "no items in common with the baseline",
        "sure": "sure: the comparison ended when it was sure, which leaves no paired difference; "
        "run it without --stop-when-sure",
        "old": "old: its value came without items, which leaves no paired difference",
        "broken": "broken has no value: pickled weights",
        "late": "late has no value: out of memory",
    }
    assert set(outcomes(found).values()) == {"error"}
    assert found.exit_code == 3
    some = gate(policy(checkpoints=("holes",), max_missing=0.1), data)
    assert outcomes(some) == {"holes": "pass"}
    assert some.verdicts[0].n == 360
    # What was refused is not gated by default, which is said.
    found = gate(policy(), data)
    assert "broken" not in outcomes(found)
    assert "not gated: broken is refused: pickled weights" in found.notes


def test_a_second_measurement_counts_for_nothing() -> None:
    data = gathered(cell("sft", share(300)), cell("dpo", share(300)))
    data = dataclasses.replace(data, repeated=(cell("dpo", share(1)),))
    assert outcomes(gate(policy(), data)) == {"dpo": "pass"}


def test_a_baseline_without_the_cell_or_with_holes() -> None:
    holes = share(300)
    holes[:40] = np.nan
    lacking = gathered(cell("dpo", share(300)), others=(row("sft", "sft"),))
    found = gate(policy(), lacking)
    assert found.verdicts[0].reason == "sft has no value: not measured"
    assert found.exit_code == 3
    found = gate(policy(), gathered(cell("sft", holes), cell("dpo", share(300))))
    assert found.verdicts[0].reason.startswith("the baseline lacks 40 of 400 items")


def test_values_that_are_not_finite_or_have_no_percentage() -> None:
    overflow = pairs(1.0) | {"sum_logp_chosen": np.full(80, -1e9)}
    data = gathered(
        cell("sft", pairs(1.0), "pairs"), cell("dpo", overflow, "pairs"), groups=[PAIRS]
    )
    found = gate(policy(Rule(task="pairs", metric="perplexity", max_rise=Amount(1.0))), data)
    assert found.verdicts[0].reason.startswith("not finite: inf, the baseline 2.")
    assert found.exit_code == 3
    relative = Rule(task="quiz", metric="acc", max_drop=Amount(0.05, relative=True))
    found = gate(policy(relative), gathered(cell("sft", share(0)), cell("dpo", share(5))))
    assert "the baseline is 0, of which no percentage can be taken" in found.verdicts[0].reason


def test_an_interval_that_does_not_exist_is_inconclusive() -> None:
    found = gate(policy(), gathered(cell("sft", share(1, 1)), cell("dpo", share(1, 1))))
    assert found.verdicts[0].reason == "too few items for an interval"
    assert found.exit_code == 2


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (Rule(task="quizz", max_drop=Amount(1.0)), "no task 'quizz' was measured; there is: quiz"),
        (
            Rule(task="quiz", metric="f1", max_drop=Amount(1.0)),
            "'quiz' has no metric 'f1' that can be gated; there are: acc",
        ),
        (
            Rule(task="quiz", max_drop=Amount(1.0), judge="brief", opponent="sft"),
            "no task 'quiz' against sft by brief was measured",
        ),
    ],
)
def test_a_rule_that_fits_nothing_is_refused(rule: Rule, said: str) -> None:
    with pytest.raises(InputError, match=f"rule 1: {said}"):
        gate(policy(rule), gathered(cell("sft", share(1)), cell("dpo", share(1))))


def test_no_baseline_and_nothing_to_gate() -> None:
    with pytest.raises(InputError, match="no baseline: there is not exactly one SFT row"):
        gate(policy(baseline=None), gathered(cell("dpo", share(1))))
    with pytest.raises(InputError, match="no checkpoint to gate beside the baseline sft"):
        gate(policy(), gathered(cell("sft", share(1))))


def test_strengths_are_not_gated() -> None:
    wins = np.zeros((4, 2, 2))
    robin = Ranked("arena", ("sft", "dpo"), np.arange(4), wins, wins)
    group = Group("arena", "arena")
    data = gathered(
        cell("sft", share(300)), cell("dpo", share(300)), groups=[QUIZ, group], ranked=(robin,)
    )
    found = gate(policy(Rule(task="*", max_drop=Amount(2.0))), data)
    assert "not gated: arena, as strengths hang on who takes part" in found.notes
    with pytest.raises(InputError, match="'arena' has no metric 'elo' that can be gated"):
        gate(policy(Rule(task="arena", metric="elo", max_drop=Amount(2.0))), data)


# --- rates


def rate(decide: Callable[[np.random.Generator], bool], n: int) -> float:
    rng = np.random.default_rng(11)
    return sum(decide(rng) for _ in range(n)) / n


def within(alpha: float, n: int) -> float:
    """What a rate of alpha does not exceed in n repetitions, but for one time in a thousand."""
    return alpha + 3.1 * math.sqrt(alpha * (1 - alpha) / n)


def test_a_family_of_equally_good_checkpoints_raises_few_false_alarms() -> None:
    """Eight checkpoints exactly at the margin: an alarm about any of them is false."""
    alpha, n = 0.2, 300
    asked = policy(Rule(task="q", metric="score", max_drop=Amount(0.5)), confidence=1 - alpha)
    group = Group("q", "q", higher_is_better={"score": True})

    def alarm(rng: np.random.Generator) -> bool:
        base = rng.normal(size=60)
        tuned = [base - 0.5 + rng.normal(size=60) for _ in range(8)]
        cells = [cell("sft", {"score": base}, "q")]
        cells += [cell(f"c{i}", {"score": values}, "q") for i, values in enumerate(tuned)]
        data = gathered(*cells, groups=[group])
        return gate(asked, data, n_resamples=400).outcome == "regression"

    found = rate(alarm, n)
    assert found <= within(alpha / 2, n)
    assert found > 0.02  # the alarm can go off


def test_a_gate_with_one_bad_checkpoint_seldom_passes() -> None:
    """One is at the margin, seven are clearly good: only all together are a pass."""
    alpha, n = 0.2, 300
    asked = policy(Rule(task="q", metric="score", max_drop=Amount(0.5)), confidence=1 - alpha)
    group = Group("q", "q", higher_is_better={"score": True})

    def passes(rng: np.random.Generator) -> bool:
        base = rng.normal(size=60)
        gains = [-0.5, *[1.0] * 7]
        cells = [cell("sft", {"score": base}, "q")]
        cells += [
            cell(f"c{i}", {"score": base + gain + rng.normal(size=60)}, "q")
            for i, gain in enumerate(gains)
        ]
        return gate(asked, gathered(*cells, groups=[group]), n_resamples=400).outcome == "pass"

    found = rate(passes, n)
    assert found <= within(alpha / 2, n)
    assert found > 0.02  # and not because nothing ever passes


def test_identical_checkpoints_raise_no_alarm_and_pass() -> None:
    data = gathered(*(cell(name, share(300)) for name in ("sft", *"abcdefgh")))
    assert gate(policy(), data).outcome == "pass"


# --- real checkpoints


def damage(folder: Path, scale: float) -> None:
    """Adds Gaussian noise to the weights, as large as `scale` times each tensor's own spread."""
    torch.manual_seed(0)
    file = folder / "model.safetensors"
    weights = load_file(file)
    noisy = {k: w + scale * w.std() * torch.randn_like(w) for k, w in weights.items()}
    save_file(noisy, file, metadata={"format": "pt"})


RISE = Rule(task="demo_dialogues", metric="perplexity", max_rise=Amount(0.02, relative=True))
FALL = Rule(task="demo_dialogues", metric="agility", max_drop=Amount(0.1))


@pytest.fixture(scope="module")
def measured(small_zoo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint and a damaged one; in another results directory the first one again."""
    folder = tmp_path_factory.mktemp("gated")
    for name in ("first/sft", "first/damaged", "second/sft"):
        shutil.copytree(
            small_zoo / "checkpoints" / "sft",
            folder / name,
            ignore=shutil.ignore_patterns("checkpoint-*"),
        )
    damage(folder / "first" / "damaged", 0.5)
    for place, batch_size in (("first", 8), ("second", 3)):
        run(
            folder / place,
            tasks=["demo_dialogues"],
            results=folder / f"{place}-results",
            settings=Settings(limit=60, batch_size=batch_size, engine="hf"),
            mirrors=[small_zoo / "data"],
        )
    return folder


def test_a_damaged_checkpoint_fails(measured: Path) -> None:
    found = gate(policy(RISE, FALL), gather(measured / "first-results"))
    assert found.exit_code == 1
    worst = found.verdicts[0]
    assert (worst.check.checkpoint, worst.outcome) == ("damaged", "regression")
    assert worst.low > 0.02


def joined(measured: Path, wanted: str) -> tuple[Gathered, str]:
    ours, theirs = Store(measured / "second-results"), Store(measured / "first-results")
    return with_baseline(
        gather(ours.folder), wanted, ours=ours, other=gather(theirs.folder), theirs=theirs
    )


def test_the_same_checkpoint_measured_again_passes(measured: Path) -> None:
    data, name = joined(measured, "sft")
    assert name == f"sft in {measured / 'first-results'}"
    found = gate(policy(RISE, FALL), data, baseline=name)
    assert outcomes(found) == {"sft": "pass"}
    assert [one.n for one in found.verdicts] == [60, 60]
    data, name = joined(measured, "damaged")
    improved = Rule(task="demo_dialogues", metric="perplexity", require="better")
    assert gate(policy(improved), data, baseline=name).outcome == "pass"


def test_a_baseline_from_elsewhere_must_be_of_the_same_items(measured: Path) -> None:
    ours, theirs = Store(measured / "second-results"), Store(measured / "first-results")
    here, there = gather(ours.folder), gather(theirs.folder)
    with pytest.raises(InputError, match="the baseline 'kto' names no checkpoint"):
        with_baseline(here, "kto", ours=ours, other=there, theirs=theirs)
    lonely = dataclasses.replace(there, checkpoints=there.checkpoints[:0])
    with pytest.raises(InputError, match="first-results: there is not exactly one SFT row"):
        with_baseline(here, None, ours=ours, other=lonely, theirs=theirs)
    data, name = with_baseline(
        here, "sft", ours=ours, other=dataclasses.replace(there, measured=()), theirs=theirs
    )
    (one, _) = gate(policy(RISE, FALL), data, baseline=name).verdicts
    assert one.reason == f"{name} has no value: not measured in {theirs.folder}"


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("task", "it was measured with another definition of the task; measure it again"),
        ("data", "it was measured with other data; measure it again"),
    ],
)
def test_other_definitions_and_data_are_not_paired(
    measured: Path, tmp_path: Path, key: str, said: str
) -> None:
    shutil.copytree(measured / "first-results", tmp_path / "week")
    for file in [*tmp_path.glob("week/cells/*/manifest.json"), *tmp_path.glob("week/plans/*")]:
        whole = json.loads(file.read_text())
        for facts in [whole, *whole.get("cells", ())]:
            if "identity" in facts:
                facts["identity"][key] = facts["identity"]["engine"] = "another"
        file.write_text(json.dumps(whole))
    ours, theirs = Store(measured / "second-results"), Store(tmp_path / "week")
    data, name = with_baseline(
        gather(ours.folder), "sft", ours=ours, other=gather(theirs.folder), theirs=theirs
    )
    found = gate(policy(RISE), data, baseline=name)
    assert found.exit_code == 3
    assert said in found.verdicts[0].reason


def test_a_condition_that_differs_is_said(measured: Path, tmp_path: Path) -> None:
    shutil.copytree(measured / "first-results", tmp_path / "week")
    for file in tmp_path.glob("week/cells/*/manifest.json"):
        whole = json.loads(file.read_text())
        whole["identity"]["dtype"] = "bfloat16"
        file.write_text(json.dumps(whole))
    ours, theirs = Store(measured / "second-results"), Store(tmp_path / "week")
    data, name = with_baseline(
        gather(ours.folder), "sft", ours=ours, other=gather(theirs.folder), theirs=theirs
    )
    found = gate(policy(RISE), data, baseline=name)
    assert found.outcome == "pass"
    assert (
        "demo_dialogues, first 60 items: the number format differs (float32 here, bfloat16 in "
        f"{tmp_path / 'week'})"
    ) in found.notes
