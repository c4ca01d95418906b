from __future__ import annotations

import json
import multiprocessing
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import prefbench.engines
import prefbench.measures.requests
from prefbench.boards.shown import show
from prefbench.cells import Settings, find, plan_cells, plan_tasks
from prefbench.engines.hf import HFEngine
from prefbench.errors import DataError, InputError, TaskError
from prefbench.report.collect import collect
from prefbench.report.tables import render, rows_of
from prefbench.runner import Listener, Outcome, run
from prefbench.store import Cell, Store

FEW = Settings(limit=6, batch_size=4)
TASKS = ("demo_dialogues", "demo_everyday")


@pytest.fixture
def runs(small_zoo: Path, tmp_path: Path) -> Path:
    """A directory of two checkpoints that a test may break."""
    for name in ("sft", "dpo"):
        shutil.copytree(
            small_zoo / "checkpoints" / name,
            tmp_path / "runs" / name,
            ignore=shutil.ignore_patterns("checkpoint-*"),
        )
    return tmp_path / "runs"


@pytest.fixture
def mirror(small_zoo: Path) -> Path:
    return small_zoo / "data"


def measure(runs: Path, mirror: Path, settings: Settings = FEW, **more: Any) -> Outcome:
    return run(
        runs,
        **{
            "tasks": TASKS,
            "results": runs.parent / "results",
            "settings": settings,
            "mirrors": [mirror],
            **more,
        },
    )


def values(results: Path) -> dict[tuple[str, str, str], float | None]:
    rows = rows_of(show(collect(results)))
    return {(r["checkpoint"], r["task"], r["metric"]): r["value"] for r in rows if r["shown"]}


def test_every_cell_is_measured_once(runs: Path, mirror: Path, monkeypatch: Any) -> None:
    first = measure(runs, mirror)
    assert len(first.measured) == 4
    assert not first.failed
    table = render(collect(runs.parent / "results"), "text")

    def refuse(*args: Any) -> None:
        raise AssertionError("a model was loaded for a run that was done")

    monkeypatch.setattr(prefbench.engines.Engines, "open", refuse)
    again = measure(runs, mirror)
    assert again.measured == ()
    assert set(again.done) == set(first.measured)
    assert again.plan == first.plan
    assert render(collect(runs.parent / "results"), "text") == table


@pytest.fixture
def encoded(monkeypatch: Any) -> list[tuple[str, str]]:
    """The texts that are tokenised, and by which checkpoint."""
    encode, texts_of = HFEngine.encode, []

    def counted(self: Any, texts: Any, add_special_tokens: bool | None = None) -> Any:
        texts_of.extend((self.checkpoint.name, text) for text in texts)
        return encode(self, texts, add_special_tokens)

    monkeypatch.setattr(HFEngine, "encode", counted)
    return texts_of


def test_prompts_are_tokenised_once_for_checkpoints_that_share_a_tokenizer(
    runs: Path, mirror: Path, encoded: list[tuple[str, str]]
) -> None:
    measure(runs, mirror)
    assert {name for name, _ in encoded} == {"dpo"}  # the first
    n = len(encoded)
    shutil.rmtree(runs / "sft")
    measure(runs, mirror, results=runs.parent / "alone")
    assert len(encoded) == 2 * n


def test_what_a_failed_checkpoint_has_built_is_gone_on_with_by_the_next(
    runs: Path, mirror: Path, encoded: list[tuple[str, str]], monkeypatch: Any
) -> None:
    score = HFEngine.score

    def breaking(self: Any, requests: Any, **details: bool) -> Any:
        if self.checkpoint.name == "dpo":
            raise RuntimeError("device lost")
        return score(self, requests, **details)

    monkeypatch.setattr(prefbench.measures.requests, "CHUNK", 2)
    monkeypatch.setattr(HFEngine, "score", breaking)
    settings = Settings(limit=9, batch_size=2)
    outcome = measure(runs, mirror, settings, tasks=["demo_everyday"])
    assert list(outcome.failed) == ["dpo × demo_everyday"]
    first, second = ([t for n, t in encoded if n == name] for name in ("dpo", "sft"))
    assert first[0] not in second
    assert second[-1] not in first
    monkeypatch.setattr(HFEngine, "score", score)
    measure(runs, mirror, settings, tasks=["demo_everyday"], results=runs.parent / "alone")
    key = ("sft", "demo_everyday", "acc_norm")
    assert values(runs.parent / "results")[key] == values(runs.parent / "alone")[key]


