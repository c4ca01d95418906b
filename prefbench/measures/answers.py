"""Asking a checkpoint, and turning its answers into one number per item and quantity."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from lm_eval.api.filter import FilterEnsemble
from lm_eval.api.instance import Instance
from lm_eval.filters.selection import TakeFirstFilter

from prefbench.engines.base import Engine, Generation, Logp, TokenRequest
from prefbench.measures.items import Item
from prefbench.measures.requests import Requests
from prefbench.metrics import BEST_OF
from prefbench.records import Answer, Record
from prefbench.tasks import OF_TEXTS

SAMPLE_SEED = 42
"""Of pairs that are drawn, and of models that have learnt nothing."""
NOT_FINITE = "the log-prob is not a finite number"


def plan(requests: Requests, size: int, repeat: int = 0) -> list[range]:
    """Batches of items in the order of the data, so that the first can be asked at once.

    A repeat has other batches: its first one is half as long.
    """
    n, first = len(requests), max(1, size // 2) if repeat else size
    starts = [0, *range(first, n, size)]
    return [range(i, min(j, n)) for i, j in itertools.pairwise([*starts, n])] if n else []


def drawn(n: int, sample: int | None) -> list[int]:
    """Places of the pairs that are looked at: all, or so many of them, by a fixed seed."""
    if sample is None or sample >= n:
        return list(range(n))
    rng = np.random.default_rng(SAMPLE_SEED)
    return sorted(rng.choice(n, size=sample, replace=False).tolist())


def ask(
    requests: Requests, engine: Engine, batch: Sequence[int], *, repeat: int = 0
) -> list[Answer]:
    """What a checkpoint gives for some items; an item that cannot be asked says why.

    Args:
        requests: of the task.
        engine: the checkpoint.
        batch: places of the items.
        repeat: above 0, texts are drawn from other seeds.

    Raises:
        EngineError: the engine failed as a whole.
    """
    if requests.task.kind == "generate_until":
        return _generate(requests, [engine], batch, repeat)[0]
    flat: list[TokenRequest] = []
    owners: list[tuple[int, int]] = []
    reasons: dict[int, str] = {}
    for index in batch:
        for position, request in enumerate(_scorable(requests, engine, index)):
            if reason := engine.check(request):
                reasons.setdefault(index, reason)
            else:
                flat.append(request)
                owners.append((index, position))
    scored: dict[int, list[Any]] = {index: [] for index in batch}
    found = engine.score(flat, details=True) if requests.task.recipe.pairs else engine.score(flat)
    for (index, _), logp in zip(owners, found, strict=True):
        scored[index].append(logp)
    return [_scored_answer(requests, index, scored[index], reasons.get(index)) for index in batch]


def _scorable(requests: Requests, engine: Engine, index: int) -> Sequence[TokenRequest]:
    if requests.task.kind != "loglikelihood_rolling":
        return requests.tokens(index)
    return [w for text in requests.tokens(index) for w in engine.rolling_windows(text.continuation)]


def _scored_answer(
    requests: Requests, index: int, logps: Sequence[Any], reason: str | None
) -> Answer:
    item, tokens = requests.item(index), requests.tokens(index)
    reason = item.reason or reason
    if reason is None and not logps:
        reason = "the text has no tokens"
    if reason is None and any(not math.isfinite(one.logp) for one in logps):
        reason = NOT_FINITE
    if reason:
        return Answer(index, reason=reason)
    sums, greedy = [one.logp for one in logps], [one.greedy for one in logps]
    if requests.task.kind == "loglikelihood_rolling":
        sums, greedy = [math.fsum(sums)], [all(greedy)]
    return Answer(
        index,
        logps=tuple(sums),
        greedy=tuple(greedy),
        n_tokens=tuple(len(request.continuation) for request in tokens),
        n_bytes=tuple(len(text.encode()) for text in item.continuations),
        n_cut=max(one.n_cut for one in logps),
        **(_details(tokens, logps) if requests.task.recipe.pairs else {}),
    )


def _details(tokens: Sequence[TokenRequest], logps: Sequence[Logp]) -> dict[str, Any]:
    """What is kept of the texts of a pair beside their sums, as far as the engine has it."""
    details: dict[str, Any] = {
        "token_ids": tuple(tuple(map(int, one.continuation)) for one in tokens)
    }
    if all(one.tokens for one in logps):
        details["token_logps"] = tuple(one.tokens for one in logps)
    states = [one.states for one in logps if one.states is not None]
    if len(states) == len(logps):
        stacked = np.stack(states)
        details["gram"] = tuple((stacked @ stacked.T).ravel().tolist())
    return details


def ask_together(
    requests: Requests, engines: Sequence[Engine], batch: Sequence[int], *, repeat: int = 0
) -> list[list[Answer]]:
    """What several checkpoints with one tokenizer give for the same items, a list for each.

    Raises:
        EngineError: an engine failed as a whole.
    """
    if requests.task.kind != "generate_until":
        return [ask(requests, engine, batch, repeat=repeat) for engine in engines]
    return _generate(requests, engines, batch, repeat) if engines else []


def _generate(
    requests: Requests, engines: Sequence[Engine], batch: Sequence[int], repeat: int
) -> list[list[Answer]]:
    assert requests.sampling is not None
    n, first = requests.task.n_texts, engines[0]
    reasons: dict[int, str] = {}
    for index in batch:
        prompt = requests.tokens(index)[0].context
        if reason := first.check_prompt(prompt, requests.sampling.max_gen_toks):
            reasons[index] = reason
    asked = [index for index in batch if index not in reasons]
    by_engine = first.generate_together(
        engines[1:],
        [requests.tokens(index)[0].context for index in asked for _ in range(n)],
        requests.sampling,
        [seed_of(requests.sampling.seed, index, k, repeat) for index in asked for k in range(n)],
    )
    found = []
    for texts in by_engine:
        keeps_ids = requests.task.recipe.measure in OF_TEXTS
        made = _generated_answers(asked, texts, n, keeps_ids=keeps_ids)
        answers = dict(zip(asked, made, strict=True))
        found.append([answers.get(i) or Answer(i, reason=reasons[i]) for i in batch])
    return found


def _generated_answers(
    batch: Sequence[int], texts: Sequence[Generation], n: int, *, keeps_ids: bool
) -> list[Answer]:
    keeps_ids = keeps_ids and all(one.tokens for one in texts)
    return [
        Answer(
            index,
            texts=tuple(one.text for one in several),
            n_tokens=tuple(one.n_tokens for one in several),
            n_bytes=tuple(len(one.text.encode()) for one in several),
            n_cut=several[0].n_cut,
            unfinished=tuple(not one.finished for one in several),
            token_ids=tuple(one.tokens for one in several) if keeps_ids else (),
        )
        if all(one.finite for one in several)
        else Answer(index, reason=NOT_FINITE)
        for i, index in enumerate(batch)
        for several in [texts[i * n : (i + 1) * n]]
    ]


def seed_of(task_seed: int, item: int, sample: int, repeat: int = 0) -> int:
    """The seed of one text, below 2**31: the same whatever else is asked, and in whatever batches.

    Checkpoints and temperatures share it, so that they differ by less chance.

    Args:
        task_seed: `seed` of the task's generation_kwargs, 0 by default.
        item: its place in the data.
        sample: which text of the item, from 0.
        repeat: how many times it was asked for before.
    """
    again = f" {repeat}" if repeat else ""
    digest = hashlib.sha256(f"{task_seed} {item} {sample}{again}".encode()).digest()
    return int.from_bytes(digest[:4]) >> 1


def item_metrics(requests: Requests, answers: Sequence[Answer]) -> Iterator[Record]:
    """Every quantity of every item, in the order of the answers.

    A metric that lm-eval gives as (value, weight) becomes two quantities, `name.value` and
    `name.weight`. An item without an answer has its reason under the quantity `answer`.

    Where an item has several texts and a filter pipeline would take the first of n that reach its
    end, a quantity is the mean over these n: what the first alone estimates. The best of them is
    `name@best_of_<n>`. Pipelines that make one of all texts (a majority vote) are lm-eval's.
    """
    for answer in answers:
        if answer.reason:
            yield Record(answer.item, "answer", None, answer.reason)
            continue
        yield Record(answer.item, "cut", float(answer.n_cut > 0))
        if requests.task.recipe.measure in OF_TEXTS:
            quantities = text_quantities(answer)
        elif requests.task.recipe.pairs:
            quantities = pair_quantities(requests.item(answer.item), answer)
        else:
            quantities = _lm_eval_metrics(requests, requests.item(answer.item), answer)
        for name, value in quantities.items():
            yield Record(answer.item, name, value)


def _lm_eval_metrics(requests: Requests, item: Item, answer: Answer) -> dict[str, float]:
    """lm-eval's own filters and metrics on one item's answer."""
    harness = requests.harness
    responses: list[Any]
    if answer.texts:
        responses = [list(answer.texts)]
    elif requests.task.kind == "loglikelihood_rolling":
        responses = [[answer.logps[0]]]
    else:
        responses = [[one] for one in zip(answer.logps, answer.greedy, strict=True)]
    instances = [
        Instance(requests.task.kind, dict(item.fields), (), i, resps=several)
        for i, several in enumerate(responses)
    ]
    better = harness.higher_is_better()
    quantities: dict[str, float] = {}
    for pipeline in harness._filters:
        suffix = "" if pipeline.name == "none" else f",{pipeline.name}"
        scores = [harness.process_results(item.fields, each) for each in _each(pipeline, instances)]
        for name in scores[0]:
            values = [score[name] for score in scores]
            if isinstance(values[0], tuple):
                quantities[f"{name}{suffix}.value"] = _mean([value for value, _ in values])
                quantities[f"{name}{suffix}.weight"] = _mean([weight for _, weight in values])
                continue
            quantities[f"{name}{suffix}"] = _mean(values)
            if len(values) > 1 and name in better:
                best = max(values) if better[name] else min(values)
                quantities[f"{name}{BEST_OF}{len(values)}{suffix}"] = float(best)
    if answer.unfinished:
        quantities["unfinished"] = _mean(answer.unfinished)
    return quantities


def _each(pipeline: FilterEnsemble, instances: Sequence[Instance]) -> list[list[Any]]:
    """What lm-eval's metrics are given of an item: once, or once for each of its texts."""
    takes_first = any(last.func is TakeFirstFilter for last in pipeline.filters[-1:])
    if takes_first and len(instances[0].resps) > 1:
        FilterEnsemble(pipeline.name, pipeline.filters[:-1]).apply(instances)
        return [[text] for text in instances[0].filtered_resps[pipeline.name]]
    pipeline.apply(instances)
    return [[instance.filtered_resps[pipeline.name] for instance in instances]]


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def text_quantities(answer: Answer) -> dict[str, float]:
    """What is known of an item's texts before anybody judges them, each a mean over the texts."""
    return {
        "n_chars": _mean([len(text.strip()) for text in answer.texts]),
        "n_tokens": _mean(answer.n_tokens),
        "unfinished": _mean(answer.unfinished),
    }


