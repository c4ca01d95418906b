"""Old lm-eval runs as rows of the table, held against what prefbench measured itself."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from prefbench.errors import InputError
from prefbench.interchange.imported import Imported, import_lm_eval
from prefbench.interchange.lm_eval_in import read_run
from prefbench.leaderboard import Board, Entry
from prefbench.report.collect import collect, gather
from prefbench.report.exports import export
from prefbench.store import Store
from tests.interchange.conftest import LIMIT

OLD = "sft (lm-eval)"


def results_file(folder: Path) -> Path:
    (path,) = folder.glob("results_*.json")
    return path


def samples_file(folder: Path, task: str) -> Path:
    (path,) = folder.glob(f"samples_{task}_*.jsonl")
    return path


def rewrite(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Changes a JSON file."""
    whole = json.loads(path.read_text())
    change(whole)
    path.write_text(json.dumps(whole))


def rewrite_rows(path: Path, change: Callable[[list[dict[str, Any]]], Any]) -> None:
    """Changes the rows of a file of JSON lines."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows = change(rows) or rows
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def unhash(folder: Path) -> None:
    """As lm-eval wrote before it hashed samples."""
    rewrite(results_file(folder), lambda whole: whole.pop("task_hashes"))


def entry(board: Board, row: str, task: str, metric: str) -> Entry | None:
    (checkpoint,) = (one for one in board.rows if one.name == row)
    (column,) = (c for c in board.columns if (c.group.task, c.metric.name) == (task, metric))
    return board.entry(checkpoint, column)


def as_ours(measured: Path, theirs: Path, task: str, **more: Any) -> Imported:
    (done,) = import_lm_eval([theirs], measured, task=task, as_task=task, **more)
    return done


@pytest.mark.parametrize(
    ("task", "metrics"),
    [
        ("demo_facts", ["acc", "acc_norm"]),
        ("demo_sums", ["exact_match,strict-match", "exact_match,final-number"]),
        ("demo_text", ["word_perplexity", "bits_per_byte"]),
    ],
)
def test_lm_evals_own_run_is_ours_item_by_item(
    measured: Path, theirs: Path, task: str, metrics: list[str]
) -> None:
    done = as_ours(measured, theirs, task)
    assert (done.n_items, done.n_missing, done.n_left_out) == (LIMIT, 0, 0)
    gathered = gather(measured)
    both = {one.checkpoint: one for one in gathered.measured if one.group.startswith(task)}
    old, ours = both[OLD], both["sft"]
    assert old.group == ours.group
    assert old.items.tolist() == ours.items.tolist()
    assert old.clusters.tolist() == ours.clusters.tolist()
    assert old.quantities
    for name, values in old.quantities.items():
        assert values == pytest.approx(ours.quantities[name], rel=1e-5)
    board = collect(measured, baseline="sft")
    for metric in metrics:
        found = entry(board, OLD, task, metric)
        assert found is not None
        assert found.difference is not None
        assert abs(found.difference.value) <= 1e-5 * abs(found.score.estimate.value)
        assert found.difference.n == LIMIT
    assert any("imported from lm-eval 0.4" in note for note in board.notes)
    assert not any("the same text" in note for note in board.notes)
    store = Store(measured, create=False)
    theirs_kept = store.answers(done.cell)
    for mine, other in zip(
        theirs_kept, store.answers(gathered.cells["sft", old.group]), strict=True
    ):
        assert mine.texts == other.texts
        assert mine.logps == pytest.approx(other.logps, rel=1e-4)


def test_documents_are_matched_by_what_they_say(measured: Path, theirs: Path) -> None:
    unhash(theirs)

    def shuffle(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        for row in rows:
            row["doc_id"] = 100 - row["doc_id"]
            row["doc"] = {"more": row["doc_id"], **row["doc"]}  # a column that ours lacks
        rows[0]["doc"]["question"] = "Who has never been asked before?"
        return rows[::-1]

    rewrite_rows(samples_file(theirs, "demo_facts"), shuffle)
    done = as_ours(measured, theirs, "demo_facts")
    assert (done.n_items, done.n_missing, done.n_left_out) == (LIMIT - 1, 1, 1)
    gathered = gather(measured)
    both = {one.checkpoint: one for one in gathered.measured if one.group.startswith("demo_facts")}
    assert both[OLD].quantities["acc"][1:].tolist() == both["sft"].quantities["acc"][1:].tolist()
    assert str(both[OLD].quantities["acc"][0]) == "nan"
    notes = " ".join(gathered.notes)
    assert f"1 of {LIMIT} items have no value (1 × not in the imported run)" in notes
    assert f"1 of the {LIMIT} documents of" in notes
    found = entry(collect(measured, baseline="sft"), OLD, "demo_facts", "acc")
    assert found is not None
    assert found.difference is not None
    assert found.difference.n == LIMIT - 1


def test_numbers_alone_show_no_document(measured: Path, theirs: Path) -> None:
    unhash(theirs)

    def bare(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            row["doc"] = {"id": row["doc"]["id"], "n": row["doc_id"]}

    rewrite_rows(samples_file(theirs, "demo_facts"), bare)
    with pytest.raises(InputError, match=f"none of its {LIMIT} documents"):
        as_ours(measured, theirs, "demo_facts")


def test_another_prompt_is_said(measured: Path, theirs: Path) -> None:
    def other(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            for sent in row["arguments"].values():
                sent["arg_0"] = "Please answer.\n" + sent["arg_0"]

    rewrite_rows(samples_file(theirs, "demo_facts"), other)
    as_ours(measured, theirs, "demo_facts")
    assert any("not all checkpoints were sent the same text" in n for n in gather(measured).notes)


def test_other_settings_than_the_tasks_are_said(measured: Path, theirs: Path) -> None:
    def other(whole: dict[str, Any]) -> None:
        whole["n-shot"]["demo_sums"] = 0
        whole["configs"]["demo_sums"]["generation_kwargs"]["max_gen_toks"] = 256

    assert not any("max_gen_toks" in note for note in gather(measured).notes)
    as_ours(measured, theirs, "demo_sums")
    assert not any("max_gen_toks" in note for note in gather(measured).notes)
    rewrite(results_file(theirs), other)
    done = as_ours(measured, theirs, "demo_sums")
    notes = " ".join(gather(measured).notes)
    assert "has max_gen_toks 256, demo_sums has 6" in notes
    assert "has 0 examples in each prompt, demo_sums has 5" in notes
    manifest = Store(measured, create=False).manifest(done.cell)
    assert manifest is not None
    assert manifest["task"]["n_shots"] == 0


def test_without_a_task_of_ours_it_is_a_column_of_its_own(theirs: Path, tmp_path: Path) -> None:
    done = import_lm_eval([theirs], tmp_path / "new", method="DPO", name="last year")
    assert [one.task for one in done] == ["demo_facts", "demo_sums", "demo_text"]
    assert all(one.new and one.n_items == LIMIT for one in done)
    board = collect(tmp_path / "new")
    (row,) = board.rows
    assert (row.name, row.method) == ("last year", "dpo")
    whole = json.loads(results_file(theirs).read_text())["results"]
    for column in board.columns:
        assert "imported from lm-eval 0.4" in column.group.conditions
        found = board.entry(row, column)
        assert found is not None
        metric, _, pipeline = column.metric.name.partition(",")
        value = whole[column.group.task][f"{metric},{pipeline or 'none'}"]
        assert found.score.estimate.value == pytest.approx(value, rel=1e-6)
        assert found.score.estimate.n == LIMIT
    assert {c.metric.name: c.metric.higher_is_better for c in board.columns}["acc"] is True


def test_two_old_runs_are_compared_with_each_other(theirs: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(theirs, tmp_path / "other"))
    rewrite(results_file(other), lambda whole: whole.update(model_name="dpo"))
    import_lm_eval([theirs, other], tmp_path / "new")
    board = collect(tmp_path / "new", baseline=OLD)
    found = entry(board, "dpo (lm-eval)", "demo_facts", "acc")
    assert found is not None
    assert found.difference is not None
    assert found.difference.value == 0


def test_other_documents_under_the_same_numbers_are_not_paired(
    theirs: Path, tmp_path: Path
) -> None:
    other = Path(shutil.copytree(theirs, tmp_path / "other"))
    unhash(other)
    rewrite(results_file(other), lambda whole: whole.update(model_name="dpo"))

    def turn(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            row["doc_id"] = LIMIT - 1 - row["doc_id"]

    rewrite_rows(samples_file(other, "demo_facts"), turn)
    import_lm_eval([theirs, other], tmp_path / "new", task="demo_facts")
    gathered = gather(tmp_path / "new")
    assert len({one.group for one in gathered.measured}) == 2


def test_without_samples_values_stand_as_lm_eval_gave_them(measured: Path, theirs: Path) -> None:
    for path in theirs.glob("samples_*"):
        path.unlink()

    def say(whole: dict[str, Any]) -> None:
        whole["results"]["demo_facts"]["acc_stderr,none"] = 0.125

    rewrite(results_file(theirs), say)
    done = import_lm_eval([theirs], measured)
    assert all(not one.by_item and one.aggregates for one in done)
    told = json.loads(results_file(theirs).read_text())["results"]["demo_facts"]
    manifest = Store(measured, create=False).manifest(done[0].cell)
    assert manifest is not None
    imported = manifest["imported"]
    assert imported["metrics"]["acc"] == {"value": told["acc,none"], "se": 0.125, "n": LIMIT}
    assert imported["metrics"]["acc_norm"]["se"] is None
    assert imported["source"] == results_file(theirs).name
    board = collect(measured)
    (column,) = (
        c for c in board.columns if c.metric.name == "acc" and "imported" in c.group.conditions
    )
    (row,) = (one for one in board.rows if one.name == OLD)
    found = board.entry(row, column)
    assert found is not None
    estimate = found.score.estimate
    assert estimate.value == told["acc,none"]
    assert (estimate.high - estimate.low) / 2 == pytest.approx(1.96 * 0.125, rel=1e-3)
    assert any("unpaired" in note for note in board.notes)


def test_without_samples_a_run_joins_a_column_unpaired(measured: Path, theirs: Path) -> None:
    for path in theirs.glob("samples_*"):
        path.unlink()

    def say(whole: dict[str, Any]) -> None:
        whole["results"]["demo_facts"].update({"acc,none": 0.75, "acc_stderr,none": 0.125})

    rewrite(results_file(theirs), say)
    before = entry(collect(measured, baseline="sft"), "sft", "demo_facts", "acc")
    done = as_ours(measured, theirs, "demo_facts")
    assert (done.n_items, done.n_missing, done.n_left_out) == (0, 0, 0)
    board = collect(measured, baseline="sft")
    old, ours = (entry(board, row, "demo_facts", "acc") for row in (OLD, "sft"))
    assert old is not None
    assert ours is not None
    assert old.difference is not None
    assert old.score.estimate.value == 0.75
    assert old.difference.value == pytest.approx(0.75 - ours.score.estimate.value)
    assert old.difference.se == pytest.approx(math.hypot(0.125, ours.score.estimate.se))
    notes = " ".join(board.notes)
    assert "could not be held against those of demo_facts" in notes
    assert "the same text" not in notes
    assert ours == before


def snapshot(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_the_same_file_twice_changes_nothing(measured: Path, theirs: Path) -> None:
    first = import_lm_eval([theirs], measured)
    as_ours(measured, theirs, "demo_facts")
    before = snapshot(measured)
    again = import_lm_eval([theirs], measured)
    assert not any(one.new for one in again)
    assert [one.cell for one in again] == [one.cell for one in first]
    as_ours(measured, theirs, "demo_facts")
    assert snapshot(measured) == before


def test_a_folder_with_two_runs_shows_the_later_and_stays_so(theirs: Path, tmp_path: Path) -> None:
    for path in theirs.glob("samples_*"):
        path.unlink()
    later = theirs / "results_2099-01-01T00-00-00.000000.json"
    shutil.copy(results_file(theirs), later)
    rewrite(later, lambda whole: whole["results"]["demo_facts"].update({"acc,none": 0.99}))
    results = tmp_path / "new"
    assert len(import_lm_eval([theirs], results)) == 6
    before = snapshot(results)
    assert not any(one.new for one in import_lm_eval([theirs], results))
    assert snapshot(results) == before
    (found,) = (e for e in collect(results).entries.values() if e.score.metric == "acc")
    assert found.score.estimate.value == 0.99


def test_a_share_of_the_documents_is_said(theirs: Path, tmp_path: Path) -> None:
    rewrite(results_file(theirs), lambda whole: whole["config"].update(limit=0.25))
    import_lm_eval([theirs], tmp_path / "new", task="demo_facts")
    (column, *_) = collect(tmp_path / "new").columns
    assert column.group.conditions.endswith(", 0.25 of the documents")


def test_other_content_at_its_path_is_a_new_cell_and_counts(measured: Path, theirs: Path) -> None:
    for path in theirs.glob("samples_*"):
        path.unlink()
    file = results_file(theirs)
    original = file.read_text()

    def shown() -> float:
        board = collect(measured)
        (found,) = (
            e for (row, _), e in board.entries.items()
            if row == OLD and e.score.metric == "acc"
        )  # fmt: skip
        return found.score.estimate.value

    (first, *_) = import_lm_eval([theirs], measured)
    old = shown()
    rewrite(file, lambda whole: whole["results"]["demo_facts"].update({"acc,none": 0.99}))
    (second, *_) = import_lm_eval([theirs], measured)
    assert second.new
    assert second.cell != first.cell
    assert shown() == 0.99
    file.write_text(original)
    (third, *_) = import_lm_eval([theirs], measured)
    assert (third.new, third.cell) == (False, first.cell)
    assert shown() == old


def test_our_own_export_comes_back_as_it_was(measured: Path, tmp_path: Path) -> None:
    export("lm-eval", measured, tmp_path / "out")
    before = collect(measured)
    import_lm_eval([tmp_path / "out" / "dpo"], tmp_path / "back")
    back = collect(tmp_path / "back")
    (row,) = back.rows
    (dpo,) = (one for one in before.rows if one.name == "dpo")
    values = {
        (c.group.task, c.metric.name): entry
        for c in before.columns
        if (entry := before.entry(dpo, c))
    }
    compared = 0
    for column in back.columns:
        found = back.entry(row, column)
        assert found is not None
        key = column.group.task.partition("_against_")[0], column.metric.name
        assert found.score.estimate.value == pytest.approx(values[key].score.estimate.value)
        assert found.score.estimate.n == values[key].score.estimate.n
        compared += 1
    assert compared == len(values)


def test_what_was_imported_goes_out_again(theirs: Path, tmp_path: Path) -> None:
    import_lm_eval([theirs], tmp_path / "new")
    export("lm-eval", tmp_path / "new", tmp_path / "out")
    (folder,) = (tmp_path / "out").iterdir()
    first, second = (json.loads(results_file(one).read_text()) for one in (theirs, folder))
    for task, values in first["results"].items():
        for key, value in values.items():
            if "," in key and "_stderr" not in key:
                assert second["results"][task][key] == pytest.approx(value, rel=1e-6)
    for key in ("model", "model_args"):
        assert second["config"][key] == first["config"][key]
    for task in ("demo_facts", "demo_text"):  # the sums' filter is code, which no file brings
        assert second["task_hashes"][task] == first["task_hashes"][task]
    rows = samples_file(folder, "demo_sums").read_text().splitlines()
    assert all("filtered_resps" not in json.loads(row) for row in rows)
    assert second["lm_eval_version"] == first["lm_eval_version"]


def truncate(folder: Path) -> None:
    path = results_file(folder)
    path.write_text(path.read_text()[:-40])


def cut_samples(folder: Path) -> None:
    path = samples_file(folder, "demo_facts")
    path.write_text(path.read_text()[:-40])


def no_results(folder: Path) -> None:
    rewrite(results_file(folder), lambda whole: whole.pop("results"))


def empty_results(folder: Path) -> None:
    rewrite(results_file(folder), lambda whole: whole.update(results={}))


def not_a_number(folder: Path) -> None:
    def change(whole: dict[str, Any]) -> None:
        whole["results"]["demo_facts"]["acc,none"] = float("nan")

    rewrite(results_file(folder), change)


def sample_not_a_number(folder: Path) -> None:
    rewrite_rows(samples_file(folder, "demo_facts"), lambda rows: rows[2].update(acc=float("inf")))


def other_samples(folder: Path) -> None:
    rewrite_rows(samples_file(folder, "demo_facts"), lambda rows: rows[0].update(doc_hash="0" * 64))


def other_values(folder: Path) -> None:
    unhash(folder)

    def change(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            row["acc"] = 1 - row["acc"]

    rewrite_rows(samples_file(folder, "demo_facts"), change)


def twice(folder: Path) -> None:
    rewrite_rows(samples_file(folder, "demo_facts"), lambda rows: [*rows, rows[3]])


def no_number(folder: Path) -> None:
    rewrite_rows(samples_file(folder, "demo_facts"), lambda rows: rows[1].update(doc_id="x"))


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (truncate, r"results_.*\.json: not JSON .* was it cut off"),
        (cut_samples, r"samples_demo_facts_.*\.jsonl, line 8: not JSON"),
        (no_results, r"results_.*\.json, key 'results': is absent"),
        (empty_results, r"results_.*\.json, key 'results': is empty"),
        (not_a_number, r"results_.*\.json, key 'results.demo_facts.acc,none': holds nan"),
        (sample_not_a_number, r"samples_demo_facts_.*\.jsonl, line 3, key 'acc': holds inf"),
        (other_samples, r"samples_demo_facts_.*\.jsonl: not the samples of results_"),
        (other_values, r"key 'results.demo_facts.acc': is .* of another run"),
        (twice, r"samples_demo_facts_.*\.jsonl, line 9, key 'doc_id': 3 is there twice"),
        (no_number, r"samples_demo_facts_.*\.jsonl, line 2, key 'doc_id': holds 'x'"),
    ],
)
def test_what_is_wrong_is_named_and_nothing_is_written(
    measured: Path, theirs: Path, damage: Callable[[Path], None], told: str
) -> None:
    damage(theirs)
    before = snapshot(measured)
    with pytest.raises(InputError, match=told):
        import_lm_eval([theirs], measured)
    assert snapshot(measured) == before


def test_what_is_not_there_is_said(measured: Path, theirs: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="demo_causal was not measured here"):
        import_lm_eval([theirs], measured, task="demo_facts", as_task="demo_causal")
    with pytest.raises(InputError, match="has several tasks"):
        import_lm_eval([theirs], measured, as_task="demo_facts")
    with pytest.raises(InputError, match="no results file has a task named 'mmlu'"):
        import_lm_eval([theirs], measured, task="mmlu")
    with pytest.raises(InputError, match="cannot be read"):
        import_lm_eval([tmp_path / "results_x.json"], measured)
    with pytest.raises(InputError, match=r"no results_\*.json"):
        import_lm_eval([measured / "plans"], measured)
    with pytest.raises(InputError, match=r"give the results_\*.json"):
        import_lm_eval([samples_file(theirs, "demo_facts")], measured)


def test_an_older_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "results_old.json"
    path.write_text(
        json.dumps(
            {
                "results": {"gsm8k": {"acc": 0.5, "acc_stderr": 0.01, "alias": "gsm8k"}},
                "config": {"model": "hf", "model_args": "pretrained=org/model,dtype=float16"},
            }
        )
    )
    run = read_run(path)
    assert run.model_name == "org/model"
    assert run.tasks["gsm8k"].metrics["acc"].se == 0.01
    (done,) = import_lm_eval([path], tmp_path / "results")
    assert done.checkpoint == "org/model (lm-eval)"