def test_a_renamed_checkpoint_is_not_measured_again(runs: Path, mirror: Path) -> None:
    first = measure(runs, mirror)
    (runs / "dpo").rename(runs / "dpo-renamed")
    again = measure(runs, mirror)
    assert again.measured == ()
    found = values(runs.parent / "results")
    assert found["dpo-renamed", "demo_everyday", "acc_norm"] is not None
    assert set(again.done) == set(first.measured)


def test_an_overwritten_checkpoint_is_measured_again_and_its_old_numbers_are_gone(
    runs: Path, mirror: Path
) -> None:
    measure(runs, mirror)
    before = values(runs.parent / "results")
    weights = load_file(runs / "dpo" / "model.safetensors")
    save_file({k: v * 0.5 for k, v in weights.items()}, runs / "dpo" / "model.safetensors")
    assert len(measure(runs, mirror).measured) == len(TASKS)
    after = values(runs.parent / "results")
    key = ("dpo", "demo_dialogues", "perplexity.v1")
    assert after[key] != before[key]
    assert after["sft", *key[1:]] == before["sft", *key[1:]]


def test_numbers_of_weights_that_are_no_longer_there_are_not_shown(
    runs: Path, mirror: Path
) -> None:
    measure(runs, mirror)
    weights = load_file(runs / "dpo" / "model.safetensors")
    save_file({k: v * 0.5 for k, v in weights.items()}, runs / "dpo" / "model.safetensors")
    measure(runs, mirror, tasks=["demo_everyday"])
    rows = rows_of(show(collect(runs.parent / "results")))
    stale = [r for r in rows if r["checkpoint"] == "dpo" and r["task"] == "demo_dialogues"]
    assert {r["value"] for r in stale} == {None}
    assert {r["missing"] for r in stale} == {"the checkpoint has changed since; run again"}


