"""Several texts of an item and several temperatures: what a YAML file may ask, and what comes."""

from __future__ import annotations

import pytest

from prefbench.cells import Settings
from prefbench.cli import tasks as list_tasks
from prefbench.errors import TaskError
from prefbench.report.collect import collect
from prefbench.report.tables import render
from prefbench.runner import run
from prefbench.store import Store
from prefbench.sweeps import refusal, sweep
from prefbench.tasks import load_index, load_tasks, tasks_folder

OWN = """
task: own
output_type: generate_until
dataset_path: json
dataset_kwargs: {data_files: {test: own.json}}
test_split: test
doc_to_text: "{{q}}"
doc_to_target: a
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
"""
DRAWN = "generation_kwargs: {do_sample: true, temperature: 0.7, max_gen_toks: 9}\n"
SWEPT = OWN + DRAWN + "repeats: 3\nmetadata: {version: 1, prefbench: {temperatures: %s}}\n"


@pytest.fixture
def own(tmp_path):
    """Writes files of a user's folder, and reads it."""

    def write(text: str, name: str = "own.yaml"):
        (tmp_path / name).write_text(text)
        return load_index([tmp_path])[0]

    write.folder = tmp_path
    return write


# --- what a file may ask


def test_a_sweep_is_a_task_per_temperature(own):
    tasks = own(SWEPT % "[0, 0.25, 1.0, 1.5]")
    assert list(tasks) == ["own_t0", "own_t0.25", "own_t1", "own_t1.5"]
    assert {task.sweep for task in tasks.values()} == {"own"}
    assert [task.config["task"] for task in tasks.values()] == list(tasks)
    drawn = [task.config["generation_kwargs"] for task in tasks.values()]
    assert [one["temperature"] for one in drawn] == [0, 0.25, 1.0, 1.5]
    assert [one["do_sample"] for one in drawn] == [False, True, True, True]
    assert {one["max_gen_toks"] for one in drawn} == {9}
    assert [task.n_texts for task in tasks.values()] == [1, 3, 3, 3]
    assert len({task.definition for task in tasks.values()}) == 4


def test_another_temperature_changes_no_other_tasks_definition(own):
    before = {name: task.definition for name, task in own(SWEPT % "[0, 0.25, 1.0]").items()}
    after = {name: task.definition for name, task in own(SWEPT % "[0.1, 0.25, 0]").items()}
    assert {name for name in before if after.get(name) == before[name]} == {"own_t0", "own_t0.25"}
    other = own((SWEPT % "[0, 0.25]").replace("repeats: 3", "repeats: 4"))
    assert other["own_t0"].definition == before["own_t0"]
    assert other["own_t0.25"].definition != before["own_t0.25"]


def test_a_sweep_needs_no_settings_of_its_own():
    config = {"task": "t", "metadata": {"prefbench": {"temperatures": [0.5], "metrics": ["m"]}}}
    assert sweep(config, [0.5]) == [
        {
            "task": "t_t0.5",
            "metadata": {"prefbench": {"metrics": ["m"]}},
            "generation_kwargs": {"do_sample": True, "temperature": 0.5},
        }
    ]
    assert config["metadata"]["prefbench"]["temperatures"] == [0.5]


def test_the_bare_name_stands_for_all_and_each_can_be_asked_for_alone(own):
    own(SWEPT % "[0, 1]")
    own("group: several\ntask: [own, own_t1]\nmetadata: {prefbench: {limit: 5}}", "several.yaml")

    def named(*names):
        return [(task.name, limit) for task, limit in load_tasks(names, [own.folder])]

    assert named("own") == [("own_t0", None), ("own_t1", None)]
    assert named("own_t1") == [("own_t1", None)]
    assert named("own_t1", "own") == [("own_t1", None), ("own_t0", None)]
    assert named("several") == [("own_t0", 5), ("own_t1", 5)]
    assert named("several", "own_t0") == [("own_t0", None), ("own_t1", 5)]
    for name in ("own_t2", "owm"):
        with pytest.raises(TaskError, match=f"no task or suite is named '{name}'; did you mean"):
            load_tasks([name], [own.folder])


