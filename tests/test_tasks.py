"""Tasks: every shipped one is built and answered; what is wrong in a YAML file says where."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import prefbench
from prefbench import data
from prefbench.errors import DataError, TaskError
from prefbench.metrics import (
    CANDIDATE_METRICS,
    COMPARISON_METRICS,
    DIVERGENCE_METRICS,
    GRADIENT_METRICS,
    MARGIN_METRICS,
    metrics_of,
)
from prefbench.tasks import Function, load_index, load_tasks, splits_of, tasks_folder
from tests.asking import answers_of, build, quantities_of, requests_of, task_named
from tests.scripted import ScriptedEngine

TASKS, SUITES = load_index([tasks_folder()])
AFTERWARDS = {
    "comparison": {**COMPARISON_METRICS, "reward": DIVERGENCE_METRICS["reward"]},
    "margins": MARGIN_METRICS,
    "gradients": GRADIENT_METRICS,
    "divergence": DIVERGENCE_METRICS,
    "ranking": CANDIDATE_METRICS,
}
"""Metrics of what is measured once the answers are there."""

NODE = {"type": "utterance", "speaker": "A"}
CAUSAL = [
    {
        "dialog_name": "forked",
        "category": "made up",
        "original_data": [
            {**NODE, "id": 0, "text": "Shall we?", "prev_ids": []},
            {**NODE, "id": 1, "text": "Yes.", "prev_ids": [0]},
            {**NODE, "id": 2, "text": "No.", "prev_ids": [0]},
            {**NODE, "id": 3, "text": "Come, then.", "prev_ids": [1]},
            {**NODE, "id": 4, "text": "Stay, then.", "prev_ids": [2]},
        ],
    }
]


class Parrot(ScriptedEngine):
    """Says the same to everything, so that tasks that generate have answers too."""

    def generate(self, prompts, sampling, seeds=()):
        self.replies = {self.text(prompt): "It is 3.\n#### 3" for prompt in prompts}
        return super().generate(prompts, sampling, seeds)


@pytest.fixture(scope="module")
def mirror_of(real_data, small_zoo, tmp_path_factory):
    """Where a shipped task's data are."""
    alpaca = tmp_path_factory.mktemp("alpaca")
    (alpaca / "alpaca_eval").mkdir()
    (alpaca / "alpaca_eval" / "eval.json").write_text(
        json.dumps([{"instruction": "Name a colour.", "output": "Green.", "generator": "made up"}])
    )
    causal = tmp_path_factory.mktemp("causal")
    (causal / "causal_dialogue").mkdir()
    (causal / "causal_dialogue" / "test_dag.json").write_text(json.dumps(CAUSAL))

    def find(name: str) -> Path:
        if name.startswith("demo"):
            return small_zoo / "data"
        if name.startswith("alpaca"):
            return alpaca
        return causal if name.startswith("causal") else real_data

    return find


def test_all_yaml_files_are_tasks_suites_or_included():
    files = {file for file in tasks_folder().rglob("*.yaml") if not file.name.startswith("_")}
    tasks = {task.file for task in TASKS.values()}
    assert tasks < files
    assert len(files) == len(tasks) + len(SUITES) >= 20
    for task in TASKS.values():
        assert task.file.stem == (task.sweep or task.name)


@pytest.mark.parametrize("suite", SUITES)
def test_the_members_of_every_suite_exist(suite):
    found = load_tasks([suite], [tasks_folder()])
    names = dict.fromkeys(task.sweep or task.name for task, _ in found)
    assert list(names) == list(SUITES[suite].tasks) != []
    assert {limit for _, limit in found} == {50 if suite == "quick" else None}
    assert SUITES[suite].title


@pytest.mark.parametrize("name", TASKS)
def test_every_task_is_built_on_its_data_and_gives_the_metrics_it_shows(name, mirror_of):
    engine = Parrot()
    requests = requests_of(name, mirror_of(name), engine, limit=3)
    answers = answers_of(requests, engine)
    assert [item.item for item in requests.items] == list(range(len(answers)))
    assert 1 <= len(answers) <= 3
    columns = quantities_of(requests, answers)
    metrics = metrics_of(columns, requests.harness.higher_is_better())
    shown = TASKS[name].recipe.metrics
    assert shown
    measure = TASKS[name].recipe.measure
    if measure == "comparison":  # its metrics are its verdicts'
        assert {"n_chars", "n_tokens", "unfinished"} <= set(columns)
    assert set(shown) <= set({**metrics, **AFTERWARDS.get(measure, {})})


