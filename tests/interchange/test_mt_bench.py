from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from prefbench.errors import DataError, InputError
from prefbench.interchange.annotations import Judgment, statistics_of
from prefbench.interchange.mt_bench import NO_VERDICT, read_judgments, write_judgments


def row(question: Any, first: Any, second: Any, **more: Any) -> dict[str, Any]:
    return {
        "question_id": question,
        "model_1": "dpo",
        "model_2": "sft",
        "g1_winner": first,
        "g2_winner": second,
        "judge": ["judge-1", "pair"],
        "g1_user_prompt": "which?",
        "g1_judgment": "[[A]]",
        "g2_user_prompt": "which?",
        "g2_judgment": "[[B]]",
        "turn": 1,
        "tstamp": 1.5,
        **more,
    }


def kept(tmp_path: Path, *rows: dict[str, Any]) -> Path:
    path = tmp_path / "judge_pair.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    return path


def test_a_row_is_a_judgment_in_each_order(tmp_path: Path) -> None:
    first, second = read_judgments(kept(tmp_path, row(81, "model_1", "tie", turn=2)))
    assert first == Judgment(
        prompt="81",
        checkpoint="dpo",
        opponent="sft",
        preference=1,
        turn=2,
        shown_first=True,
        judge="judge-1",
        judge_prompt="pair",
        raw="[[A]]",
    )
    assert (second.preference, second.shown_first, second.raw) == (0.5, False, "[[B]]")


def test_what_mt_bench_publishes_of_such_rows(tmp_path: Path) -> None:
    rows = [
        row(81, "model_1", "model_1"),
        row(81, "model_1", "model_2", turn=2),
        row(82, "tie", "model_1"),
        row(82, "model_2", "model_2", turn=2),
        row(83, "model_1", "model_1", judge=["judge-1", "pair-math"]),
        row(84, "error", "model_1"),
    ]
    judgments = read_judgments(kept(tmp_path, *rows))
    (found,) = statistics_of(judgments, orders="both", n_resamples=50)
    # 2 wins, 2 ties, 1 loss; the error is left out: win_rate_adjusted (2 + 2 / 2) / 5.
    assert (found.n_wins, found.n_draws, found.n_losses, found.n_missing) == (2, 2, 1, 1)
    assert found.win_rate.value == pytest.approx(3 / 5)
    assert found.reasons == ((NO_VERDICT, 1),)
    assert found.judge == "judge-1"
    (mean,) = statistics_of(judgments, n_resamples=50)
    assert mean.win_rate.value == pytest.approx((1 + 0.5 + 0.75 + 0 + 1) / 5)


def test_single_gradings_have_no_order(tmp_path: Path) -> None:
    graded = row(81, "model_1", "model_1", m1_score=8, m2_score=3)
    del graded["turn"]
    (found,) = read_judgments(kept(tmp_path, graded))
    assert (found.preference, found.shown_first, found.turn) == (1, None, 1)
    (result,) = statistics_of([found], n_resamples=10)
    assert result.consistency is None


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"g1_winner": "A"}, "line 2, key 'g1_winner': holds 'A', not one of model_1, tie"),
        ({"g2_winner": None}, "key 'g2_winner': a text is needed"),
        ({"g1_winner": None, "score": 7}, "grades one answer alone.*--mode pairwise-baseline"),
        ({"turn": 0}, "key 'turn': holds 0 where a whole number"),
        ({"turn": True}, "key 'turn': holds True where"),
        ({"model_2": ["x"]}, "key 'model_2': holds list where a text"),
        ({"judge": ["x"]}, "key 'judge': holds list where a text"),
        ({"question_id": 81}, "line 2: judged before, in .*line 1; keep one"),
        ({"question_id": 1.5}, "key 'question_id': holds 1.5 where a text"),
    ],
)
def test_rows_that_are_wrong_are_refused(
    tmp_path: Path, more: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        read_judgments(kept(tmp_path, row(81, "tie", "tie"), row(82, "tie", "tie", **more)))


def test_written_and_read_again(tmp_path: Path) -> None:
    rows = [
        row(81, "model_1", "tie"),
        row(81, "error", "model_2", turn=2),
        row("a-82", "tie", "tie", g1_judgment="\u2028\ud800"),
    ]
    judgments = read_judgments(kept(tmp_path, *rows))
    write_judgments(judgments, tmp_path / "out.jsonl")
    assert read_judgments(tmp_path / "out.jsonl") == judgments
    first = json.loads((tmp_path / "out.jsonl").read_text().split("\n")[0])
    assert (first["question_id"], first["judge"]) == (81, ["judge-1", "pair"])


def test_what_its_rows_cannot_hold(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"prompt p, dpo against sft: MT-Bench's rows.*both orders"
    ):
        write_judgments([Judgment("p", "dpo", "sft", 1)], tmp_path / "out.jsonl")
    soft = [Judgment("p", "dpo", "sft", 0.3, shown_first=order) for order in (True, False)]
    with pytest.raises(InputError, match=r"preference 0\.3 is none of MT-Bench's"):
        write_judgments(soft, tmp_path / "out.jsonl")