def test_a_broken_checkpoint_takes_no_other_down(runs: Path, mirror: Path) -> None:
    weights = (runs / "dpo" / "model.safetensors").read_bytes()
    (runs / "dpo" / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    outcome = measure(runs, mirror)
    assert len(outcome.measured) == len(TASKS)
    assert list(outcome.broken) == ["dpo"]
    assert "model.safetensors" in outcome.broken["dpo"]
    assert outcome.broken["dpo"] in render(collect(runs.parent / "results"), "text")


def test_weights_that_do_not_load_fail_their_cells_alone(runs: Path, mirror: Path) -> None:
    facts = json.loads((runs / "dpo" / "config.json").read_text())
    (runs / "dpo" / "config.json").write_text(json.dumps({**facts, "model_type": "nonsense"}))
    outcome = measure(runs, mirror)
    assert len(outcome.measured) == len(TASKS)
    assert {name.partition(" × ")[0] for name in outcome.failed} == {"dpo"}
    assert all("cannot be loaded" in reason for reason in outcome.failed.values())
    rows = rows_of(show(collect(runs.parent / "results")))
    missing = {row["missing"] for row in rows if row["missing"]}
    assert any("cannot be loaded" in reason for reason in missing)


def test_weights_that_give_nan_have_missing_items_not_zeros(runs: Path, mirror: Path) -> None:
    weights = load_file(runs / "dpo" / "model.safetensors")
    broken = {k: torch.full_like(v, torch.nan) for k, v in weights.items()}
    save_file(broken, runs / "dpo" / "model.safetensors")
    assert not measure(runs, mirror).failed
    rows = [r for r in rows_of(show(collect(runs.parent / "results"))) if r["checkpoint"] == "dpo"]
    assert {r["value"] for r in rows} == {None}
    assert "the log-prob is not a finite number" in render(collect(runs.parent / "results"), "text")


def test_a_task_with_a_broken_file_takes_no_other_down(
    runs: Path, mirror: Path, tmp_path: Path
) -> None:
    shutil.copytree(mirror, tmp_path / "mirror")
    (tmp_path / "mirror" / "everyday" / "validation.jsonl").write_text('{"activity_label": "cut')
    outcome = measure(runs, tmp_path / "mirror")
    assert sorted(outcome.failed) == ["dpo × demo_everyday", "sft × demo_everyday"]
    assert all("validation.jsonl" in reason for reason in outcome.failed.values())
    assert len(outcome.measured) == 2
    # mended, it is a different data set, and nothing stands in its way
    assert not measure(runs, mirror).failed


def test_an_engine_that_breaks_in_the_middle_fails_its_cell_and_keeps_its_batches(
    runs: Path, mirror: Path, monkeypatch: Any
) -> None:
    score, calls = HFEngine.score, []

    def breaking(self: Any, requests: Any, **details: bool) -> Any:
        calls.append(len(requests))
        if len(calls) == 2:
            raise RuntimeError("device lost")
        return score(self, requests, **details)

    monkeypatch.setattr(HFEngine, "score", breaking)
    outcome = measure(runs, mirror)
    assert list(outcome.failed.values()) == ["RuntimeError: device lost"]
    monkeypatch.setattr(HFEngine, "score", score)
    again = measure(runs, mirror)
    assert not again.failed
    assert len(again.measured) == 1
    manifest = Store(runs.parent / "results").manifest(again.measured[0])
    assert manifest is not None
    assert manifest["resumed_batches"] == 1


def test_a_batch_whose_texts_have_changed_is_asked_again(
    runs: Path, mirror: Path, monkeypatch: Any
) -> None:
    def refuse(*args: Any) -> None:
        raise RuntimeError("no room")

    with monkeypatch.context() as patch:
        patch.setattr(Cell, "seal", refuse)
        measure(runs, mirror, tasks=["demo_everyday"])
    (journal, other) = sorted((runs.parent / "results").rglob("journal.jsonl"))
    other.unlink()
    header, first, second = journal.read_text().splitlines()
    changed = {**json.loads(first), "texts": "others"}
    changed["answers"] = [{**row, "logps": [0.0] * 4} for row in changed["answers"]]
    journal.write_text("\n".join([header, json.dumps(changed), second, ""]))
    assert not measure(runs, mirror, tasks=["demo_everyday"]).failed
    cell = journal.parent.name
    manifest = Store(runs.parent / "results").manifest(cell)
    assert manifest is not None
    assert manifest["resumed_batches"] == 1
    measure(runs, mirror, tasks=["demo_everyday"], results=runs.parent / "undisturbed")
    resumed, undisturbed = (
        Store(runs.parent / name).answers(cell) for name in ("results", "undisturbed")
    )
    assert resumed == undisturbed


def test_answers_that_are_all_there_need_no_token_ids(
    runs: Path, mirror: Path, encoded: list[tuple[str, str]], monkeypatch: Any
) -> None:
    def refuse(*args: Any) -> None:
        raise RuntimeError("no room")

    with monkeypatch.context() as patch:
        patch.setattr(Cell, "seal", refuse)
        assert len(measure(runs, mirror).failed) == 4
    encoded.clear()
    assert not measure(runs, mirror).failed
    assert encoded == []


def test_a_checkpoint_that_cannot_be_opened_is_tried_once_and_takes_no_other_down(
    runs: Path, mirror: Path, monkeypatch: Any
) -> None:
    start, tried = HFEngine.__init__, []

    def failing(self: Any, checkpoint: Any, settings: Any) -> None:
        tried.append(checkpoint.name)
        if checkpoint.name == "dpo":
            raise MemoryError("no room on the device")
        start(self, checkpoint, settings)

    monkeypatch.setattr(HFEngine, "__init__", failing)
    outcome = measure(runs, mirror)
    assert tried == ["dpo", "sft"]
    assert len(outcome.measured) == len(TASKS)
    assert set(outcome.failed.values()) == {"MemoryError: no room on the device"}


@pytest.mark.parametrize("when", ["while it is loaded", "while it is asked"])
def test_weights_that_change_during_a_run_give_no_numbers(
    runs: Path, mirror: Path, monkeypatch: Any, when: str
) -> None:
    def overwrite(engine: Any) -> None:
        if engine.checkpoint.name == "dpo":
            shutil.copy(runs / "sft" / "model.safetensors", runs / "dpo" / "model.safetensors")

    start, score = HFEngine.__init__, HFEngine.score

    def loading(self: Any, checkpoint: Any, settings: Any) -> None:
        start(self, checkpoint, settings)
        overwrite(self)

    def asking(self: Any, requests: Any, **details: bool) -> Any:
        overwrite(self)
        return score(self, requests, **details)

    changed = ("__init__", loading) if when == "while it is loaded" else ("score", asking)
    monkeypatch.setattr(HFEngine, *changed)
    outcome = measure(runs, mirror)
    assert sorted(outcome.failed) == [f"dpo × {task}" for task in sorted(TASKS)]
    assert all("have changed since they were found" in why for why in outcome.failed.values())


def test_all_missing_data_are_named_before_anything_is_loaded(
    runs: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setenv("PREFBENCH_MIRROR", "")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(prefbench.engines, "open_engine", None)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError) as caught:
        measure(runs, tmp_path / "empty")
    assert "prefbench/demo-dialogues" in str(caught.value)
    assert "prefbench/demo-everyday" in str(caught.value)
    assert "--mirror" in str(caught.value)


def test_a_hub_that_cannot_be_reached_is_tried_once_before_any_model_is_loaded(
    runs: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setenv("PREFBENCH_MIRROR", "")
    for flag in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(flag, raising=False)
    tried: list[str] = []

    def unreachable(path: str, **options: Any) -> None:
        tried.append(path)
        raise ConnectionError(f"Couldn't reach {path}")

    monkeypatch.setattr("datasets.load_dataset", unreachable)
    monkeypatch.setattr(prefbench.engines, "open_engine", None)
    with pytest.raises(DataError) as caught:
        run(runs, tasks=["quick"], results=tmp_path / "results")
    assert tried == ["Salesforce/wikitext"]
    told = str(caught.value).splitlines()
    for name in (
        "helpful-base",
        "harmless-base",
        "gsm8k",
        "ARC-Easy",
        "ARC-Challenge",
        "hellaswag",
    ):
        (line,) = [line for line in told if name in line]
        assert line.endswith("not tried, the hub cannot be reached")


def test_every_split_that_a_task_needs_is_fetched_before_any_model_is_loaded(
    runs: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setenv("PREFBENCH_MIRROR", "")
    fetched: list[tuple[str, str]] = []

    def gone(path: str, *, name: str, split: str, **options: Any) -> list[Any]:
        fetched.append((name, split))
        if name == "ARC-Challenge":
            raise ValueError("the end of this test")
        return []

    monkeypatch.setattr("datasets.load_dataset", gone)
    monkeypatch.setattr(prefbench.engines, "open_engine", None)
    tasks = ["arc_easy_25shot", "arc_easy_0shot", "arc_challenge_0shot"]
    with pytest.raises(DataError, match="the end of this test"):
        run(runs, tasks=tasks, results=tmp_path / "results")
    assert fetched == [("ARC-Easy", "test"), ("ARC-Easy", "train"), ("ARC-Challenge", "test")]


def test_an_unknown_task_is_refused_before_anything_is_read(runs: Path, mirror: Path) -> None:
    with pytest.raises(TaskError, match="demo_everyday"):
        measure(runs, mirror, tasks=["demo_everydy"])


def test_a_directory_without_checkpoints_is_refused(tmp_path: Path, mirror: Path) -> None:
    (tmp_path / "runs").mkdir()
    with pytest.raises(InputError, match="no checkpoints"):
        measure(tmp_path / "runs", mirror)


@pytest.mark.parametrize("name", ["limit", "batch_size", "max_length"])
def test_settings_that_make_no_sense_are_refused(name: str) -> None:
    with pytest.raises(InputError, match=name):
        Settings(**{name: 0})


@pytest.mark.parametrize(("name", "value"), [("dtype", "int8"), ("engine", "abacus")])
def test_an_unknown_choice_is_refused_with_those_there_are(name: str, value: str) -> None:
    with pytest.raises(InputError, match=f"{name} is one of .*, not '{value}'"):
        Settings(**{name: value})  # type: ignore[arg-type]


def test_prompts_that_do_not_fit_are_cut_counted_and_told(runs: Path, mirror: Path) -> None:
    measure(runs, mirror, Settings(limit=6, max_length=24), tasks=["demo_everyday"])
    text = render(collect(runs.parent / "results"), "text")
    assert "longer than the context and lost their start" in text
    rows = rows_of(show(collect(runs.parent / "results")))
    assert {r["value"] for r in rows if r["metric"] == "cut"} == {1.0}


def test_a_limit_is_stamped_and_never_mixed_with_the_whole(runs: Path, mirror: Path) -> None:
    measure(runs, mirror, tasks=["demo_everyday"])
    measure(runs, mirror, Settings(limit=9), tasks=["demo_everyday"])
    rows = [r for r in rows_of(show(collect(runs.parent / "results"))) if r["shown"]]
    assert {(r["conditions"], r["n"]) for r in rows} == {("first 6 items", 6), ("first 9 items", 9)}
    assert "first 6 items" in render(collect(runs.parent / "results"), "text")


def test_checkpoints_that_were_asked_differently_are_told_apart(runs: Path, mirror: Path) -> None:
    template = "{% for turn in messages %}<{{ turn.role }}>{{ turn.content }}{% endfor %}"
    (runs / "dpo" / "chat_template.jinja").write_text(template)
    assert not measure(runs, mirror, tasks=["demo_dialogues"]).failed
    text = render(collect(runs.parent / "results"), "text")
    assert "the chat template differs (on: dpo; off: sft)" in text
    assert "not all checkpoints were sent the same text" in text


def test_what_can_change_a_number_changes_the_cell(runs: Path, mirror: Path) -> None:
    def cells(settings: Settings, tasks: tuple[str, ...] = TASKS) -> set[str]:
        planned = plan_tasks(tasks, limit=settings.limit, mirrors=[mirror])
        found = find(runs, settings, final_only=False)
        return {cell.cell for cell in plan_cells(found, planned, settings)}

    whole = cells(Settings())
    assert cells(Settings(batch_size=1, device="cpu")) == whole
    for settings in (
        Settings(limit=5),
        Settings(dtype="bfloat16"),
        Settings(chat_template="on"),
        Settings(max_length=512),
    ):
        assert not cells(settings) & whole
    few_shots = ("demo_arithmetic",)
    assert not cells(Settings(fewshot="parity"), few_shots) & cells(Settings(), few_shots)
    assert cells(Settings(fewshot="parity")) == whole  # no examples, no difference


def test_a_cell_carries_how_it_was_measured(runs: Path, mirror: Path) -> None:
    outcome = measure(runs, mirror)
    manifest = Store(runs.parent / "results").manifest(outcome.measured[0])
    assert manifest is not None
    assert manifest["identity"]["data"].startswith("sha256:")
    assert manifest["versions"]["lm_eval"]
    assert manifest["task"]["config"]["output_type"] == "multiple_choice"
    assert manifest["engine"]["dtype"] == "float32"
    assert manifest["n_items"] == 6
    items = Store(runs.parent / "results").items(manifest["items"]).to_pylist()
    assert len(items) == 6
    assert all(item["prompt"] and item["continuations"] for item in items)


def test_a_listener_hears_how_the_run_goes_on(runs: Path, mirror: Path) -> None:
    heard: list[tuple[Any, ...]] = []
    listener = Listener(
        on_plan=lambda *a: heard.append(("plan", *a)),
        on_step=lambda *a: heard.append(a),
        on_cell_end=lambda c, why: heard.append((c.checkpoint.name, c.task.name, why)),
    )
    measure(runs, mirror, listener=listener)
    assert ("plan", 4, 4) in heard
    asked = [("asking", 0, 6), ("asking", 4, 6), ("asking", 6, 6)]
    assert [event for event in heard if event[0] == "asking"] == asked * 4
    assert {event[0] for event in heard} == {"plan", "asking", "dpo", "sft"}
    assert ("sft", "demo_dialogues", None) in heard


def test_only_final_models_are_taken_where_asked(small_zoo: Path) -> None:
    everything = find(small_zoo / "checkpoints", Settings(), final_only=False)
    final = find(small_zoo / "checkpoints", Settings(), final_only=True)
    assert len(everything) == 33
    assert {c.name for c in final} == {
        "sft", "exmate", "dpo", "dpop", "ipo", "slic", "unlikelihood", "dpo_exmate", "rrhf",
        "spin-1", "spin-2",
    }  # fmt: skip


def test_the_last_checkpoint_stands_for_a_run_without_a_final_model(
    small_zoo: Path, tmp_path: Path
) -> None:
    shutil.copytree(small_zoo / "checkpoints" / "dpo", tmp_path / "dpo")
    (tmp_path / "dpo" / "model.safetensors").unlink()
    (tmp_path / "dpo" / "config.json").unlink()
    (one,) = find(tmp_path, Settings(), final_only=True)
    assert one.name == "dpo/checkpoint-2"


def test_a_checkpoint_may_leave_its_tokenizer_to_its_run(
    small_zoo: Path, tmp_path: Path, mirror: Path
) -> None:
    shutil.copytree(small_zoo / "checkpoints" / "dpo", tmp_path / "runs" / "dpo")
    for file in (tmp_path / "runs" / "dpo" / "checkpoint-1").glob("tokenizer*"):
        file.unlink()
    outcome = measure(tmp_path / "runs", mirror, tasks=["demo_everyday"])
    assert not outcome.failed
    assert not outcome.broken
    # the final model is checkpoint-2 byte for byte, so it is not measured twice
    assert len(outcome.measured) == 2


def test_checkpoints_of_one_name_in_two_directories_are_two_rows(runs: Path, mirror: Path) -> None:
    shutil.copytree(runs / "sft", runs.parent / "more" / "sft")
    shutil.copy(runs / "dpo" / "model.safetensors", runs.parent / "more" / "sft")
    for root in (runs, runs.parent / "more"):
        measure(root, mirror, tasks=["demo_dialogues"], results=runs.parent / "results")
    found = values(runs.parent / "results")
    first, second, dpo = (
        found[name, "demo_dialogues", "perplexity.v1"] for name in ("runs/sft", "more/sft", "dpo")
    )
    assert first != second
    assert second == dpo  # the same weights


def test_several_roots_keep_their_checkpoints_apart(runs: Path) -> None:
    shutil.copytree(runs, runs.parent / "more")
    found = find([runs, runs.parent / "more"], Settings(), final_only=False)
    assert {c.name for c in found} == {"runs/sft", "runs/dpo", "more/sft", "more/dpo"}


def _measure_in_process(runs: Path, mirror: Path, outcomes: Any) -> None:
    torch.set_num_threads(1)
    outcome = measure(runs, mirror, Settings(limit=40, batch_size=2))
    outcomes.put((list(outcome.measured), dict(outcome.failed)))


def test_two_runs_at_once_measure_every_cell_and_spoil_none(runs: Path, mirror: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    outcomes = spawn.Queue()
    both = [
        spawn.Process(target=_measure_in_process, args=(runs, mirror, outcomes)) for _ in range(2)
    ]
    for process in both:
        process.start()
    results = [outcomes.get(timeout=300) for _ in both]
    for process in both:
        process.join()
    assert [failed for _, failed in results] == [{}, {}]
    shutil.move(runs.parent / "results", runs.parent / "both")
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in the two; sums may be split by the number of threads
    try:
        measure(runs, mirror, Settings(limit=40, batch_size=2))
    finally:
        torch.set_num_threads(n_threads)
    tables = [render(collect(runs.parent / name), "json") for name in ("both", "results")]
    assert tables[0] == tables[1]
