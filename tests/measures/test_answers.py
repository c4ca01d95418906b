"""Answers and quantities: by hand, against lm-eval's evaluation and against plain transformers."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

import numpy as np
import pytest
import torch
from lm_eval import simple_evaluate
from lm_eval.tasks import TaskManager

from prefbench.engines import open_engine
from prefbench.engines.base import EngineSettings, Generation
from prefbench.measures.answers import ask, item_metrics, pair_quantities, plan, seed_of
from prefbench.measures.items import Item
from prefbench.metrics import PAIR_METRICS, metrics_of
from prefbench.records import Answer, Record
from prefbench.tasks import tasks_folder
from tests.asking import (
    answers_of,
    build,
    checkpoint_at,
    quantities_of,
    requests_of,
    task_named,
)
from tests.scripted import ScriptedEngine


def value(name: str, columns: Mapping[str, list[float]], n: int) -> float:
    """A pair metric over all items."""
    metric = PAIR_METRICS[name]
    sums = [n if q == "1" else sum(columns[q]) for q in metric.quantities]
    return float(metric.statistic(np.array(sums)))


@pytest.fixture
def pairs(tmp_path):
    """Requests of a task of pairs with these rows."""

    def get(rows, engine, form="plain_pairs"):
        (tmp_path / "pairs.json").write_text(json.dumps(rows))
        (tmp_path / "own.yaml").write_text(
            f"include: {tasks_folder() / '_pairs.yaml'}\ntask: own_pairs\ndataset_path: json\n"
            "dataset_kwargs: {data_files: {test: pairs.json}}\ntest_split: test\n"
            f"process_docs: !function prefbench.documents.{form}\n"
        )
        return requests_of("own_pairs", None, engine, folder=tmp_path)

    return get


# --- pairs


UNIT = [{"prompt": "p", "chosen": "chosen.", "rejected": "rejected.."}]  # 8 and 11 tokens with end


def test_the_unit_pair_of_the_literature(pairs):
    engine = ScriptedEngine({"chosen.": -13.0, "rejected..": -13.5})
    requests = pairs(UNIT, engine)
    columns = quantities_of(requests, answers_of(requests, engine))
    assert columns == {
        "cut": [0.0],
        "sum_logp_chosen": [-13.0],
        "n_tokens_chosen": [8.0],
        "n_bytes_chosen": [7.0],
        "n_texts_chosen": [1.0],
        "mean_logp_chosen": [-1.625],
        "text_logp_chosen": [-13.0],
        "sum_logp_rejected": [-13.5],
        "n_tokens_rejected": [11.0],
        "n_bytes_rejected": [10.0],
        "n_texts_rejected": [1.0],
        "mean_logp_rejected": [-13.5 / 11],
        "text_logp_rejected": [-13.5],
        "preferred": [0.0],
    }
    expected = {
        "agility_pair": -0.397727,
        "agility": -0.397727,
        "agility_seq": 0.5,
        "perplexity": 5.078419,
        "perplexity_rejected": 3.411912,
        "agility_acc": 0.0,
    }
    for name, number in expected.items():
        assert value(name, columns, 1) == pytest.approx(number, abs=1.5e-6)
    ratio = value("perplexity_rejected", columns, 1) / value("perplexity", columns, 1)
    assert ratio == pytest.approx(0.671845, abs=1e-6)


def causal_item(n_chosen: int) -> Item:
    return Item(0, "", (), {"chosen": ["c"] * n_chosen}, "")


def test_several_texts_of_one_item():
    answer = Answer(
        0,
        logps=(-4.0, -9.0, -6.0, -2.0, -10.0),
        n_tokens=(4, 3, 6, 4, 5),
        n_bytes=(10, 11, 12, 13, 14),
    )
    found = pair_quantities(causal_item(2), answer)  # per token: 1, 3 against 1, 0.5, 2 nats
    assert found == {
        "sum_logp_chosen": -13.0,
        "n_tokens_chosen": 7.0,
        "n_bytes_chosen": 21.0,
        "n_texts_chosen": 2.0,
        "mean_logp_chosen": -2.0,
        "text_logp_chosen": -6.5,
        "sum_logp_rejected": -18.0,
        "n_tokens_rejected": 15.0,
        "n_bytes_rejected": 39.0,
        "n_texts_rejected": 3.0,
        "mean_logp_rejected": pytest.approx(-3.5 / 3),
        "text_logp_rejected": -6.0,
        # The first chosen ties, loses and wins; the second always loses.
        "preferred": 1.5 / 6,
    }


def test_an_item_without_rejected_texts_counts_for_the_positives_alone():
    answer = Answer(0, logps=(-4.0,), n_tokens=(4,), n_bytes=(9,))
    found = pair_quantities(causal_item(1), answer)
    assert (found["sum_logp_chosen"], found["n_tokens_chosen"]) == (-4.0, 4.0)
    assert (found["sum_logp_rejected"], found["n_tokens_rejected"]) == (0.0, 0.0)
    assert found["mean_logp_chosen"] == -1.0
    assert {"mean_logp_rejected", "text_logp_rejected", "preferred"}.isdisjoint(found)


def test_agility_over_the_sets_of_causal_dialogues(pairs):
    # After "A: Hi" come two causes; "B: x" leads to p and q, "B: y" to q alone.
    said = {"type": "utterance", "speaker": "B"}
    rows = [
        {
            "dialog_name": "one",
            "category": "made up",
            "original_data": [
                {**said, "id": 0, "text": "Hi", "prev_ids": []},
                {**said, "id": 1, "text": "x", "prev_ids": [0]},
                {**said, "id": 2, "text": "y", "prev_ids": [0]},
                {**said, "id": 3, "text": "p", "prev_ids": [1]},
                {**said, "id": 4, "text": "qq", "prev_ids": [1]},
                {**said, "id": 5, "text": "qq", "prev_ids": [2]},
            ],
        }
    ]

    def logp(context, text):
        return {
            ("x", "B: p"): -5.0,  # 4 characters and the end
            ("x", "B: qq"): -3.0,
            ("y", "B: qq"): -9.0,
            ("y", "B: p"): -20.0,
        }[context.strip()[-1], text]

    engine = ScriptedEngine(logp)
    requests = pairs(rows, engine, "causal_pairs")
    columns = quantities_of(requests, answers_of(requests, engine))
    n = len(requests.items)
    assert n == 2
    # Positives: p and qq after x, qq after y: 17 nats, 17 tokens. Negative: p after y.
    assert value("agility", columns, n) == pytest.approx(20 / 5 - 17 / 17)
    assert value("perplexity", columns, n) == pytest.approx(math.e)
    assert columns["n_texts_rejected"] == [0.0, 1.0]
    assert len(columns["preferred"]) == 1


def test_the_log_prob_of_a_real_dialogue_is_the_models_own(small_zoo, real_data):
    """Written once more, from the data's row to the number, with transformers alone."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    path = small_zoo / "checkpoints" / "dpo"
    with open_engine("hf", checkpoint_at(path), EngineSettings()) as engine:
        requests = requests_of("hh_helpful_pairs", real_data, engine, limit=4)
        answers = answers_of(requests, engine)
    tokenizer = AutoTokenizer.from_pretrained(path)
    model = AutoModelForCausalLM.from_pretrained(path)
    rows = build(task_named("hh_helpful_pairs"), real_data).dataset["test"]
    compared = 0
    for row, answer in zip(rows, answers, strict=False):
        if answer.reason:
            continue
        for dialogue, logp, n in zip(
            (row["chosen"], row["rejected"]), answer.logps, answer.n_tokens, strict=True
        ):
            cut = dialogue.rindex("\n\nAssistant:") + len("\n\nAssistant:")
            context = tokenizer(dialogue[:cut])["input_ids"]
            reply = [*tokenizer(dialogue[cut:])["input_ids"], tokenizer.eos_token_id]
            with torch.no_grad():
                logits = model(torch.tensor([context + reply])).logits[0]
            table = logits.log_softmax(-1)
            by_token = [table[len(context) - 1 + i, t].item() for i, t in enumerate(reply)]
            assert logp == pytest.approx(sum(by_token), abs=1e-3)
            assert n == len(reply)
            compared += 1
    assert compared >= 4


