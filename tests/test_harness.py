"""Prompts: those of lm-eval's own task files, whatever the limit, and never with the answer."""

from __future__ import annotations

import json
import re
from types import SimpleNamespace

import lm_eval.utils
import pyarrow.parquet
import pytest
from lm_eval.tasks._yaml_loader import load_yaml

from prefbench import data
from prefbench.errors import DataError
from prefbench.measures.requests import build_requests
from prefbench.tasks import load_index, splits_of
from tests.asking import build, requests_of, task_named
from tests.official import FOLDER, TASKS, official, sent
from tests.scripted import ScriptedEngine

N = 25
PROMPTS = [
    ("arc_easy_0shot", "arc_easy", 0),
    ("arc_easy_25shot", "arc_easy", 25),
    ("arc_challenge_0shot", "arc_challenge", 0),
    ("arc_challenge_25shot", "arc_challenge", 25),
    ("hellaswag_0shot", "hellaswag", 0),
    ("hellaswag_10shot", "hellaswag", 10),
    ("gsm8k_5shot", "gsm8k", 5),
]


class Words(ScriptedEngine):
    """Texts are compared, not tokens."""

    def tok_encode(self, string, add_special_tokens=None, **kwargs):
        return list(range(2, 2 + len(string.split())))


@pytest.fixture(scope="module")
def harness_of(real_data):
    """Our tasks on real data, each built once."""
    built = {}

    def get(name, fewshot="fixed"):
        if (name, fewshot) not in built:
            built[name, fewshot] = build(task_named(name), real_data, fewshot)
        return built[name, fewshot]

    return get


def ours(harness, name, limit):
    requests = build_requests(task_named(name), harness, Words(), chat=False, limit=limit)
    return [(item.prompt, item.continuations) for item in requests.items]


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("official")


@pytest.mark.parametrize(
    ("name", "theirs", "n_shots", "fewshot"),
    [
        (*prompts, fewshot)
        for prompts in PROMPTS
        for fewshot in ("fixed", "parity")
        if fewshot == "fixed" or prompts[2]  # without examples there is nothing to draw
    ],
)
def test_prompts_and_choices_are_those_of_lm_evals_own_file(
    harness_of, real_data, scratch, name, theirs, n_shots, fewshot
):
    expected = sent(official(theirs, n_shots, fewshot, real_data, scratch), N)
    found = ours(harness_of(name, fewshot), name, N)
    assert len(found) == len(expected) == N
    for item, (mine, reference) in enumerate(zip(found, expected, strict=True)):
        assert mine == reference, f"item {item}"
    if fewshot == "parity":  # each item has draws of its own
        assert len({prompt[:40] for prompt, _ in found}) > N / 2


@pytest.mark.parametrize("fewshot", ["fixed", "parity"])
def test_hellaswag_with_its_train_split(real_data, tmp_path, fewshot):
    rows = pyarrow.parquet.read_table(real_data / "hellaswag" / "validation.parquet")
    (tmp_path / "hellaswag").mkdir()
    for split, part in (("validation", rows[:N]), ("train", rows[5000:5100])):
        pyarrow.parquet.write_table(part, tmp_path / "hellaswag" / f"{split}.parquet")
    theirs = official("hellaswag_train", 10, fewshot, tmp_path, tmp_path)
    found = ours(build(task_named("hellaswag_10shot"), tmp_path, fewshot), "hellaswag_10shot", N)
    assert found == sent(theirs, N)


@pytest.mark.parametrize("fewshot", ["fixed", "parity"])
@pytest.mark.parametrize("name", ["arc_challenge_25shot", "hellaswag_10shot", "gsm8k_5shot"])
def test_prompts_depend_neither_on_the_limit_nor_on_what_was_built_before(
    harness_of, name, fewshot
):
    harness = harness_of(name, fewshot)
    twenty = ours(harness, name, 20)
    assert ours(harness, name, 5) == twenty[:5]
    assert ours(harness, name, 20) == twenty


def test_fixed_examples_are_the_same_for_every_item(harness_of):
    found = ours(harness_of("arc_challenge_25shot"), "arc_challenge_25shot", N)
    shots = {prompt.rpartition("Question: ")[0] for prompt, _ in found}
    assert len(shots) == 1
    assert shots.pop().count("Question: ") == 25


@pytest.mark.parametrize("fewshot", ["fixed", "parity"])
def test_no_item_is_among_its_own_examples(harness_of, fewshot):
    harness = harness_of("hellaswag_10shot", fewshot)
    requests = build_requests(
        task_named("hellaswag_10shot"), harness, Words(), chat=False, limit=300
    )
    assert len(requests.items) == 300
    for item in requests.items:
        query, gold = item.fields["query"], item.fields["choices"][item.fields["gold"]]
        assert item.prompt.endswith(query)
        assert item.prompt.count("\n\n") >= 10
        assert f"{query} {gold}" not in item.prompt, f"item {item.item}"
    if fewshot == "fixed":  # the first ten have the eleventh instead of themselves
        eleventh = requests.items[10].fields["query"]
        with_eleventh = [
            i.item for i in requests.items if eleventh in i.prompt.split("\n\n", 10)[9]
        ]
        assert with_eleventh == list(range(10))


