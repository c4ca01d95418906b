from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from prefbench.claims.checking import Checked, check
from prefbench.claims.literature import CLAIMS, claims_named
from prefbench.errors import InputError
from prefbench.records import Checkpoint
from prefbench.report.claims import EXAMPLES
from prefbench.report.claims import claims as verb
from prefbench.report.claims_text import as_json, as_text, count_of
from prefbench.report.layout import width_of
from tests.claims.made import N, cell, gathered, margins, pairs, row, share

HOSTILE = "evil\x1b[31m|`<script>alert(1)</script>\u202e=1+1"
RNG = np.random.default_rng(3)
NOISE = 0.3 * RNG.normal(size=N)


def zoo(name: str = "dpo", task: str = "low", method: str = "dpo") -> Checked:
    """DPO displaces, IPO may, and DPO lowers perplexity's quality."""
    rows = [
        row("sft"),
        Checkpoint(name, Path("/zoo/dpo"), "ready", method=method, reference="/zoo/sft"),
        row("ipo", reference="/zoo/sft"),
    ]
    cells = [
        cell(name, task, margins(np.where(share(0.83) > 0, -2.0, 2.0) + NOISE, -9.0)),
        cell("ipo", task, margins(np.where(share(0.53) > 0, -2.0, 2.0) + NOISE, -9.0)),
        cell("sft", "pairs", pairs(1.5, 0.7, NOISE)),
        cell(name, "pairs", pairs(1.9, 1.7, NOISE + 0.05 * RNG.normal(size=N))),
        *(
            cell(one.name, "g", {"chosen_agrees": share(part), "rejected_agrees": share(0.99)})
            for one, part in zip(rows, (0.90, 0.95, 0.97), strict=True)
        ),
    ]
    return check(gathered(rows, cells), n_resamples=1000)


def test_the_text_to_the_letter() -> None:
    text = as_text(zoo(), 80)
    first, *others = text.split("\n\n")
    assert first.splitlines() == [
        "What rewards the margin alone lowers the chosen answer's log-prob where the two",
        "answers differ little.",
        "  (2402.13228 §3, 2410.08847 Def. 1; decided by the share of pairs below a",
        "  normalised edit distance of 0.1 whose chosen log-prob fell against the",
        "  reference, beside one half; Definition 1 has the mean, which is shown)",
        "  ✓ holds              DPO: low — displaced@low_edit 83 % [78, 88], beside 50 %;",
        "                       delta_chosen@low_edit −1.31 [−1.50, −1.08]",
        "                       The share of low-edit-distance pairs whose chosen answer",
        "                       fell lies above one half.",
        "  ? not shown          IPO: low — displaced@low_edit 53 % [46, 60], beside 50 %;",
        "                       delta_chosen@low_edit −0.11 [−0.37, 0.16]",
        "                       The share of low-edit-distance pairs whose chosen answer",
        "                       fell cannot be told from one half.",
    ]
    assert others[-1].splitlines() == [
        "Values with 95% bootstrap intervals over items; differences between rows are",
        "paired on the same items. 12 tests, at 5% with Holm's correction for all of them",
        "together: a claim holds where the numbers show it, does not hold where they show",
        "the contrary, and is not shown where they leave it open. Intervals are not",
        "corrected.",
        "4 more could not be checked, for rows or tasks; --all tells why.",
        "30 claims, by row and task: 8 × holds, 1 × not shown, 29 × cannot be checked.",
    ]


def test_one_entry_for_rows_that_came_out_alike() -> None:
    text = as_text(zoo(), 100)
    assert "SFT, DPO, IPO: g — chosen_agrees from 90 % to 97 %, intervals within [8" in text
    assert "Each of the 3 rows: the share of pairs whose chosen answer moved as predicted" in text
    everything = as_text(zoo(), 100, everything=True)
    assert "Each of" not in everything
    assert "IPO: g — chosen_agrees 97 % [94, 99], beside 50 %" in everything


def test_gaps_of_shares_are_points() -> None:
    rows = [row("sft"), row("dpo", reference="/zoo/sft")]
    given = margins(np.where(share(0.9) > 0, -2.0, 2.0) + NOISE, -9.0)
    given["ranking_accuracy"] = share(0.6)
    text = as_text(check(gathered(rows, [cell("dpo", "m", given)]), n_resamples=500), 500)
    assert "ranking_accuracy − rewards/accuracies −40 points [−4" in text
    assert "], beside 0; ranking_accuracy 60 % [" in text


def test_rows_compared_with_one_task_by_their_differences() -> None:
    rows = [row("sft"), row("dpo")]
    cells = [
        cell(one.name, task, {"cosine": value + NOISE, "edit_distance": distance})
        for one, shift in zip(rows, (0.0, 0.1), strict=True)
        for task, value, distance in (("near", 0.7, 0.05), ("far", 0.2 - shift, 0.8))
    ]
    text = as_text(check(gathered(rows, cells), n_resamples=500), 500)
    assert "SFT, DPO: near — difference of cosine from +0.50 to +0.60, intervals within [" in text
    assert "Each of the 2 rows: the mean gradient cosine is higher than on far." in text