@pytest.mark.parametrize("name", [n for n in TASKS if not n.startswith("demo")])
def test_tasks_on_real_data_pin_a_revision_or_say_how_the_data_come(name):
    source = data.find_source(TASKS[name].config, [], Path())
    if TASKS[name].recipe.supplied:
        assert source.revision is None
    else:
        assert len(source.revision) == 40
        assert data.identity(source, ["test"]) == f"{source.dataset}@{source.revision}"


def test_a_definition_is_the_same_in_every_process():
    told = {name: task.definition for name, task in TASKS.items()}
    # Pairs, and texts that are measured afterwards, share the answers of tasks that ask the same.
    recipes = {name: task.recipe for name, task in TASKS.items()}
    alone = [n for n, one in recipes.items() if one.measure == "answers" and not one.pairs]
    assert len({told[name] for name in alone}) == len(alone)
    assert told["gsm8k_pairs"] == told["gsm8k_margins"] != told["hellaswag_margins"]
    again = (
        "import json; from prefbench.tasks import *; "
        "print(json.dumps({n: t.definition for n, t in load_index([tasks_folder()])[0].items()}))"
    )
    output = subprocess.run([sys.executable, "-c", again], capture_output=True, check=True)
    assert json.loads(output.stdout) == told


def test_reading_tasks_needs_no_lm_eval():
    script = (
        "import sys; from prefbench.tasks import *; load_index([tasks_folder()]); "
        "print([m for m in ('lm_eval', 'torch', 'datasets') if m in sys.modules])"
    )
    output = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, check=True, text=True
    )
    assert output.stdout.strip() == "[]"


def test_a_split_that_the_mirror_lacks(real_data):
    task = TASKS["hellaswag_10shot"]
    source = data.find_source(task.config, [real_data], Path())
    assert not source.has("train")
    assert splits_of(task, source) == ["validation"]
    assert splits_of(TASKS["hellaswag_0shot"], source) == ["validation"]
    bare = data.Source("openai/gsm8k", "main", files={"test": Path("test.parquet")})
    with pytest.raises(DataError, match="no train split, which the 5 examples of gsm8k_5shot"):
        splits_of(TASKS["gsm8k_5shot"], bare)


# --- a user's own folder


OWN = """
task: own
output_type: multiple_choice
dataset_path: json
dataset_kwargs: {data_files: {test: own.json}}
test_split: test
doc_to_text: "{{q}}"
doc_to_choice: ["yes", "no"]
doc_to_target: a
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
"""


@pytest.fixture
def own(tmp_path):
    """Writes a file of the user's folder."""

    def write(name: str, text: str) -> Path:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
        return tmp_path / name

    write("own.json", json.dumps([{"q": "Is it?", "a": 0}, {"q": "Is it not?", "a": 1}]))
    return write


def complaint(folder: Path) -> str:
    with pytest.raises(TaskError) as caught:
        load_index([folder])
    return str(caught.value)


def test_an_unknown_name_is_told_its_neighbours():
    with pytest.raises(TaskError, match=r"'arc_chalenge_25shot'; did you mean arc_challenge_25"):
        load_tasks(["arc_chalenge_25shot"], [tasks_folder()])
    with pytest.raises(TaskError, match="did you mean quick"):
        load_tasks(["quik"], [tasks_folder()])
    with pytest.raises(TaskError, match="'xyzzy'; `prefbench tasks` lists them"):
        load_tasks(["xyzzy"], [tasks_folder()])


def test_a_missing_folder(tmp_path):
    with pytest.raises(TaskError, match="nowhere: no such tasks folder"):
        load_index([tmp_path / "nowhere"])


def test_an_unknown_key_in_our_block_names_file_and_key(own, tmp_path):
    file = own("own.yaml", OWN + "metadata: {version: 1, prefbench: {metric: [acc]}}")
    assert f"{file}: metadata.prefbench.metric: Extra inputs" in complaint(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("metadata: {prefbench: {pairs: perhaps}}", r"metadata.prefbench.pairs"),
        ("metadata: {prefbench: [acc]}", r"metadata.prefbench"),
        ("metadata: [1.0]", r"metadata: is not a mapping"),
    ],
)
def test_a_wrong_value_in_our_block_names_file_and_key(own, tmp_path, text, message):
    file = own("own.yaml", OWN + text)
    said = complaint(tmp_path)
    assert said.startswith(f"{file}: {message}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("task: [unclosed", "cannot be read as YAML"),
        ("\x00", "cannot be read as YAML"),
        ("- a list", "is not a mapping of keys to values"),
        ("", "is not a mapping of keys to values"),
        (OWN.replace("task: own", ""), "no `task:` name"),
        ("task: own", "a task needs output_type and dataset_path"),
        ("group: several\ntask: [{task: own}]", "task: a suite lists its tasks by name"),
        ("group: several\ntask: own\nmetadata: {prefbench: {limits: 3}}", "limits"),
        ("include: absent.yaml", "absent.yaml: cannot be read"),
        ("include: own.yaml", "includes itself"),
    ],
)
def test_what_is_wrong_in_a_file_names_the_file(own, tmp_path, text, message):
    own("own.yaml", text)
    said = complaint(tmp_path)
    assert message in said
    assert str(tmp_path) in said