# --- a small task of our own


SMALL = """
task: small
output_type: multiple_choice
dataset_path: json
dataset_kwargs: {data_files: {train: train.json, test: test.json}}
training_split: train
test_split: test
num_fewshot: 3
doc_to_text: "{{q}}"
doc_to_choice: "{{c}}"
doc_to_target: "{{a}}"
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
"""


@pytest.fixture
def small(tmp_path):
    """Prompts of a task with these rows."""

    def prompts(train, test, fewshot="fixed", text=SMALL):
        rows = {
            split: [
                {"id": f"{split}{i}", "q": q, "c": ["x", "y"], "a": 0} for i, q in enumerate(qs)
            ]
            for split, qs in (("train", train), ("test", test))
        }
        for split, content in rows.items():
            (tmp_path / f"{split}.json").write_text(json.dumps(content))
        (tmp_path / "small.yaml").write_text(text)
        requests = requests_of("small", None, Words(), fewshot=fewshot, folder=tmp_path)
        return [item.prompt for item in requests.items]

    return prompts


def test_a_train_split_that_contains_the_question(small):
    # Recognised by what it asks, not by its id.
    prompts = small(train=["A", "B", "C", "D", "B"], test=["A", "C", "D", "E", "B"])
    shots = [re.findall(r"(\w) x\n\n", prompt) for prompt in prompts]
    assert shots == [list("BCD"), list("ABD"), list("ABC"), list("ABC"), list("ACD")]


def test_the_split_that_is_scored_as_its_own_pool(small):
    text = SMALL.replace("training_split: train", "")
    for fewshot in ("fixed", "parity"):
        prompts = small(train=["Z"], test=list("ABCDE"), fewshot=fewshot, text=text)
        for letter, prompt in zip("ABCDE", prompts, strict=True):
            examples = re.findall(r"(\w) x\n\n", prompt)
            assert len(examples) == 3
            assert letter not in examples
            assert prompt.endswith(letter)


@pytest.mark.parametrize("fewshot", ["fixed", "parity"])
def test_too_few_examples(small, fewshot):
    message = "task small: 3 examples are asked for, the few-shot split has 2 besides the item"
    with pytest.raises(DataError, match=message):
        small(train=["A", "B", "C"], test=["A"], fewshot=fewshot)


def test_exactly_enough_examples(small):
    assert small(train=["A", "B", "C"], test=["D"]) == ["A x\n\nB x\n\nC x\n\nD"]
    assert small(train=["A", "B", "C", "D"], test=["D"]) == ["A x\n\nB x\n\nC x\n\nD"]


def test_splits_that_the_task_does_not_use_are_not_loaded(real_data):
    task = task_named("arc_easy_0shot")
    source = data.find_source(task.config, [real_data], task.file.parent)
    assert set(source.files) == {"train", "validation", "test"}
    assert splits_of(task, source) == ["test"]
    assert splits_of(task_named("arc_easy_25shot"), source) == ["test", "train"]
    assert set(build(task, real_data).dataset) == {"test"}


# --- templates and pages


def test_kept_templates_give_the_text_of_fresh_ones(harness_of, monkeypatch):
    cached = lm_eval.utils.env.from_string
    texts = {name: ours(harness_of(name), name, 4) for name, _, _ in PROMPTS}
    assert cached.cache_info().hits > 0
    monkeypatch.setattr(lm_eval.utils.env, "from_string", cached.__wrapped__)
    before = cached.cache_info()
    for name, text in texts.items():
        assert ours(harness_of(name), name, 4) == text
    assert cached.cache_info() == before


def test_pages_have_lm_evals_words_and_bytes(harness_of):
    from lm_eval.tasks.wikitext.preprocess_wikitext import process_results, wikitext_detokenizer

    harness = harness_of("wikitext2")
    requests = build_requests(task_named("wikitext2"), harness, Words(), chat=False, limit=5)
    for item in requests.items:
        page = item.fields["page"]
        (text,) = item.continuations
        assert item.prompt == ""
        assert text == wikitext_detokenizer(item.fields) != page
        found = harness.process_results(item.fields, [-1000.0])
        assert found == process_results(item.fields, [-1000.0])
        # The original page is counted, not the detokenised text that is scored.
        assert found["word_perplexity"] == (-1000.0, len(re.split(r"\s+", page)))
        assert found["byte_perplexity"] == (-1000.0, len(page.encode()))
        assert found["bits_per_byte"] == (-1000.0, len(page.encode()))


def test_the_settings_of_official_files_are_kept():
    """What the prompts do not show: filters, stop strings, metrics."""
    mine = load_index([task_named("gsm8k_5shot").file.parent])[0]
    for name, theirs, _ in PROMPTS:
        reference = SimpleNamespace(**load_yaml(FOLDER / TASKS[theirs][0], resolve_func=False))
        config = mine[name].config
        assert config["metric_list"] == reference.metric_list
        assert config["output_type"] == reference.output_type
        assert config["dataset_path"] == reference.dataset_path
        assert config.get("dataset_name") == reference.dataset_name
        if theirs == "gsm8k":
            for one in reference.filter_list:
                assert one in config["filter_list"]
            assert config["generation_kwargs"].items() >= reference.generation_kwargs.items()
