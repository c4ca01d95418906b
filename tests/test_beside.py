"""What is measured beside a reference, from directories to numbers."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from array import array
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import prefbench.analysing
import prefbench.needed
import prefbench.work
from prefbench.analyses import ONE_NAME
from prefbench.cells import PlannedCell, Settings, find
from prefbench.comparisons import Judging
from prefbench.errors import InputError, PrefbenchError
from prefbench.foresight import foresee
from prefbench.listener import Listener
from prefbench.measures.answers import drawn
from prefbench.measures.beside import apart
from prefbench.records import Answer
from prefbench.references import UNKNOWN, find_references
from prefbench.report.collect import collect, gather
from prefbench.report.explain.again import again
from prefbench.report.explain.behind import look_up
from prefbench.runner import Outcome, plan_run, run
from prefbench.store import Store
from prefbench.tasks import tasks_folder

FEW = Settings(limit=5, batch_size=2, engine="hf")
MARGINS, GRADIENTS = "demo_arithmetic_margins", "demo_arithmetic_gradients"
SAMPLES, CANDIDATES = "demo_samples", "demo_candidates"


@pytest.fixture
def runs(small_zoo: Path, tmp_path: Path) -> Path:
    """DPO beside nothing: what it was tuned from lies elsewhere."""
    zoo = tmp_path / "zoo"
    for name in ("checkpoints/sft", "checkpoints/dpo", "base"):
        shutil.copytree(small_zoo / name, zoo / name, ignore=shutil.ignore_patterns("checkpoint-*"))
    (tmp_path / "runs").mkdir()
    shutil.move(zoo / "checkpoints" / "dpo", tmp_path / "runs" / "dpo")
    refer(tmp_path / "runs", "../../zoo/checkpoints/sft")
    return tmp_path / "runs"


def refer(runs: Path, place: str) -> None:
    """Says what DPO was tuned from."""
    (runs / "dpo" / "prefbench.yaml").write_text(f"method: dpo\nreference: {place}\n")


def measure(runs: Path, zoo: Path, *tasks: str, **more: Any) -> Outcome:
    return run(
        more.pop("roots", runs),
        tasks=tasks,
        results=runs.parent / "results",
        settings=more.pop("settings", FEW),
        mirrors=[zoo / "data"],
        final_only=True,
        **more,
    )


def quantities(runs: Path, task: str, name: str = "dpo") -> dict[str, Any]:
    gathered = gather(runs.parent / "results")
    [found] = [
        one for one in gathered.measured if one.checkpoint == name and one.group.startswith(task)
    ]
    return dict(found.quantities)


def summed(folder: Path, prompt: str, text: str) -> float:
    """Log-prob of a response by transformers alone."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    start = tokenizer(prompt).input_ids
    end = [*tokenizer(text, add_special_tokens=False).input_ids, tokenizer.eos_token_id]
    with torch.no_grad():
        logps = model(torch.tensor([start + end])).logits[0, :-1].log_softmax(-1)
    behind = logps[len(start) - 1 :]
    return float(behind.gather(1, torch.tensor(end)[:, None]).double().sum())


