"""The verb `import`, from lm-eval's files to the table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from prefbench.errors import InputError, PrefbenchError
from prefbench.report.collect import collect
from prefbench.report.explain.again import again
from prefbench.report.explain.behind import look_up
from prefbench.report.explain.explained import as_text
from prefbench.report.explain.samples import samples_of
from prefbench.report.imported import EXAMPLES, import_
from prefbench.report.tables import render
from prefbench.store import Store
from tests.interchange.conftest import LIMIT

app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)
app.command(epilog=EXAMPLES)(import_)


def run(*arguments: object) -> list[str]:
    done = CliRunner().invoke(app, list(map(str, arguments)))
    if isinstance(done.exception, PrefbenchError):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output.splitlines()


def test_it_says_what_joined_and_what_to_do_next(measured: Path, theirs: Path) -> None:
    arguments = [theirs, "--results", measured, "--task", "demo_facts", "--as", "demo_facts"]
    assert run(*arguments, "--method", "dpo") == [
        f"sft (lm-eval) × demo_facts: acc, acc_norm of {LIMIT} items",
        "prefbench table shows them.",
    ]
    assert run(*arguments, "--method", "dpo")[1] == "1 of 1 had been imported before."
    table = render(collect(measured), "text")
    assert "DPO (sft (lm-eval))" in table
    assert "imported from lm-eval" in table


def test_a_file_without_samples_is_unpaired(theirs: Path, tmp_path: Path) -> None:
    for path in theirs.glob("samples_*"):
        path.unlink()
    told = run(theirs, "--results", tmp_path / "new", "--task", "demo_facts", "--name", "old")
    assert told[0] == "old × demo_facts: acc, acc_norm without values by item, so unpaired"
    table = render(collect(tmp_path / "new"), "text")
    assert "unpaired" in table


def test_hostile_names_reach_no_terminal(tmp_path: Path) -> None:
    evil = "\x1b[31m\u202e../../x"
    path = tmp_path / "results_1.json"
    path.write_text(
        json.dumps({"results": {evil: {"acc,none": 0.5}}, "model_name": evil, "config": {}})
    )
    told = "\n".join(run(path, "--results", tmp_path / "results"))
    table = render(collect(tmp_path / "results"), "text")
    for text in (told, table):
        assert "\x1b" not in text
        assert "\u202e" not in text
    folders = {path.parent.name for path in (tmp_path / "results" / "cells").rglob("manifest.json")}
    assert all(len(name) == 24 for name in folders)


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        run(tmp_path / "results_x.json", "--results", tmp_path)


def test_a_value_without_items_is_explained(tmp_path: Path) -> None:
    path = tmp_path / "results_1.json"
    path.write_text(json.dumps({"results": {"quiz": {"acc,none": 0.5}}, "model_name": "dpo"}))
    run(path, "--results", tmp_path / "results")
    behind = look_up(tmp_path / "results", ["dpo (lm-eval)", "quiz"])
    assert samples_of(behind) == []
    with pytest.raises(InputError, match="has no item 3 here"):
        samples_of(behind, items=[3])
    told = as_text(behind, [], again(behind))
    assert "no weights were looked at: it was imported" in told
    assert "the hub" not in told


@pytest.mark.parametrize(
    ("key", "value"),
    [("higher_is_better", {"quiz": "x"}), ("results", {"quiz": {"acc,none": 10**400}})],
)
def test_what_lm_eval_does_not_write_is_said(key: str, value: object, tmp_path: Path) -> None:
    path = tmp_path / "results_1.json"
    path.write_text(json.dumps({"results": {"quiz": {"acc,none": 0.5}}, key: value}))
    with pytest.raises(InputError, match="not as lm-eval writes it"):
        run(path, "--results", tmp_path / "results")


def test_halves_of_characters_and_impossible_dates_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "results_1.json"
    whole = {"results": {"quiz": {"acc,none": 1.0}}, "date": 1e300, "config": {"limit": 1e400}}
    path.write_text(json.dumps(whole | {"configs": {"quiz": {"metric_list": 3}}}))
    row = {"doc_id": 0, "doc": {"question": "\ud83d, \U0001f600"}, "metrics": ["acc"], "acc": 1.0}
    (tmp_path / "samples_quiz_1.jsonl").write_text(json.dumps(row) + "\n")
    (told, _) = run(path, "--results", tmp_path / "results")
    assert told.endswith("acc of 1 items")
    store = Store(tmp_path / "results", create=False)
    (cell,) = (cell for plan in store.plans() for cell in plan["cells"])
    manifest = store.manifest(cell["cell"])
    assert manifest is not None
    (kept,) = store.items(manifest["items"]).to_pylist()
    assert json.loads(kept["fields"]) == {"question": "\ufffd, \U0001f600"}


def test_no_share_reaches_beyond_all_items(tmp_path: Path) -> None:
    path = tmp_path / "results_1.json"
    path.write_text(json.dumps({"results": {"quiz": {"acc,none": 0.9, "acc_stderr,none": 0.2}}}))
    run(path, "--results", tmp_path / "results")
    (found,) = collect(tmp_path / "results").entries.values()
    assert found.score.estimate.low == pytest.approx(0.508, abs=1e-3)
    assert found.score.estimate.high == 1
