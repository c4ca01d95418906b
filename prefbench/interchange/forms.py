"""The forms of judgments that can be read, and which one a file has."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from prefbench.errors import DataError, InputError
from prefbench.interchange import alpaca_eval, arena_hard, mt_bench
from prefbench.interchange.annotations import Judgment
from prefbench.interchange.answers import read_answers, with_answers
from prefbench.interchange.rows import Row, read_rows

FORMS = ("alpaca_eval", "arena_hard", "mt_bench")


def read_judgments(
    paths: Sequence[Path],
    *,
    form: str = "auto",
    answers: Iterable[Path] = (),
    opponent: str | None = None,
) -> list[Judgment]:
    """The judgments of files of one form.

    Args:
        paths: the files, such as one per model.
        form: one of FORMS; "auto" looks at the first row of each file.
        answers: files with the answers of Arena-Hard's or MT-Bench's models.
        opponent: whom older files of Arena-Hard compare with.

    Raises:
        DataError: a file is not what it should be, or files have different forms.
    """
    if form not in (*FORMS, "auto"):
        raise InputError(f"no form is named {form!r}; there are: auto, {', '.join(FORMS)}")
    rows: list[Row] = []
    found = form
    for path in paths:
        of_file = read_rows(path)
        one = form_of(of_file[0]) if form == "auto" else form
        if rows and one != found:
            raise DataError(
                f"{path}: {one}, while {paths[0]} is {found}; read files of one form at a time"
            )
        found = one
        rows += of_file
    if not rows:
        raise InputError("no file of judgments was given")
    if found == "alpaca_eval":
        judgments = alpaca_eval.judgments_from(rows)
    elif found == "arena_hard":
        judgments = arena_hard.judgments_from(rows, opponent=opponent)
    else:
        judgments = mt_bench.judgments_from(rows)
    known = read_answers(answers)
    return with_answers(judgments, known) if known else judgments


def form_of(row: Row) -> str:
    """The form of a file that begins with this row."""
    if "games" in row.fields:
        return "arena_hard"
    if {"g1_winner", "model_1"} & set(row.fields):
        return "mt_bench"
    if {"preference", "generator_1"} & set(row.fields):
        return "alpaca_eval"
    there = ", ".join(sorted(row.fields)[:12]) or "nothing"
    raise DataError(
        f"{row.where}: no judgments of a known form: AlpacaEval's have preference and generator_1, "
        f"Arena-Hard's games, MT-Bench's g1_winner and g2_winner; here are {there}"
    )