def test_a_later_folders_sweep_replaces_all_of_it(own, tmp_path):
    first = tmp_path / "first"
    first.mkdir()
    (first / "own.yaml").write_text(SWEPT % "[0, 0.5, 1]")
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "own.yaml").write_text(SWEPT % "[1, 2]")
    assert list(load_index([first, mine])[0]) == ["own_t1", "own_t2"]
    (mine / "own.yaml").write_text(OWN)
    assert list(load_index([first, mine])[0]) == ["own"]


CHOICE = OWN.replace("generate_until", "multiple_choice")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SWEPT % "[0.5, -0.1]", "metadata.prefbench.temperatures.1: Input should be greater"),
        (SWEPT % "[0.5, '1']", "metadata.prefbench.temperatures.1: Input should be a valid num"),
        (SWEPT % "[true]", "metadata.prefbench.temperatures.0: Input should be a valid num"),
        (SWEPT % "[.nan]", "metadata.prefbench.temperatures.0: Input should be"),
        (SWEPT % "[.inf]", "metadata.prefbench.temperatures.0: Input should be a finite"),
        (SWEPT % "[1, 0.5, 1.0]", "metadata.prefbench.temperatures: Value error, 1 is there twice"),
        (SWEPT % "0.5", "metadata.prefbench.temperatures: Input should be"),
        (
            CHOICE + "metadata: {prefbench: {temperatures: [0, 1]}}",
            "metadata.prefbench.temperatures: a task of output_type multiple_choice generates no",
        ),
        (CHOICE + "repeats: 2", "repeats: a task of output_type multiple_choice generates no"),
        (OWN + DRAWN + "repeats: 0", "repeats: is a whole number from 1 on, not 0"),
        (OWN + DRAWN + "repeats: 2.5", "repeats: is a whole number from 1 on, not 2.5"),
        (OWN + DRAWN + "repeats: true", "repeats: is a whole number from 1 on, not True"),
        (
            OWN + "repeats: 4",
            "repeats: 4 texts of an item would all be the same; generation_kwargs",
        ),
        (
            OWN + "repeats: 4\ngeneration_kwargs: {do_sample: false, temperature: 0.7}",
            "repeats: 4 texts of an item would all be the same",
        ),
        (
            OWN + "repeats: 4\ngeneration_kwargs: {do_sample: true}",
            "repeats: 4 texts of an item would all be the same",
        ),
        (OWN + "generation_kwargs: [1]", "generation_kwargs: is not a mapping of keys to values"),
        (
            OWN + "generation_kwargs: {temperature: -1}",
            "generation_kwargs.temperature: is a number from 0 on, not -1",
        ),
        (
            OWN + "generation_kwargs: {temperature: hot}",
            "generation_kwargs.temperature: is a number from 0 on, not 'hot'",
        ),
    ],
)
def test_what_cannot_be_drawn_names_file_and_key(own, text, message):
    with pytest.raises(TaskError) as caught:
        own(text)
    assert str(caught.value).startswith(f"{own.folder / 'own.yaml'}: {message}")


def test_what_can_be_drawn_is_not_refused():
    free = {"output_type": "generate_until"}
    for more in (
        {},
        {"repeats": 1},
        {"repeats": None, "generation_kwargs": None},
        {"generation_kwargs": {"do_sample": False, "temperature": 0.0}},
        {"repeats": 8, "generation_kwargs": {"temperature": 1}},
    ):
        assert refusal({**free, **more}) is None
    assert refusal({"output_type": "multiple_choice", "repeats": 1}) is None


