from __future__ import annotations

import csv
import dataclasses
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prefbench.errors import DataError, InputError
from prefbench.interchange.alpaca_eval import (
    Output,
    leaderboard_row,
    read_judgments,
    read_outputs,
    write_judgments,
    write_outputs,
)
from prefbench.interchange.annotations import Judgment, statistics_of

CHECKOUT = "PREFBENCH_ALPACA_EVAL"


def row(instruction: str, preference: Any, **more: Any) -> dict[str, Any]:
    return {
        "instruction": instruction,
        "output_1": "the baseline says",
        "generator_1": "sft",
        "dataset": "made_up",
        "output_2": "what dpo says",
        "generator_2": "dpo",
        "annotator": "some_judge",
        "preference": preference,
        "time_per_example": 0.1,
        "price_per_example": 0.002,
        "raw_completion": {"text": "m"},
        **more,
    }


def kept(tmp_path: Path, *rows: dict[str, Any]) -> Path:
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps(rows))
    return path


def test_what_alpaca_eval_publishes_of_such_rows(tmp_path: Path) -> None:
    codes = [1, 2, 1.5, 0, 1.9, 1.4999, None, math.nan]
    texts = ["x" * 10, "x" * 11, "", "x", "x", "x", "x", "x" * 7]
    path = kept(
        tmp_path,
        *(
            row(f"question {i}", code, output_2=text)
            for i, (code, text) in enumerate(zip(codes, texts, strict=True))
        ),
    )
    (found,) = statistics_of(read_judgments(path), n_resamples=10)
    wins = [0, 1, 0.5, 0.5, 0.9, 0.4999]
    mean = sum(wins) / 6
    assert leaderboard_row(found) == pytest.approx(
        {
            "win_rate": 100 * mean,
            "standard_error": 100 * math.sqrt(sum((w - mean) ** 2 for w in wins) / 5 / 6),
            "n_wins": 2,
            "n_wins_base": 2,
            "n_draws": 2,
            "n_total": 6,
            "discrete_win_rate": 50.0,
            "avg_length": 4,  # of 33 characters in 8 answers, cut and not rounded
        }
    )
    assert found.n_missing == 2
    assert sorted(reason for reason, _ in found.reasons) == [
        "the preference is NaN: the judge's reply could not be read",
        "the preference is null: the judge's reply could not be read",
    ]


def test_a_row_becomes_a_judgment(tmp_path: Path) -> None:
    (found,) = read_judgments(kept(tmp_path, row("Why\u2028?", 1.25)))
    assert found == Judgment(
        prompt=found.prompt,
        checkpoint="dpo",
        opponent="sft",
        preference=0.25,
        instruction="Why\u2028?",
        answer="what dpo says",
        opponent_answer="the baseline says",
        judge="some_judge",
        category="made_up",
        raw={"text": "m"},
    )
    assert len(found.prompt) == 16


def test_a_prompt_that_is_there_twice_is_one_cluster_of_two(tmp_path: Path) -> None:
    rows = [row("same", 1), row("same", 2, output_2="another"), row("other", 1)]
    (found,) = statistics_of(read_judgments(kept(tmp_path, *rows)), n_resamples=10)
    assert (found.n_wins, found.n_losses) == (1, 2)
    assert len({one.prompt for one in read_judgments(kept(tmp_path, *rows))}) == 2


