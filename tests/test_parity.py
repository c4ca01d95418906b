"""Answers and scores equal those of lm-eval's own model on real items."""

from __future__ import annotations

import numpy as np
import pytest
from lm_eval import simple_evaluate
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from prefbench.engines import open_engine
from prefbench.engines.base import EngineSettings
from prefbench.measures.requests import build_requests
from prefbench.metrics import metrics_of
from tests.asking import answers_of, build, checkpoint_at, quantities_of, task_named
from tests.official import official

SHORT_GSM8K = "include: {}\ntask: gsm8k_short\ngeneration_kwargs: {}\n"


@pytest.fixture(scope="module")
def path(small_zoo):
    return small_zoo / "checkpoints" / "sft"


@pytest.fixture(scope="module")
def engine(path):
    with open_engine("hf", checkpoint_at(path), EngineSettings()) as opened:
        yield opened


@pytest.fixture(scope="module")
def theirs(path):
    return HFLM(pretrained=str(path), dtype="float32", device="cpu", batch_size=4)


@pytest.fixture(scope="module")
def short_gsm8k(tmp_path_factory):
    """GSM8K with short answers."""
    folder = tmp_path_factory.mktemp("tasks")
    settings = (
        '{until: ["Question:", "</s>", "<|im_end|>"], do_sample: false, '
        "temperature: 0.0, max_gen_toks: 24}"
    )
    text = SHORT_GSM8K.format(task_named("gsm8k_5shot").file, settings)
    (folder / "gsm8k_short.yaml").write_text(text)
    return folder


def evaluate(model, task, limit):
    """lm-eval's results, and its samples by item."""
    none_of_its_own = TaskManager(include_defaults=False)  # reading those takes seconds
    out = simple_evaluate(
        model, tasks=[task], limit=limit, bootstrap_iters=0, task_manager=none_of_its_own
    )
    (name,) = out["results"]
    samples = {}
    for sample in out["samples"][name]:
        samples.setdefault(sample["doc_id"], sample)
    return out["results"][name], [samples[item] for item in sorted(samples)]


@pytest.mark.parametrize(
    ("name", "fewshot", "limit", "ours_is"),
    [
        ("arc_challenge_0shot", "fixed", 20, ("arc_challenge", 0)),
        ("arc_challenge_25shot", "fixed", 2, ("arc_challenge", 25)),
        ("arc_challenge_25shot", "parity", 2, ("arc_challenge", 25)),
        ("hellaswag_10shot", "parity", 3, ("hellaswag", 10)),
        ("gsm8k_short", "fixed", 5, None),
        ("wikitext2", "fixed", 1, None),
    ],
)
def test_answers_and_scores_are_lm_evals(
    name, fewshot, limit, ours_is, real_data, tmp_path, engine, theirs, short_gsm8k
):
    task = task_named(name, short_gsm8k)
    harness = build(task, real_data, fewshot)
    requests = build_requests(task, harness, engine, chat=False, limit=limit)
    answers = answers_of(requests, engine, size=3)
    # Where it is quick to make, lm-eval's own task file, else ours carried out by lm-eval.
    reference = official(*ours_is, fewshot, real_data, tmp_path) if ours_is else harness
    results, samples = evaluate(theirs, reference, limit)
    assert len(samples) == len(answers) == limit
    for item, answer, sample in zip(requests.items, answers, samples, strict=True):
        assert answer.reason is None
        if task.kind == "generate_until":
            assert sample["arguments"][0][0] == item.prompt
            assert answer.texts == (sample["resps"][0][0],)
        elif task.kind == "loglikelihood_rolling":
            assert answer.logps == pytest.approx([sample["resps"][0][0]], abs=1e-2, rel=1e-6)
        else:
            assert sample["arguments"][0][0] == item.prompt
            logps, greedy = zip(*(resp[0] for resp in sample["resps"]), strict=True)
            assert answer.logps == pytest.approx([float(logp) for logp in logps], abs=1e-4)
            assert answer.greedy == tuple(str(flag) == "True" for flag in greedy)
    columns = quantities_of(requests, answers)
    metrics = metrics_of(columns, harness.higher_is_better())
    compared = 0
    for key, value in results.items():
        metric, _, pipeline = key.partition(",")
        name = metric if pipeline == "none" else key
        if name in metrics:
            sums = np.array(
                [sum(columns[q]) if q != "1" else len(answers) for q in metrics[name].quantities]
            )
            exact = task.kind != "loglikelihood_rolling"
            assert float(metrics[name].statistic(sums)) == (
                value if exact else pytest.approx(value, rel=1e-6)
            )
            compared += 1
    assert (
        compared
        == {"multiple_choice": 2, "generate_until": 3, "loglikelihood_rolling": 3}[task.kind]
    )


@pytest.mark.parametrize(("name", "limit"), [("arc_challenge_0shot", 12), ("gsm8k_short", 3)])
def test_an_engine_is_a_model_for_lm_eval(name, limit, real_data, engine, theirs, short_gsm8k):
    task = task_named(name, short_gsm8k)
    mine, my_samples = evaluate(engine, build(task, real_data), limit)
    reference, samples = evaluate(theirs, build(task, real_data), limit)
    assert mine == reference
    assert len(samples) == limit
    for one, other in zip(my_samples, samples, strict=True):
        if task.kind == "generate_until":
            assert one["resps"] == other["resps"]


def test_an_engine_rolls_for_lm_eval(engine, theirs):
    texts = ["", "A short text.", "word " * 20]
    requests = [Instance("loglikelihood_rolling", {}, (text,), i) for i, text in enumerate(texts)]
    assert engine.loglikelihood_rolling(requests) == pytest.approx(
        theirs.loglikelihood_rolling(requests, disable_tqdm=True), abs=1e-4
    )