# --- asking


def test_batches_are_in_the_order_of_the_data(pairs):
    rows = [{"prompt": "p", "chosen": "c" * (i + 1), "rejected": "r"} for i in range(7)]
    requests = pairs(rows, ScriptedEngine())
    assert [list(batch) for batch in plan(requests, 3)] == [[0, 1, 2], [3, 4, 5], [6]]
    assert [list(batch) for batch in plan(requests, 9)] == [list(range(7))]


def test_a_batch_is_answered_in_its_own_order(pairs):
    rows = [{"prompt": "p", "chosen": "c" * (i + 1), "rejected": "r"} for i in range(4)]
    engine = ScriptedEngine()
    requests = pairs(rows, engine)
    answers = ask(requests, engine, [2, 0])
    assert [answer.item for answer in answers] == [2, 0]
    assert [answer.n_tokens for answer in answers] == [(4, 2), (2, 2)]


def test_tokens_cut_from_the_prompt_are_counted(pairs):
    rows = [{"prompt": "p" * 30, "chosen": "c" * 10, "rejected": "r" * 5}]
    engine = ScriptedEngine(max_length=20)
    requests = pairs(rows, engine)
    (answer,) = answers_of(requests, engine)
    assert answer.n_cut == 30 + 11 - 21
    assert quantities_of(requests, [answer])["cut"] == [1.0]