def test_the_list_of_tasks_shows_a_sweep_once(own, capsys):
    own(SWEPT % "[0, 0.5]")
    list_tasks([own.folder])
    lines = capsys.readouterr().out.splitlines()
    (at,) = (i for i, line in enumerate(lines) if line.startswith("  own "))
    assert lines[at].split()[:3] == ["own", "generate_until", "0-shot"]
    assert lines[at + 1].strip() == "own_t0, own_t0.5"


# --- what comes


def test_a_shipped_sweep_is_its_task_at_other_temperatures():
    tasks, suites = load_index([tasks_folder()])
    for name, base in (
        ("gsm8k_sweep", "gsm8k_5shot"),
        ("demo_arithmetic_sweep", "demo_arithmetic"),
    ):
        members = [task for task in tasks.values() if task.sweep == name]
        assert len(members) >= 3
        assert members[0].config["generation_kwargs"] == tasks[base].config["generation_kwargs"]
        for task in members:
            for key in ("doc_to_text", "num_fewshot", "metric_list", "dataset_path"):
                assert task.config[key] == tasks[base].config[key]
            for one in tasks[base].config["filter_list"]:
                assert one in task.config["filter_list"]
        assert not any(name in suite.tasks for suite in suites.values())


@pytest.fixture(scope="module")
def measured(small_zoo, tmp_path_factory):
    """A run of the demo's sweep on two checkpoints."""
    results = tmp_path_factory.mktemp("sweep") / "results"
    outcome = run(
        [small_zoo / "checkpoints" / name for name in ("sft", "dpo")],
        tasks=["demo_arithmetic_sweep"],
        results=results,
        settings=Settings(engine="hf", limit=6, batch_size=4),
        mirrors=[small_zoo / "data"],
        final_only=True,
    )
    assert not outcome.failed
    return results, outcome


def test_each_temperature_has_its_column(measured):
    results, outcome = measured
    board = collect(results, plan=outcome.plan)
    shown = [column.key for column in board.columns if column.shown]
    assert shown == [
        (f"demo_arithmetic_sweep_t{t}, first 6 items", "exact_match,strict-match")
        for t in ("0", "0.5", "1")
    ]
    best = {column.group.task for column in board.columns if "@best_of_4" in column.metric.name}
    assert best == {"demo_arithmetic_sweep_t0.5", "demo_arithmetic_sweep_t1"}
    text = render(board, "text", width=200)
    assert all(f"demo_arithmetic_sweep_t{t}" in text for t in ("0", "0.5", "1"))
    entries = [board.entry(row, column) for row in board.rows for column in board.columns]
    assert all(entry.score.estimate.n == 6 for entry in entries)
    assert len(collect(results, tasks=["demo_arithmetic_sweep_t1"]).columns) < len(board.columns)
    assert collect(results, tasks=["demo_arithmetic_sweep"]).columns == board.columns


def test_texts_are_kept_item_by_item_and_differ_where_they_are_drawn(measured):
    results, outcome = measured
    store = Store(results)
    assert len(outcome.measured) == 6
    for cell in outcome.measured:
        task = store.manifest(cell)["task"]
        answers = store.answers(cell)
        drawn = task["config"]["generation_kwargs"]["temperature"] > 0
        assert {len(answer.texts) for answer in answers} == {4 if drawn else 1}
        assert {len(answer.unfinished) for answer in answers} == {4 if drawn else 1}
        if drawn:
            assert all(len(set(answer.texts)) > 1 for answer in answers)


def test_no_text_hangs_on_the_size_of_a_batch(small_zoo, measured, tmp_path):
    results, outcome = measured
    other = run(
        small_zoo / "checkpoints" / "sft",
        tasks=["demo_arithmetic_sweep_t1"],
        results=tmp_path,
        settings=Settings(engine="hf", limit=6, batch_size=1),
        mirrors=[small_zoo / "data"],
        final_only=True,
    )
    (cell,) = other.measured
    assert cell in outcome.measured
    assert Store(tmp_path).answers(cell) == Store(results).answers(cell)