def pair_quantities(item: Item, answer: Answer) -> dict[str, float]:
    """Sums over the chosen and over the rejected texts of one item, from one pass.

    Log-probs in nats. `mean_logp_*` is the mean over the item's texts of log-prob per token;
    `preferred` the share of (chosen, rejected) combinations in which the chosen text has the higher
    log-prob per token, ties half. An item without texts of a kind lacks that kind's means.
    """
    n = len(item.fields["chosen"])
    kinds = {"chosen": slice(None, n), "rejected": slice(n, None)}
    quantities: dict[str, float] = {}
    per_token: dict[str, list[float]] = {}
    for kind, part in kinds.items():
        logps, tokens = answer.logps[part], answer.n_tokens[part]
        quantities[f"sum_logp_{kind}"] = math.fsum(logps)
        quantities[f"n_tokens_{kind}"] = float(sum(tokens))
        quantities[f"n_bytes_{kind}"] = float(sum(answer.n_bytes[part]))
        quantities[f"n_texts_{kind}"] = float(len(logps))
        per_token[kind] = [logp / n_tokens for logp, n_tokens in zip(logps, tokens, strict=True)]
        if logps:
            quantities[f"mean_logp_{kind}"] = math.fsum(per_token[kind]) / len(logps)
            quantities[f"text_logp_{kind}"] = math.fsum(logps) / len(logps)
    pairs = list(itertools.product(per_token["chosen"], per_token["rejected"]))
    if pairs:
        quantities["preferred"] = sum((c > r) + (c == r) / 2 for c, r in pairs) / len(pairs)
    return quantities