def test_an_answer_that_cannot_be_scored_takes_its_item_alone(pairs):
    rows = [
        {"prompt": "p", "chosen": "c" * 30, "rejected": "r"},
        {"prompt": "p", "chosen": "fine", "rejected": "bad"},
        {"prompt": "p", "chosen": "c", "rejected": "r"},
    ]
    engine = ScriptedEngine({"bad": -math.inf}, max_length=20)
    requests = pairs(rows, engine)
    records = list(item_metrics(requests, answers_of(requests, engine)))
    missing = [record for record in records if record.value is None]
    assert missing == [
        Record(0, "answer", None, "the answer has 31 tokens, the context length is 20"),
        Record(1, "answer", None, "the log-prob is not a finite number"),
    ]
    assert {record.item for record in records if record.value is not None} == {2}


def test_generated_texts_say_whether_they_were_finished(real_data):
    class Writer(ScriptedEngine):
        def generate(self, prompts, sampling, seeds):
            return [Generation(f"#### {n}", 4 + n, n != 1, n_cut=n) for n, _ in enumerate(prompts)]

    engine = Writer()
    requests = requests_of("gsm8k_5shot", real_data, engine, limit=3)
    answers = ask(requests, engine, [0, 1, 2])
    assert [answer.texts for answer in answers] == [("#### 0",), ("#### 1",), ("#### 2",)]
    assert [answer.unfinished for answer in answers] == [(False,), (True,), (False,)]
    assert [answer.n_cut for answer in answers] == [0, 1, 2]
    columns = quantities_of(requests, answers)
    assert columns["unfinished"] == [0.0, 1.0, 0.0]
    assert columns["cut"] == [0.0, 1.0, 1.0]


def test_a_page_is_scored_in_windows_that_sum(real_data):
    engine = ScriptedEngine(max_length=500)
    requests = requests_of("wikitext2", real_data, engine, limit=1)
    (answer,) = answers_of(requests, engine)
    (text,) = requests.items[0].continuations
    assert answer.n_tokens == (len(text),)
    assert answer.n_bytes == (len(text.encode()),)
    assert answer.logps == (-float(len(text)),)  # one nat a token, every token once
    assert len(engine.scored) == math.ceil(len(text) / 500)
    assert answer.n_cut == 0


def test_a_page_without_tokens_has_a_reason(real_data):
    class Mute(ScriptedEngine):
        def tok_encode(self, string, add_special_tokens=None, **kwargs):
            return []

    requests = requests_of("wikitext2", real_data, Mute(), limit=1)
    assert [a.reason for a in answers_of(requests, Mute())] == ["the text has no tokens"]


# --- lm-eval's metrics