def test_an_include_loop(own, tmp_path):
    own("_a.yaml", "include: _b.yaml")
    own("_b.yaml", "include: _a.yaml")
    own("own.yaml", "include: _a.yaml\n" + OWN)
    assert "_a.yaml: includes itself" in complaint(tmp_path)


def test_two_may_include_the_same(own, tmp_path):
    own("_c.yaml", "num_fewshot: 3\nprocess_docs: null")
    own("_a.yaml", "include: _c.yaml\nnum_fewshot: 4")
    own("own.yaml", "include: [_a.yaml, _c.yaml]\n" + OWN)
    config = load_index([tmp_path])[0]["own"].config
    assert (config["num_fewshot"], config["process_docs"]) == (3, None)


def test_a_suite_may_name_one_task_and_must_name_known_ones(own, tmp_path):
    own("one.yaml", "group: one\ntask: own\nmetadata: {prefbench: {limit: 7}}")
    with pytest.raises(TaskError, match="no task or suite is named 'own'"):
        load_tasks(["one"], [tmp_path])
    own("own.yaml", OWN)
    ((task, limit),) = load_tasks(["one"], [tmp_path])
    assert (task.name, limit) == ("own", 7)
    # Named by itself it has no limit, whatever suite it is in.
    assert load_tasks(["one", "own"], [tmp_path]) == [(task, None)]
    assert load_tasks(["own", "one"], [tmp_path]) == [(task, None)]


def test_an_own_task_is_asked_with_data_beside_it(own, tmp_path):
    own("own.yaml", OWN)
    engine = ScriptedEngine(lambda context, text: -1.0 if text == " yes" else -2.0)
    requests = requests_of("own", None, engine, folder=tmp_path)
    assert [item.prompt for item in requests.items] == ["Is it?", "Is it not?"]
    assert quantities_of(requests, answers_of(requests, engine))["acc"] == [1.0, 0.0]


def test_an_own_folder_replaces_a_shipped_task(own, tmp_path):
    shipped = tasks_folder() / "gsm8k_5shot.yaml"
    own("mine/gsm8k.yaml", f"include: {shipped}\nnum_fewshot: 2")
    task = task_named("gsm8k_5shot", tmp_path)
    assert task.n_shots == 2
    assert task.file == tmp_path / "mine" / "gsm8k.yaml"
    assert task.definition != task_named("gsm8k_5shot").definition
    paper = dict.fromkeys(
        t.name for t, _ in load_tasks(["paper"], [tasks_folder(), tmp_path]) if t == task
    )
    assert list(paper) == ["gsm8k_5shot"]


FUNCTION = """
include: _own.yaml
process_docs: !function helpers.process
"""


def test_a_function_beside_the_yaml_is_used_and_hashed(own, tmp_path):
    helper = "def process(docs):\n    return docs.select([{}])\n"
    own("_own.yaml", OWN)
    own("own.yaml", FUNCTION)
    own("helpers.py", helper.format(1))
    definition = task_named("own", tmp_path).definition
    (item,) = requests_of("own", None, ScriptedEngine(), folder=tmp_path).items
    assert item.prompt == "Is it not?"
    own("helpers.py", helper.format(0))
    assert task_named("own", tmp_path).definition != definition
    own("helpers.py", helper.format(1))
    assert task_named("own", tmp_path).definition == definition
    own("_own.yaml", OWN.replace("{{q}}", "{{q}} "))
    assert task_named("own", tmp_path).definition != definition


