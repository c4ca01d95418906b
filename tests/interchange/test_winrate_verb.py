"""The verb `winrate`, from files to tables."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from prefbench.errors import DataError, InputError, PrefbenchError
from prefbench.interchange.annotations import Judgment, statistics_of
from prefbench.report.winrate import EXAMPLES, STYLES, Shown, winrate

HOSTILE = "evil\x1b[31m|`<script>alert(1)</script>\u202e"

app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)
app.command(epilog=EXAMPLES)(winrate)


def run(*arguments: object) -> str:
    done = CliRunner().invoke(app, list(map(str, arguments)))
    if isinstance(done.exception, PrefbenchError):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


def pairs(folder: Path, **more: Any) -> Path:
    """Forty questions of which the checkpoint wins 20 clearly; 10 are split, 9 lost, 1 unread."""
    winners = [("model_1", "model_1")] * 20 + [("model_1", "model_2")] * 10
    winners += [("model_2", "model_2")] * 9 + [("error", "model_1")]
    rows = [
        {
            "question_id": i,
            "model_1": "dpo",
            "model_2": "sft",
            "g1_winner": first,
            "g2_winner": second,
            "judge": ["judge-1", "pair"],
            "turn": 1,
            **more,
        }
        for i, (first, second) in enumerate(winners)
    ]
    path = folder / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_table_to_the_letter(tmp_path: Path) -> None:
    title, table, notes = run("--from", pairs(tmp_path)).split("\n\n")
    assert title == "Win rates against sft, judged by judge-1"
    assert table.splitlines() == [
        "     win rate ↑         SE   won/drawn/lost  missing  same winner ↑      first preferred",
        "─" * 90,
        "dpo  64.1 [51.3, 76.9]  6.6  20/10/9         1        "
        "74.4 [59.0, 87.2]  62.8 [56.4, 70.5]",
    ]
    assert notes.splitlines() == [
        "Percentages with 95% bootstrap intervals over prompts; a draw counts half.",
        "SE: standard error as AlpacaEval publishes it, which takes comparisons as independent.",
        "Same winner: pairs judged in both orders whose winner is the same in both. First "
        "preferred: how far the answer shown first is; 50 without position bias.",
        "No answers in the file: no length control.",
        "Missing of dpo: 1 × no verdict in the judge's reply.",
    ]


def test_a_narrow_table_is_in_blocks(tmp_path: Path) -> None:
    wide = run("--from", pairs(tmp_path), "--width", 200)
    narrow = run("--from", pairs(tmp_path), "--width", 40)
    assert sorted(wide.split()) != sorted(narrow.split())  # the name and the rules come again
    blocks = narrow.split("\n\n")[1:-1]
    assert len(blocks) > 1
    assert all(len(line) <= 40 for block in blocks for line in block.splitlines())
    assert all(block.splitlines()[2].startswith("dpo") for block in blocks)


def test_the_same_numbers_as_json_and_csv(tmp_path: Path) -> None:
    path = pairs(tmp_path)
    whole = json.loads(run("--from", path, "--format", "json"))
    (row,) = whole["rows"]
    assert row["win_rate"] == pytest.approx(25 / 39)
    assert row["win_rate_low"] < row["win_rate"] < row["win_rate_high"]
    assert (row["n_wins"], row["n_draws"], row["n_losses"], row["n_missing"]) == (20, 10, 9, 1)
    assert row["missing"] == {"no verdict in the judge's reply": 1}
    assert row["same_winner"] == pytest.approx(29 / 39)
    assert row["length_controlled"] is None
    assert row["notes"] == ["no answers in the file: no length control"]
    assert any("Missing of dpo" in note for note in whole["notes"])
    (line,) = csv.DictReader(io.StringIO(run("--from", path, "--format", "csv")))
    assert set(line) == set(row)
    assert float(line["win_rate"]) == row["win_rate"]
    assert line["missing"] == "1 × no verdict in the judge's reply"
    assert line["length_controlled"] == ""


def test_settings_are_told(tmp_path: Path) -> None:
    path = pairs(tmp_path)
    text = run("--from", path, "--orders", "both", "--strong-weight", 3, "--confidence", 0.9)
    assert "Percentages with 90% bootstrap intervals" in text
    assert "A pair judged in both orders is a draw unless both have the same winner." in text
    assert "Wins by far count 3 times in the win rate and SE, once elsewhere." in text
    one, other = (
        json.loads(run("--from", path, "--format", "json", "--seed", seed, "--resamples", 99))[
            "rows"
        ][0]
        for seed in (0, 1)
    )
    assert one["win_rate"] == other["win_rate"]
    assert one != other


def test_answers_give_length_control(tmp_path: Path) -> None:
    answers = tmp_path / "answers.jsonl"
    answers.write_text(
        "".join(
            json.dumps(
                {
                    "question_id": i,
                    "model_id": model,
                    "choices": [{"turns": ["x" * (20 + sign * i)]}],
                }
            )
            + "\n"
            for i in range(40)
            for model, sign in (("dpo", -0), ("sft", 1))
        )
    )
    text = run("--from", pairs(tmp_path), "--answers", answers, "--width", 200)
    assert "length-controlled ↑" in text
    assert "20 vs 40" in text
    assert "Length-controlled: the win rate were both answers equally long" in text
    assert "no length control" not in text


def several() -> Shown:
    judgments = [
        Judgment(str(i), name, opponent, float(i % 3 == wins), judge="judge", shown_first=True)
        for i in range(30)
        for name, opponent, wins in (
            ("dpo", "sft", 0),
            (HOSTILE, "sft", 9),
            ("dpo", "=base", 1),
        )
    ]
    judgments.append(Judgment("x", "none", "sft", None, HOSTILE, judge="judge"))
    return Shown(tuple(statistics_of(judgments, n_resamples=50)))


def test_rows_are_told_apart_and_the_best_comes_first() -> None:
    text = STYLES["text"](several(), 200)
    title, table, notes = text.split("\n\n")
    assert title == "Win rates, judged by judge"
    rows = table.splitlines()[2:]
    assert [row.split()[:2] for row in rows[:2]] == [["dpo", "=base"], ["dpo", "sft"]]
    assert rows[-1].split()[:4] == ["none", "sft", "—", "—"]
    assert "0.0 [0.0, 11.4]" in rows[2]  # Wilson's
    assert "dpo against =base, dpo against sft, evil" in notes
    assert "one order only for all comparisons (30 with the checkpoint first)" in notes


@pytest.mark.parametrize("style", STYLES)
def test_hostile_names_steer_nothing(style: str) -> None:
    text = STYLES[style](several(), 80)
    assert "\x1b" not in text
    assert "\u202e" not in text
    if style == "markdown":
        assert "<script>" not in text
        table = text.split("\n\n")[1]
        assert len({line.replace("\\|", "").count("|") for line in table.splitlines()}) == 1
    if style == "csv":
        assert "'=base" in [row["opponent"] for row in csv.DictReader(io.StringIO(text))]


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.json: cannot be read"):
        run("--from", tmp_path / "none.json")
    with pytest.raises(InputError, match="confidence must lie between 0 and 1"):
        run("--from", pairs(tmp_path), "--confidence", 95)
    with pytest.raises(DataError, match="key 'judge': holds list where a text"):
        run("--from", pairs(tmp_path), "--form", "arena_hard", "--opponent", "x")


def test_help_has_examples() -> None:
    said = " ".join(run("--help").split())
    assert "prefbench winrate --from annotations.json" in said
    assert "asks no judge" in said