@pytest.mark.parametrize(
    ("name", "limit"),
    [("arc_easy_0shot", 30), ("hellaswag_0shot", 20), ("gsm8k_5shot", 8), ("wikitext2", 4)],
)
def test_scores_are_what_lm_eval_makes_of_the_same_answers(name, limit, real_data):
    class Engine(ScriptedEngine):
        def generate(self, prompts, sampling, seeds=()):
            return [
                Generation(f"So #### {len(prompt) % 30}, or 18 dollars.", 9, True)
                for prompt in prompts
            ]

    engine = Engine(lambda context, text: -math.sqrt(len(text)) * (1 + len(context) % 7))
    requests = requests_of(name, real_data, engine, limit=limit)
    columns = quantities_of(requests, answers_of(requests, engine))
    out = simple_evaluate(
        engine,
        tasks=[build(task_named(name), real_data)],
        limit=limit,
        bootstrap_iters=0,
        task_manager=TaskManager(include_defaults=False),
    )["results"][name]
    metrics = metrics_of(columns, requests.harness.higher_is_better())
    expected = {
        key.removesuffix(",none"): number
        for key, number in out.items()
        if isinstance(number, float) and "stderr" not in key
    }
    assert set(expected) == set(metrics) - {"cut", "unfinished"}
    for key, number in expected.items():
        sums = [limit if q == "1" else sum(columns[q]) for q in metrics[key].quantities]
        assert float(metrics[key].statistic(np.array(sums))) == pytest.approx(number, rel=1e-12)
        if metrics[key].proportion:
            assert set(columns[key]) <= {0.0, 1.0}
    assert any(0 < number < 1 for key, number in expected.items()) or name == "wikitext2"


# --- several texts of an item

FREE = """
task: free
output_type: generate_until
dataset_path: json
dataset_kwargs: {data_files: {test: free.json}}
test_split: test
doc_to_text: "{{q}}"
doc_to_target: "{{a}}"
repeats: 4
generation_kwargs: {until: ["\\n"], do_sample: true, temperature: 0.8, seed: 5}
metric_list:
  - {metric: exact_match, aggregation: mean, higher_is_better: true}
"""
SELF_CONSISTENCY = """
filter_list:
  - name: first
    filter:
      - {function: regex, regex_pattern: "is (\\\\d+)"}
      - {function: take_first}
  - name: maj@3
    filter:
      - {function: take_first_k, k: 3}
      - {function: regex, regex_pattern: "is (\\\\d+)"}
      - {function: majority_vote}
      - {function: take_first}
  - name: vote
    filter:
      - {function: regex, regex_pattern: "is (\\\\d+)"}
      - {function: majority_vote}
      - {function: take_first}
  - name: of_two
    filter:
      - {function: regex, regex_pattern: "is (\\\\d+)"}
      - {function: take_first_k, k: 2}
      - {function: take_first}
"""
REPLIES = {
    "a": ["is 1", "is 2", "is 2", "is 1"],  # 1 is right: the first vote of four is a tie
    "b": ["is 3", "is 3", "it was", "is 1"],
    "c": ["is 1", "is 1", "is 1", "is 1"],
    "d": ["no", "no", "no", "is 1"],
}


class Speaker(ScriptedEngine):
    """Says of each prompt its replies in turn, whenever it is asked again."""

    def __init__(self, replies, *, not_finite=()):
        super().__init__()
        self.left = {prompt: list(texts) for prompt, texts in replies.items()}
        self.not_finite = not_finite
        self.calls = []

    def generate(self, prompts, sampling, seeds=()):
        self.calls.append([self.text(prompt) for prompt in prompts])
        texts = [self.left[self.text(prompt)].pop(0) for prompt in prompts]
        return [
            Generation(text, len(text), text != "no", finite=text not in self.not_finite)
            for text in texts
        ]


@pytest.fixture
def free(tmp_path):
    """Requests of a task that asks for four texts of each of four items."""
    rows = [{"q": prompt, "a": "1"} for prompt in REPLIES]
    (tmp_path / "free.json").write_text(json.dumps(rows))

    def get(engine, more=""):
        (tmp_path / "free.yaml").write_text(FREE + more)
        return requests_of("free", None, engine, folder=tmp_path)

    get.folder = tmp_path
    return get


def test_all_texts_of_a_batch_are_asked_for_at_once(free):
    engine = Speaker(REPLIES)
    answers = answers_of(free(engine), engine, 3)
    assert engine.calls == [[*"aaaabbbbcccc"], [*"dddd"]]
    assert [answer.texts for answer in answers] == [tuple(texts) for texts in REPLIES.values()]
    assert answers[3].n_tokens == answers[3].n_bytes == (2, 2, 2, 4)
    assert answers[3].unfinished == (True, True, True, False)