def test_the_files_that_a_function_builds_on_are_hashed(tmp_path, monkeypatch):
    package = tmp_path / "prefbench"
    package.mkdir()
    for name in ("tasks", "documents", "pair_documents"):
        shutil.copy(Path(prefbench.__file__).parent / f"{name}.py", package)
    monkeypatch.setattr("prefbench.tasks.__file__", str(package / "tasks.py"))
    told = {}
    for name in ("pair_documents.arc_pairs", "documents.hh_pairs"):
        function = Function(f"prefbench.{name}", tmp_path)
        before = function.source
        for file in ("documents", "tasks"):
            with (package / f"{file}.py").open("a") as changed:
                changed.write("# another formula\n")
            told[name, file] = function.source != before
            before = function.source
    assert told == {
        ("pair_documents.arc_pairs", "documents"): True,
        ("pair_documents.arc_pairs", "tasks"): False,
        ("documents.hh_pairs", "documents"): True,
        ("documents.hh_pairs", "tasks"): False,
    }


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("absent.process", ""),
        ("helpers.absent", ""),
        ("process", ""),
        ("helpers.process", "def process(:"),
        ("helpers.process", "import no_such_module_anywhere"),
    ],
)
def test_a_function_that_cannot_be_imported(own, tmp_path, name, code):
    own("own.yaml", OWN + f"process_docs: !function {name}")
    own("helpers.py", code)
    with pytest.raises(TaskError, match=f"{tmp_path}: !function {name}"):
        requests_of("own", None, ScriptedEngine(), folder=tmp_path)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("doc_to_text", "doc_to_txet", "doc_to_txet"),
        ("multiple_choice", "multiple_choices", "multiple_choices"),
        ('"{{q}}"', '"{{q"', "TemplateSyntaxError"),
        ("doc_to_target: a", 'doc_to_target: "{{absent.b}}"', "absent"),
    ],
)
def test_what_lm_eval_refuses_names_the_file(own, tmp_path, before, after, message):
    assert OWN.count(before) == 1
    file = own("own.yaml", OWN.replace(before, after))
    with pytest.raises(TaskError, match=message) as caught:
        build(task_named("own", tmp_path), None)
    assert str(caught.value).startswith(f"{file}: lm-eval refuses the task: ")


@pytest.mark.parametrize(
    ("key", "before", "after"),
    [
        ("doc_to_text", '"{{q}}"', "question"),
        ("doc_to_target", "doc_to_target: a", "doc_to_target: answer"),
    ],
)
def test_a_column_that_is_not_there_is_no_text(own, tmp_path, key, before, after):
    assert OWN.count(before) == 1
    file = own("own.yaml", OWN.replace(before, after))
    name = after.rpartition(" ")[2]
    with pytest.raises(TaskError) as caught:
        build(task_named("own", tmp_path), None)
    said = str(caught.value)
    assert said.startswith(f"{file}: {key}: the data have no column '{name}', but q, a; ")


def test_a_text_that_is_the_same_for_all_items_can_be_said(own, tmp_path):
    text = OWN.replace('"{{q}}"', "'{{ \"question\" }}'")
    own("own.yaml", text)
    (first, _) = requests_of("own", None, ScriptedEngine(), folder=tmp_path).items
    assert first.prompt == "question"


@pytest.mark.parametrize("entry", ["metric: accuracies", "metric: acc, hf_evaluate: true"])
def test_a_metric_that_lm_eval_would_look_for_on_the_hub_is_refused(own, tmp_path, entry):
    own("own.yaml", OWN.replace("metric: acc", entry))
    with pytest.raises(TaskError, match=r"own.yaml: metric_list: lm-eval itself has no metric 'ac"):
        build(task_named("own", tmp_path), None)


@pytest.mark.parametrize(
    "entry",
    [
        "metric: acc, aggregation: median",
        "metric: perplexity",
        "metric: word_perplexity, aggregation: mean",
    ],
)
def test_an_aggregation_that_would_not_be_lm_evals_is_refused(own, tmp_path, entry):
    own("own.yaml", OWN.replace("metric: acc, aggregation: mean", entry))
    with pytest.raises(TaskError, match=r"own.yaml: metric_list: \w+ is aggregated by "):
        build(task_named("own", tmp_path), None)


def test_a_task_without_a_split_to_score(own, tmp_path):
    own("own.yaml", OWN.replace("test_split: test", ""))
    with pytest.raises(TaskError, match="neither test_split nor validation_split"):
        _ = task_named("own", tmp_path).eval_split


def test_a_task_without_documents(own, tmp_path):
    own("own.yaml", FUNCTION)
    own("_own.yaml", OWN)
    own("helpers.py", "def process(docs):\n    return docs.select([])\n")
    with pytest.raises(TaskError):
        requests_of("own", None, ScriptedEngine(), folder=tmp_path)