def test_what_cannot_be_checked_is_told_once_with_its_reason() -> None:
    text = as_text(zoo(), 120)
    assert text.count("no RRHF row was measured") == 1
    assert text.count("no SPIN row was measured") == 1
    assert "RRHF ranks candidates as their rewards do, and better than SFT does (rrhf)." in text
    for claim in CLAIMS:
        assert f"({claim.id})" in text or f"{claim.sentence}." in " ".join(text.split())


def test_the_count_is_the_last_line() -> None:
    checked = zoo()
    text = as_text(checked, 200)
    assert text.splitlines()[-1] == count_of(checked)
    assert f"{len(CLAIMS)} claims, by row and task: " in text
    assert f"{checked.n_tested} tests, at 5% with Holm's correction" in text


def test_no_sentence_claims_what_the_test_leaves_open() -> None:
    checked = zoo()
    (line,) = (one for one in checked.lines if one.claim.id == "displacement" and one.row == "ipo")
    assert line.verdict == "not shown"
    entry = as_text(checked, 300).split("? not shown")[1].splitlines()
    assert "IPO: low — displaced@low_edit 53 % [46, 60], beside 50 %" in entry[0]
    assert entry[1].strip() == (
        "The share of low-edit-distance pairs whose chosen answer fell cannot be told from one "
        "half."
    )


@pytest.mark.parametrize("width", [60, 80, 110])
def test_no_line_is_wider_than_asked(width: int) -> None:
    text = as_text(zoo(name="名前" * 4, task="課題" * 5, method="名"), width, everything=True)
    assert max(map(width_of, text.splitlines())) <= width


def test_hostile_names_stay_text() -> None:
    checked = zoo(name=HOSTILE, task=HOSTILE)
    for text in (
        as_text(checked, 100, readings={HOSTILE: HOSTILE}),
        as_json(checked, readings={HOSTILE: HOSTILE}),
    ):
        assert "\x1b" not in text
        assert "\u202e" not in text


def test_json_holds_everything() -> None:
    whole = json.loads(as_json(zoo(), readings={"dpo": "said"}))
    assert [one["id"] for one in whole["claims"]] == [claim.id for claim in CLAIMS]
    assert (whole["baseline"], whole["correction"], whole["readings"]) == (
        "sft", "holm", {"dpo": "said"},
    )  # fmt: skip
    by_id = {one["id"]: one for one in whole["claims"]}
    first = by_id["displacement"]["lines"][0]
    assert (first["row"], first["task"], first["verdict"]) == ("dpo", "low", "holds")
    (found,) = first["findings"]
    assert found["value"] == pytest.approx(0.83)
    assert found["low"] < 0.83 < found["high"]
    assert (found["claimed"], found["neutral"], found["n"]) == ("above", 0.5, N)
    assert found["p_corrected"] >= found["p"] > 0
    assert first["shown"]["delta_chosen@low_edit"]["value"] < 0
    gap = by_id["dpo-perplexity"]["lines"][0]["findings"][0]
    assert gap["compared_with"] == "sft"
    assert gap["values"][0]["value"] - gap["values"][1]["value"] == pytest.approx(gap["value"])
    missing = by_id["rrhf"]["lines"][0]
    assert (missing["verdict"], missing["row"]) == ("cannot be checked", None)
    assert missing["missing"] == "no RRHF row was measured"
    assert sum(whole["counts"].values()) == sum(len(one["lines"]) for one in whole["claims"])


def test_the_verb(tmp_path: Path) -> None:
    from tests.report.test_gate import make_store

    results = make_store(tmp_path / "results", {"sft": 300, "dpo": 250})
    app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command(epilog=EXAMPLES)(verb)

    def call(*arguments: Any) -> Any:
        return CliRunner().invoke(app, [str(results), *map(str, arguments)])

    found = call("--readings", "--width", 300)
    assert found.exit_code == 0
    assert "– no RRHF row was measured:" in found.stdout
    said = "Against SFT, the share of right answers is lower on quiz (−12 points [−16, −9])."
    assert said in found.stdout
    whole = json.loads(call("--format", "json", "--claim", "rrhf").stdout)
    assert [one["id"] for one in whole["claims"]] == ["rrhf"]
    assert whole["readings"] is None
    found = call("--claim", "nosuch")
    assert isinstance(found.exception, InputError)
    assert "no claim is named 'nosuch'" in str(found.exception)
    found = call("--confidence", "95")
    assert "between 0 and 1, not 95" in str(found.exception)


def test_a_claim_alone() -> None:
    rows = [row("sft"), row("dpo", reference="/zoo/sft")]
    cells = [cell("dpo", "m", margins(np.where(share(0.9) > 0, -2.0, 2.0) + NOISE, -9.0))]
    checked = check(gathered(rows, cells), claims=claims_named(["displacement"]), n_resamples=500)
    text = as_text(checked, 100)
    assert "One test, at 5%" in text
    assert text.splitlines()[-1] == "1 claim, by row and task: 1 × holds."