def test_margins_are_those_of_both_models_by_hand(runs: Path, small_zoo: Path) -> None:
    outcome = measure(runs, small_zoo, MARGINS)
    assert not outcome.failed
    found = quantities(runs, MARGINS)
    lines = (small_zoo / "data" / "arithmetic-pairs" / "test.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines[:5]]
    places = {"dpo": runs / "dpo", "sft": runs.parent / "zoo" / "checkpoints" / "sft"}
    by_hand = {
        (who, side): np.array([summed(place, row["prompt"], row[side]) for row in rows])
        for who, place in places.items()
        for side in ("chosen", "rejected")
    }
    for side in ("chosen", "rejected"):
        change = by_hand["dpo", side] - by_hand["sft", side]
        assert found[f"logps/{side}"] == pytest.approx(by_hand["dpo", side], abs=1e-3)
        assert found[f"delta_{side}"] == pytest.approx(change, abs=1e-3)
        assert found[f"rewards/{side}"] == pytest.approx(0.1 * change, abs=1e-4)
    assert set(found["displaced"]) <= {0.0, 1.0}
    # Pairs' own metrics come from the same pass.
    assert found["sum_logp_chosen"] == pytest.approx(found["logps/chosen"])
    assert np.isfinite(found["ches"]).all()


def test_pairs_are_scored_once_for_all_that_ask_them(
    runs: Path, small_zoo: Path, monkeypatch: Any
) -> None:
    first = measure(runs, small_zoo, "demo_arithmetic_pairs", MARGINS)
    assert len(first.measured) == 3  # dpo, its reference, and the margins
    asked = []
    true = prefbench.work.Work._measure_cell
    monkeypatch.setattr(
        prefbench.work.Work,
        "_measure_cell",
        lambda self, *rest: asked.append(rest[0].title) or true(self, *rest),
    )
    second = measure(runs, small_zoo, "demo_arithmetic_pairs", MARGINS, GRADIENTS)
    # Of the reference, what is drawn.
    assert asked == [f"sft × {GRADIENTS}", f"dpo × {GRADIENTS}: gradients"]
    assert len(second.done) == 3
    third = measure(runs, small_zoo, "demo_arithmetic_pairs", MARGINS, GRADIENTS)
    assert third.measured == ()
    assert len(asked) == 2


def test_a_number_says_how_it_is_made_again_though_another_task_asked_first(
    runs: Path, small_zoo: Path
) -> None:
    measure(runs, small_zoo, "demo_arithmetic_pairs")
    measure(runs, small_zoo, MARGINS)
    results = runs.parent / "results"
    behind = look_up(results, ["dpo", MARGINS, "displaced"])
    assert behind.manifest["task"]["name"] == MARGINS
    words = again(behind, mirrors=[small_zoo / "data"]).words
    assert words[words.index("--task") + 1] == MARGINS
    reference = words[words.index("--reference") + 1]
    assert Path(reference) == runs.parent / "zoo" / "checkpoints" / "sft"
    shared = look_up(results, ["dpo", "demo_arithmetic_pairs", "agility"])
    assert shared.cell != behind.cell
    assert "demo_arithmetic_pairs" in again(shared).words


def test_a_checkpoint_beside_itself_has_not_moved(runs: Path, small_zoo: Path) -> None:
    settings = dataclasses.replace(FEW, reference=str(runs / "dpo"))
    roots = [runs, runs.parent / "zoo" / "checkpoints"]
    measure(runs, small_zoo, MARGINS, roots=roots, settings=settings)
    own = quantities(runs, MARGINS, "runs/dpo")  # beside what it was tuned from
    assert np.abs(own["delta_chosen"]).max() > 0
    shutil.copytree(runs / "dpo", runs / "copy")
    measure(runs, small_zoo, MARGINS, settings=settings)
    copied = quantities(runs, MARGINS, "copy")
    assert not copied["delta_chosen"].any()
    assert (copied["unmoved"] == 1).all()
    assert copied["loss/dpo"] == pytest.approx(math.log(2))
    assert not copied["rewards/margins"].any()


def test_gradients_come_with_the_conditions_and_an_observed_step(
    runs: Path, small_zoo: Path
) -> None:
    outcome = measure(runs, small_zoo, GRADIENTS)
    assert not outcome.failed
    found = quantities(runs, GRADIENTS)
    assert (np.abs(found["cosine"]) <= 1).all()
    assert found["inner"] == pytest.approx(
        found["cosine"] * found["norm_chosen"] * found["norm_rejected"]
    )
    rises = found["norm_chosen"] ** 2 > found["inner"]
    assert (found["chosen_rises/dpo"] == rises).all()  # d_w = d_l
    known = ~np.isnan(found["chosen_agrees"])
    assert known.any()
    assert found["chosen_agrees"][known].mean() > 0.5
    assert (found["in@low_edit"] == (found["edit_distance"] < 0.1)).all()
    manifest = next(
        m
        for path in (runs.parent / "results" / "cells").iterdir()
        if (m := Store(runs.parent / "results").manifest(path.name)) and m["work"] == "gradients"
    )
    assert manifest["identity"]["objective"] == "dpo"
    assert manifest["beside"]["name"] == "sft"
    assert any("gradients of" in note for note in manifest["engine"]["notes"])


def test_token_by_token_cosines_are_of_the_first_pairs_that_are_drawn(
    runs: Path, small_zoo: Path
) -> None:
    folder = runs.parent / "tasks"
    folder.mkdir()
    text = (
        f"include: {tasks_folder() / 'demo_dialogues.yaml'}\ntask: own\nmetadata:\n  prefbench:\n"
    )
    text += (
        "    {measure: gradients, sample: 3, heat_maps: 2, untrained: true, metrics: [cosine]}\n"
    )
    (folder / "own.yaml").write_text(text)
    assert not measure(runs, small_zoo, "own", task_folders=[folder]).failed
    store = Store(runs.parent / "results")
    gathered = gather(runs.parent / "results")
    answers = store.answers(gathered.cells["dpo", gathered.groups[0].name])
    assert [answer.item for answer in answers] == drawn(5, 3) != [0, 1, 2]
    assert [bool(answer.cosines) for answer in answers] == [True, True, False]
    for answer in answers[:2]:
        texts = [text.split("\u241f") for text in answer.texts]
        assert len(answer.cosines) == len(texts[0]) * len(texts[1])
        assert max(map(abs, answer.cosines)) <= 1 + 1e-6
    random = quantities(runs, "own")["gradient_difference_l2_random@2"]
    assert np.isfinite(random).all()


def test_domains_are_held_against_each_other(runs: Path, small_zoo: Path) -> None:
    settings = dataclasses.replace(FEW, limit=4)
    measure(runs, small_zoo, "demo_mixed_gradients", settings=settings)
    found = quantities(runs, "demo_mixed_gradients")
    assert np.isfinite(found["domain_inner"]).all()
    assert (np.abs(found["domain_cosine"]) <= 1).all()


def test_what_was_asked_before_a_kill_is_not_asked_again(
    runs: Path, small_zoo: Path, monkeypatch: Any
) -> None:
    from prefbench.measures.beside import PairProbe

    monkeypatch.setattr(prefbench.work, "PAIRS_AT_ONCE", 2)
    seen: list[int] = []
    true = PairProbe.ask

    def ask(self: PairProbe, batch: Any) -> Any:
        if len(seen) >= 4:
            raise KeyboardInterrupt
        seen.extend(batch)
        return true(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(PairProbe, "ask", ask)
        with pytest.raises(KeyboardInterrupt):
            measure(runs, small_zoo, GRADIENTS)
    again: list[int] = []
    monkeypatch.setattr(
        PairProbe, "ask", lambda self, batch: again.extend(batch) or true(self, batch)
    )
    measure(runs, small_zoo, GRADIENTS)
    assert seen == [0, 1, 2, 3]
    assert again == [4]


def test_a_divergence_is_that_of_what_the_checkpoint_itself_drew(
    runs: Path, small_zoo: Path
) -> None:
    outcome = measure(runs, small_zoo, SAMPLES)
    assert not outcome.failed
    found = quantities(runs, SAMPLES)
    assert np.isfinite(found["kl"]).all()
    assert found["kl_per_token"] == pytest.approx(found["kl"] / found["n_tokens"])
    settings = dataclasses.replace(FEW, reference=str(runs / "dpo"))
    shutil.copytree(runs / "dpo", runs / "copy")
    measure(runs, small_zoo, SAMPLES, settings=settings)
    assert quantities(runs, SAMPLES, "copy")["kl"] == pytest.approx(0, abs=1e-9)


def test_candidates_are_ranked_beside_a_reward_models_scores(runs: Path, small_zoo: Path) -> None:
    outcome = measure(runs, small_zoo, CANDIDATES)
    assert not outcome.failed
    found = quantities(runs, CANDIDATES)
    assert (np.abs(found["kendall_tau"]) <= 1).all()
    assert (found["n_candidates"] > 2).all()
    assert measure(runs, small_zoo, CANDIDATES).measured == ()


def test_without_a_reference_the_table_says_so_and_the_rest_goes_on(
    runs: Path, small_zoo: Path
) -> None:
    roots = [runs, runs.parent / "zoo" / "checkpoints"]
    outcome = measure(runs, small_zoo, MARGINS, GRADIENTS, roots=roots)
    assert not outcome.failed
    board = collect(runs.parent / "results")
    sft = next(row for row in board.rows if row.method == "sft")
    column = next(c for c in board.columns if c.group.task == MARGINS)
    assert board.reason(sft, column) == UNKNOWN
    alone = quantities(runs, GRADIENTS, sft.name)  # gradients need none
    assert np.isfinite(alone["cosine"]).all()
    assert "chosen_rises/dpo" not in alone
    assert "chosen_rises/sft" in alone


def test_a_reference_that_is_gone_is_said_by_its_place(runs: Path, small_zoo: Path) -> None:
    refer(runs, "../gone")
    measure(runs, small_zoo, MARGINS)
    board = collect(runs.parent / "results")
    assert "is not on this machine" in str(board.reason(board.rows[0], board.columns[0]))


def test_a_reference_that_fails_takes_nothing_else_down(runs: Path, small_zoo: Path) -> None:
    sft = runs.parent / "zoo" / "checkpoints" / "sft"
    config = json.loads((sft / "config.json").read_text())
    (sft / "config.json").write_text(json.dumps({**config, "hidden_size": 64}))
    outcome = measure(runs, small_zoo, MARGINS, "demo_arithmetic_pairs")
    assert set(outcome.failed) == {f"sft × {MARGINS}", f"dpo × {MARGINS}"}
    assert "is needed" in outcome.failed[f"dpo × {MARGINS}"]
    assert len(outcome.measured) == 1


def test_a_reference_that_reads_other_texts_is_refused(runs: Path, small_zoo: Path) -> None:
    for folder in (runs / "dpo", runs.parent / "zoo" / "checkpoints" / "sft"):
        file = folder / "tokenizer_config.json"
        template = "{% for one in messages %}" + folder.name + " {{ one.content }}{% endfor %}"
        file.write_text(json.dumps({**json.loads(file.read_text()), "chat_template": template}))
    failed = measure(runs, small_zoo, MARGINS, SAMPLES).failed
    assert "sft was sent other texts" in failed[f"dpo × {MARGINS}"]
    assert "dpo was sent other texts" in failed[f"dpo × {SAMPLES}"]
    plain = dataclasses.replace(FEW, chat_template="off")
    assert not measure(runs, small_zoo, MARGINS, SAMPLES, settings=plain).failed


def test_an_analysis_that_is_lost_to_another_process_is_no_failure(
    runs: Path, small_zoo: Path, monkeypatch: Any
) -> None:
    """Its lease goes while it is worked out, as it does where a node stood still for long."""
    true = prefbench.needed.manifest_of
    lost: list[Path] = []
    said: list[str] = []

    def lose(needed: PlannedCell, store: Store) -> dict[str, Any]:
        if not lost:
            lost.extend((runs.parent / "results" / "cells").glob("*/lease"))
            for lease in lost:
                lease.unlink()
        return true(needed, store)

    monkeypatch.setattr(prefbench.needed, "manifest_of", lose)
    outcome = measure(runs, small_zoo, MARGINS, listener=Listener(on_notice=said.append))
    assert len(lost) == 1
    assert not outcome.failed
    assert f"dpo × {MARGINS}: taken over by another process" in said
    assert len(quantities(runs, MARGINS)["ches"]) == 5


@pytest.mark.parametrize("wanted", ["nobody", "sft"])
def test_a_reference_that_is_not_there_or_unclear_is_refused(
    runs: Path, wanted: str, small_zoo: Path
) -> None:
    roots = [small_zoo / "checkpoints" / "sft", runs.parent / "zoo" / "checkpoints"]
    checkpoints = find([Path(one) for one in roots], FEW, final_only=True)
    with pytest.raises(InputError, match=wanted):
        find_references(checkpoints, wanted=wanted)


def test_foresight_counts_what_is_needed_of_references(runs: Path, small_zoo: Path) -> None:
    arguments: dict[str, Any] = {
        "tasks": [MARGINS, GRADIENTS, SAMPLES],
        "results": runs.parent / "results",
        "settings": FEW,
        "judging": Judging(),
        "mirrors": [small_zoo / "data"],
        "final_only": True,
    }
    titles = foresee([runs], **arguments).to_measure
    assert f"sft × {MARGINS}" in titles
    assert len(titles) == len(set(titles)) == 7
    assert f"dpo × {GRADIENTS}: gradients" in titles
    assert f"sft × {SAMPLES}: samples scored" in titles


def test_two_engines_at_once_do_the_same(runs: Path, small_zoo: Path) -> None:
    measure(runs, small_zoo, MARGINS, GRADIENTS)
    alone = {task: quantities(runs, task) for task in (MARGINS, GRADIENTS)}
    shutil.rmtree(runs.parent / "results")
    settings = dataclasses.replace(FEW, data_parallel_size=2, device="cpu")
    outcome = measure(runs, small_zoo, MARGINS, GRADIENTS, settings=settings)
    assert not outcome.failed
    for task, found in alone.items():
        for name, values in quantities(runs, task).items():
            assert values == pytest.approx(found[name], nan_ok=True, rel=1e-4, abs=1e-4), name


def test_gradients_are_refused_of_an_endpoint(runs: Path, small_zoo: Path) -> None:
    settings = dataclasses.replace(FEW, engine="server", base_url="http://127.0.0.1:9/v1")
    try:
        measure(runs, small_zoo, GRADIENTS, settings=settings)
    except PrefbenchError:
        pytest.fail("one refused task ended the run")
    board = collect(runs.parent / "results")
    assert "engine hf" in str(board.reason(board.rows[0], board.columns[0]))


# --- what may not be laid beside each other


@pytest.mark.parametrize(
    ("theirs", "reason"),
    [
        (Answer(0, token_ids=((1, 2), (3,)), n_cut=2), None),
        (Answer(0, token_ids=((1, 2), (3,))), "without 0 tokens, the checkpoint without 2"),
        (Answer(0, token_ids=((1, 2), (4,)), n_cut=2), "splits the texts otherwise"),
        (Answer(0), "splits the texts otherwise"),
    ],
)
def test_log_probs_of_other_tokens_or_of_less_of_the_prompt(
    theirs: Answer, reason: str | None
) -> None:
    found = apart([array("i", [1, 2]), array("i", [3])], 2, theirs)
    assert found is None if reason is None else reason in str(found)


def test_a_reference_that_reads_less_of_the_prompt_has_no_margins(
    runs: Path, small_zoo: Path
) -> None:
    sft = runs.parent / "zoo" / "checkpoints" / "sft"
    config = json.loads((sft / "config.json").read_text())
    (sft / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 40}))
    tokenizer = json.loads((sft / "tokenizer_config.json").read_text())
    (sft / "tokenizer_config.json").write_text(json.dumps({**tokenizer, "model_max_length": 40}))
    outcome = measure(runs, small_zoo, MARGINS, GRADIENTS)
    assert "reference: it read the prompt without" in outcome.failed[f"dpo × {MARGINS}"]
    found = quantities(runs, GRADIENTS)
    assert "chosen_rises/dpop" not in found  # which needs the reference
    assert np.isfinite(found["chosen_rises/sft"]).all()