def test_answers_may_be_unknown(tmp_path: Path) -> None:
    short = {k: v for k, v in row("a", 2).items() if k not in ("output_1", "output_2", "annotator")}
    (found,) = read_judgments(kept(tmp_path, short))
    assert (found.answer, found.opponent_answer, found.judge) == (None, None, "")
    (result,) = statistics_of([found], n_resamples=10)
    assert leaderboard_row(result)["avg_length"] is None
    assert leaderboard_row(result)["standard_error"] is None


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"preference": 2.5}, "row 2, key 'preference': holds 2.5; AlpacaEval codes from 1"),
        ({"preference": -1}, "holds -1; AlpacaEval codes"),
        ({"preference": math.inf}, "holds inf; AlpacaEval codes"),
        ({"preference": "2"}, "holds '2' where a number"),
        ({"preference": True}, "holds True where a number"),
        ({"instruction": None}, "row 2, key 'instruction': a text is needed"),
        ({"generator_1": 3}, "key 'generator_1': holds 3 where a text"),
        ({"output_2": ["x"]}, "key 'output_2': holds list where a text"),
        ({"instruction": "first"}, "row 2: judged before, in .*row 1; keep one"),
    ],
)
def test_rows_that_are_wrong_are_refused(
    tmp_path: Path, more: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        read_judgments(kept(tmp_path, row("first", 1), {**row("second", 1), **more}))


def test_a_row_without_preference_is_no_annotation(tmp_path: Path) -> None:
    short = {key: value for key, value in row("a", 1).items() if key != "preference"}
    with pytest.raises(DataError, match="key 'preference': is absent; the row has annotator"):
        read_judgments(kept(tmp_path, short))


def test_written_and_read_again(tmp_path: Path) -> None:
    rows = [row("a\ud800", 1.0000000918), row("b", None), row("c", 1.5), row("d", 2)]
    judgments = read_judgments(kept(tmp_path, *rows))
    write_judgments(judgments, tmp_path / "out.json")
    again = read_judgments(tmp_path / "out.json")
    assert again == judgments
    assert json.loads((tmp_path / "out.json").read_text())[0]["preference"] == 1.0000000918


def test_both_orders_are_written_as_one_row(tmp_path: Path) -> None:
    (one,) = read_judgments(kept(tmp_path, row("a", 2)))
    first = dataclasses.replace(one, shown_first=True)
    second = dataclasses.replace(one, shown_first=False, preference=0.5)
    missing = dataclasses.replace(second, preference=None, reason="why not")
    for other, code in ((second, 1.75), (missing, None)):
        write_judgments([first, other], tmp_path / "out.json")
        (written,) = json.loads((tmp_path / "out.json").read_text())
        assert written["preference"] == code
    with pytest.raises(InputError, match=r"prompt p, dpo against sft: AlpacaEval's.*both answers"):
        write_judgments([Judgment("p", "dpo", "sft", 1)], tmp_path / "out.json")


def test_outputs_are_read_and_written(tmp_path: Path) -> None:
    outputs = [Output("Why?", "Because.", "dpo", "made_up"), Output("\u2028", "", "dpo")]
    write_outputs(outputs, tmp_path / "model_outputs.json")
    assert read_outputs(tmp_path / "model_outputs.json") == outputs
    (tmp_path / "bad.json").write_text('[{"instruction": "a", "output": null, "generator": "b"}]')
    with pytest.raises(DataError, match="row 1, key 'output': a text is needed"):
        read_outputs(tmp_path / "bad.json")


# The repository's own files are not what its leaderboards were made of in these few places.
COPIED = {
    ("Mistral-7B-Instruct-v0.2", "alpaca_eval_gpt4_turbo_fn"): "the file is another judge's",
}
OTHER_LENGTHS = {
    ("falcon-7b-instruct", "alpaca_eval_gpt4"): "the file is falcon-40b-instruct's",
    # Answers that are empty have no row, and the published mean counts them.
    ("alpaca-7b_verbose", "weighted_alpaca_eval_gpt4_turbo"): "802 of 805",
    ("gpt35_turbo_instruct", "weighted_alpaca_eval_gpt4_turbo"): "804 of 805",
    ("minotaur-13b", "weighted_alpaca_eval_gpt4_turbo"): "804 of 805",
    ("phi-2", "weighted_alpaca_eval_gpt4_turbo"): "803 of 805",
    ("text_davinci_001", "weighted_alpaca_eval_gpt4_turbo"): "803 of 805",
}


def checkout() -> Path:
    if CHECKOUT not in os.environ:
        pytest.skip(f"{CHECKOUT} names no checkout of tatsu-lab/alpaca_eval")
    return Path(os.environ[CHECKOUT])


def published(folder: Path) -> Iterator[tuple[str, str, dict[str, str], Path]]:
    """Name, judge, line of the leaderboard and annotations, where Git LFS did not leave them out.

    Entries whose file holds what the leaderboard was not made of are passed over.
    """
    for board in sorted(folder.glob("src/alpaca_eval/leaderboards/data_*/*_leaderboard.csv")):
        judge = board.name.removesuffix("_leaderboard.csv")
        with board.open(encoding="utf-8", newline="") as file:
            lines = {line[""]: line for line in csv.DictReader(file)}
        for name, line in lines.items():
            path = folder / "results" / name / judge / "annotations.json"
            if path.exists() and (name, judge) not in COPIED:
                with path.open("rb") as start:
                    whole = start.read(7) != b"version"
                if whole:
                    yield name, judge, line, path


def test_published_leaderboards_are_reproduced() -> None:
    n_compared = 0
    for name, judge, line, path in published(checkout()):
        (found,) = statistics_of(read_judgments(path), n_resamples=1)
        for key, value in leaderboard_row(found).items():
            if line.get(key) and not (key == "avg_length" and (name, judge) in OTHER_LENGTHS):
                said = f"{name}, {judge}, {key}"
                assert value == pytest.approx(float(line[key]), abs=1e-8), said
        n_compared += 1
    assert n_compared > 0


def test_length_control_is_near_the_published_one() -> None:
    """Which also has the difficulty of each instruction; the table's note has these figures."""
    pairs = []
    for _, judge, line, path in published(checkout()):
        if judge == "weighted_alpaca_eval_gpt4_turbo" and line["length_controlled_winrate"]:
            (found,) = statistics_of(read_judgments(path), n_resamples=1)
            assert found.length_controlled is not None
            pairs.append(
                (100 * found.length_controlled.value, float(line["length_controlled_winrate"]))
            )
    ours, theirs = np.array(pairs).T
    assert np.corrcoef(ours, theirs)[0, 1] > 0.9
    assert np.abs(ours - theirs).mean() < 8