def test_each_text_has_a_seed_of_its_own_that_no_batch_changes(free):
    class Seeds(ScriptedEngine):
        """Says its seed."""

        def generate(self, prompts, sampling, seeds):
            assert sampling.seed == 5
            return [Generation(str(seed), 1, True) for seed in seeds]

    engine = Seeds()
    requests = free(engine)
    answers = answers_of(requests, engine, 4)
    assert answers == answers_of(requests, engine, 1)
    with requests.built_by(engine):
        assert ask(requests, engine, [2, 0]) == [answers[2], answers[0]]
    said = [[int(text) for text in answer.texts] for answer in answers]
    assert said == [[seed_of(5, item, sample) for sample in range(4)] for item in range(4)]
    seeds = {seed_of(task, item, k) for task in (0, 1) for item in range(100) for k in range(20)}
    assert len(seeds) == 4000
    assert 0 <= min(seeds) < max(seeds) < 2**31
    assert max(seeds) > 2**30
    assert seed_of(0, 0, 0) == 622393769  # another one would change numbers that are kept


def test_an_item_is_missing_where_one_of_its_texts_is(free):
    engine = Speaker(REPLIES, not_finite=("it was",))
    requests = free(engine)
    records = list(item_metrics(requests, answers_of(requests, engine)))
    assert [r for r in records if r.value is None] == [
        Record(1, "answer", None, "the log-prob is not a finite number")
    ]
    assert {r.item for r in records if r.quantity == "exact_match"} == {0, 2, 3}


def test_quantities_of_several_texts_by_hand(free):
    engine = Speaker(REPLIES)
    requests = free(engine, SELF_CONSISTENCY)
    columns = quantities_of(requests, answers_of(requests, engine))
    assert columns == {
        "cut": [0.0] * 4,
        "exact_match,first": [0.5, 0.25, 1.0, 0.25],
        "exact_match@best_of_4,first": [1.0, 1.0, 1.0, 1.0],
        "exact_match,maj@3": [0.0, 0.0, 1.0, 0.0],
        "exact_match,vote": [1.0, 0.0, 1.0, 0.0],
        "exact_match,of_two": [0.5, 0.0, 1.0, 0.0],
        "exact_match@best_of_2,of_two": [1.0, 0.0, 1.0, 0.0],
        "unfinished": [0.0, 0.0, 0.0, 0.75],
    }


def test_the_best_of_several_is_the_lowest_where_lower_is_better(free):
    more = """
metric_list: [{metric: slips, aggregation: mean, higher_is_better: false}]
process_results: !function slips.slips
"""
    (free.folder / "slips.py").write_text(
        "def slips(doc, results):\n"
        "    n = len(results[0])\n"
        "    return {'slips': n, 'other': n, 'rate': (n, 2)}\n"
    )
    engine = Speaker(REPLIES)
    columns = quantities_of(free(engine, more), answers_of(free(engine, more), engine))
    assert columns["slips"] == [4.0, 4.5, 4.0, 2.5]
    assert columns["slips@best_of_4"] == [4.0, 4.0, 4.0, 2.0]
    assert columns["other"] == columns["slips"]
    assert columns["rate.value"] == columns["slips"]
    assert columns["rate.weight"] == [2.0] * 4
    assert {name for name in columns if "best_of" in name} == {"slips@best_of_4"}


def test_votes_are_lm_evals_and_a_mean_is_that_of_its_first_texts(free):
    """lm-eval itself on the same replies, four times with another of them first."""

    def theirs(replies):
        task = build(task_named("free", free.folder), None)
        out = simple_evaluate(
            Speaker(replies),
            tasks=[task],
            bootstrap_iters=0,
            task_manager=TaskManager(include_defaults=False),
        )["results"]["free"]
        return {k: v for k, v in out.items() if k.startswith("exact_match,")}

    engine = Speaker(REPLIES)
    requests = free(engine, SELF_CONSISTENCY)
    columns = quantities_of(requests, answers_of(requests, engine))
    mine = {name: float(np.mean(values)) for name, values in columns.items()}
    one = theirs(REPLIES)
    assert set(one) == {name for name in mine if name.startswith("exact_match,")}
    for name in ("exact_match,vote", "exact_match,maj@3"):
        assert mine[name] == one[name]
    turned = [
        theirs({prompt: texts[k:] + texts[:k] for prompt, texts in REPLIES.items()})
        for k in range(4)
    ]
    firsts = [out["exact_match,first"] for out in turned]
    assert mine["exact_match,first"] == np.mean(firsts)
    assert len(set(firsts)) > 1