def test_a_scorer_without_room_for_the_prompt_has_no_divergence(
    runs: Path, small_zoo: Path
) -> None:
    sft = runs.parent / "zoo" / "checkpoints" / "sft"
    for name, key in (
        ("config", "max_position_embeddings"),
        ("tokenizer_config", "model_max_length"),
    ):
        told = json.loads((sft / f"{name}.json").read_text())
        (sft / f"{name}.json").write_text(json.dumps({**told, key: 24}))
    outcome = measure(runs, small_zoo, SAMPLES)
    assert "reference: " in outcome.failed[f"dpo × {SAMPLES}"]


def test_what_is_cut_of_a_pair_is_told_with_its_gradients(runs: Path, small_zoo: Path) -> None:
    settings = dataclasses.replace(FEW, max_length=60)
    assert not measure(runs, small_zoo, GRADIENTS, settings=settings).failed
    cut = quantities(runs, GRADIENTS)["cut"]
    assert cut.any()
    notes = gather(runs.parent / "results").notes
    assert any("lost their start" in note for note in notes)


def test_an_endpoint_with_one_name_for_all_has_no_margins(runs: Path, small_zoo: Path) -> None:
    settings = dataclasses.replace(
        FEW, engine="server", base_url="http://127.0.0.1:9/v1", served_model="dpo"
    )
    planned = plan_run(
        runs,
        tasks=[MARGINS, GRADIENTS, SAMPLES],
        settings=settings,
        judging=Judging(),
        mirrors=[small_zoo / "data"],
        task_folders=(),
        final_only=True,
    )
    margins = next(one for one in planned.beside.analyses if one.measure == "margins")
    assert margins.missing == ONE_NAME
    assert not planned.beside.cells  # no reference is asked of it
    own = {cell.work: cell.identity for cell in planned.beside.later}
    assert {one["engine"] for one in own.values()} == {"hf"}
    assert {one["dtype"] for one in own.values()} == {"float32"}
    assert not any("server" in one for one in own.values())


def test_rewards_that_the_data_have_are_asked_of_nobody(
    runs: Path, small_zoo: Path, monkeypatch: Any
) -> None:
    folder = runs.parent / "tasks"
    folder.mkdir()
    rows = [
        {"prompt": f"Say {i}.", "candidates": [" a", " b", " c"], "rewards": [i, 1.0, 2.0]}
        for i in range(4)
    ]
    (folder / "rows.json").write_text(json.dumps(rows))
    (folder / "own.yaml").write_text(
        f"include: {tasks_folder() / '_pairs.yaml'}\ntask: own\ndataset_path: json\n"
        "dataset_kwargs: {data_files: {test: rows.json}}\ntest_split: test\n"
        "process_docs: !function prefbench.candidate_documents.plain_candidates\n"
        "metadata:\n  prefbench: {measure: ranking, judge: demo_reward, metrics: [kendall_tau]}\n"
    )

    def refuse(*asked: Any) -> None:
        raise AssertionError("a judge was asked for rewards that are known")

    monkeypatch.setattr(prefbench.analysing, "rewards_of", refuse)
    assert not measure(runs, small_zoo, "own", task_folders=[folder]).failed
    assert np.isfinite(quantities(runs, "own")["kendall_tau"]).all()
