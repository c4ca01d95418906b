"""Texts behind a shared prefix are those of transformers' own search, or drawn as it would."""

from __future__ import annotations

import json
import logging
from collections import Counter

import numpy as np
import pytest
import torch
from scipy import stats
from transformers import (
    AutoModelForCausalLM,
    LlamaForCausalLM,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from prefbench.engines import hf, open_engine
from prefbench.engines.base import EngineSettings, Sampling, TokenRequest
from prefbench.engines.decoding import Decoder
from prefbench.engines.scoring import Scorer
from tests.asking import checkpoint_at
from tests.engines.test_scoring import PACKED
from tests.small_models import CONTEXT, make

N = 12


def decoder_at(path, *, tokens=None, kind=AutoModelForCausalLM):
    scorer = Scorer(kind.from_pretrained(path).eval(), CONTEXT, torch.device("cpu"))
    assert scorer.plain_reason is None
    if tokens:
        scorer._tokens_at_once = tokens
    return Decoder(scorer)


def prompts_of(seed=0, n=7):
    rng = np.random.default_rng(seed)
    shots = rng.integers(0, 250, 14).tolist()
    return [
        [*shots, *rng.integers(0, 250, int(size)).tolist()] for size in rng.integers(0, 15, n) + 1
    ]


def never(texts):
    return [False] * len(texts)


def by_transformers(model, prompts):
    """Each prompt alone, so that nothing is padded."""
    found = []
    for prompt in prompts:
        with torch.inference_mode():
            output = model.generate(
                input_ids=torch.tensor([prompt]),
                attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
                max_new_tokens=N,
                do_sample=False,
                eos_token_id=None,
                pad_token_id=0,
            )
        found.append(output[0, len(prompt) :].tolist())
    return found


@pytest.mark.parametrize("tokens", [None, 16, 5])
@pytest.mark.parametrize("architecture", PACKED)
def test_tokens_are_those_of_greedy_search(architecture, tokens, path):
    decoder = decoder_at(path(architecture), tokens=tokens)
    assert decoder.plain_reason is None
    prompts = prompts_of()
    texts = decoder.decode(prompts, n_tokens=N, are_done=never)
    theirs = by_transformers(decoder.scorer.model, prompts)
    assert [text.tokens for text in texts] == theirs
    assert len({tuple(tokens) for tokens in theirs}) > 3
    scored = decoder.scorer.score(
        [TokenRequest(p, text.tokens) for p, text in zip(prompts, texts, strict=True)]
    )
    assert [text.logp for text in texts] == pytest.approx([s.logp for s in scored], abs=1e-4)
    assert all(s.greedy for s in scored)


def test_each_text_ends_by_itself_and_leaves_the_others_as_they_are(path):
    decoder = decoder_at(path("llama"))
    prompts = prompts_of()
    whole = decoder.decode(prompts, n_tokens=N, are_done=never)
    ends = [1, 9, 2, 3, 12, 4, 3]

    def are_done(some):
        """By what the whole texts say, as only the tokens are known here."""
        return [
            any(list(t) == w.tokens[:n] for w, n in zip(whole, ends, strict=True)) for t in some
        ]

    texts = decoder.decode(prompts, n_tokens=N, are_done=are_done)
    for text, one, n in zip(texts, whole, ends, strict=True):
        assert text.tokens == one.tokens[: len(text.tokens)]
        assert len(text.tokens) <= n
    assert {len(text.tokens) for text in texts} >= {1, 2, 3}


def test_a_prefix_is_run_once_from_call_to_call(path):
    decoder = decoder_at(path("llama"))
    prompts = [[*range(20), 30 + i] for i in range(6)]
    sizes = []
    decoder.scorer.model.model.embed_tokens.register_forward_hook(
        lambda module, inputs, out: sizes.append(out.shape[1])
    )
    first = decoder.decode(prompts, n_tokens=1, are_done=never)
    assert sizes == [20, 6]
    sizes.clear()
    assert decoder.decode(prompts, n_tokens=1, are_done=never) == first
    assert sizes == [6]
    sizes.clear()
    decoder.scorer.score([TokenRequest([5, 6, 7], [8, 9])])  # leaves another chain
    assert decoder.decode(prompts, n_tokens=1, are_done=never) == first


def test_out_of_memory_halves_the_batch(path):
    decoder = decoder_at(path("llama"))
    prompts = prompts_of()
    want = [text.tokens for text in decoder.decode(prompts, n_tokens=N, are_done=never)]
    most = []

    def full(module, inputs, out):
        if out.shape[1] > 20:
            raise torch.OutOfMemoryError("as a device says it")
        most.append(out.shape[1])

    decoder.scorer.model.model.embed_tokens.register_forward_hook(full)
    got = decoder.decode(prompts, n_tokens=N, are_done=never)
    assert [text.tokens for text in got] == want
    assert max(most) <= 20


def test_one_text_that_is_no_number_leaves_the_others_as_they_are(path):
    decoder = decoder_at(path("llama"))
    prompts = [prompt for prompt in prompts_of() if 7 not in prompt]
    want = decoder.decode(prompts, n_tokens=N, are_done=never)
    model = decoder.scorer.model
    with torch.no_grad():
        model.model.embed_tokens.weight[7] = float("nan")
    decoder.scorer.release()
    found = decoder.decode([*prompts, [*prompts[0], 7]], n_tokens=N, are_done=never)
    assert [text.finite for text in found] == [*[True] * len(prompts), False]
    unconcerned = [(f, w) for f, w in zip(found, want, strict=False) if 7 not in w.tokens]
    assert [f.tokens for f, _ in unconcerned] == [w.tokens for _, w in unconcerned] != []


# --- drawn texts

DRAWN = Sampling(temperature=1.2, top_k=60, top_p=0.95)


def drawn(decoder, prompts, seeds, **settings):
    texts = decoder.decode(
        prompts, n_tokens=N, are_done=never, sampling=DRAWN, seeds=seeds, **settings
    )
    return [text.tokens for text in texts]


@pytest.mark.parametrize("architecture", PACKED)
def test_a_drawn_text_hangs_on_its_prompt_and_its_seed_alone(architecture, path):
    decoder = decoder_at(path(architecture))
    prompts, seeds = prompts_of(), [11, 12, 13, 14, 15, 11, 12]
    together = drawn(decoder, prompts, seeds)
    assert len({tuple(tokens) for tokens in together}) == len(prompts)
    backwards = drawn(decoder, prompts[::-1], seeds[::-1])[::-1]
    twice = drawn(decoder, [*prompts, *prompts], [*range(7), *seeds])[7:]
    alone = [drawn(decoder, [p], [s])[0] for p, s in zip(prompts, seeds, strict=True)]
    small = drawn(decoder_at(path(architecture), tokens=5), prompts, seeds)
    assert together == backwards == twice == alone == small
    assert drawn(decoder, prompts, range(7)) != together


def test_the_log_prob_of_a_drawn_text_is_the_models_own(path):
    decoder = decoder_at(path("llama"))
    prompts = prompts_of()
    texts = decoder.decode(prompts, n_tokens=N, are_done=never, sampling=DRAWN, seeds=range(7))
    scored = decoder.scorer.score(
        [TokenRequest(p, text.tokens) for p, text in zip(prompts, texts, strict=True)]
    )
    assert [text.logp for text in texts] == pytest.approx([s.logp for s in scored], abs=1e-4)
    assert not all(s.greedy for s in scored)


def test_several_texts_of_a_prompt_run_it_once(path):
    decoder = decoder_at(path("llama"))
    prompts = [[*range(20), 30 + i, *range(40, 45)] for i in (0, 1, 0, 1, 1)]
    want = [drawn(decoder, [p], [s])[0] for s, p in enumerate(prompts)]
    sizes = []
    decoder.scorer.release()
    decoder.scorer.model.model.embed_tokens.register_forward_hook(
        lambda module, inputs, out: sizes.append(out.shape[1])
    )
    assert drawn(decoder, prompts, range(5)) == want
    assert sizes == [20, 2 * 6, *[5] * (N - 1)]


def test_out_of_memory_draws_the_same_texts_again(path):
    decoder = decoder_at(path("llama"))
    prompts = prompts_of()
    want = drawn(decoder, prompts, range(7))
    steps = []

    def full(module, inputs, out):
        """Not before some tokens of all texts are there."""
        steps.append(out.shape[1])
        if out.shape[1] > 3 and len(steps) > 4:
            raise torch.OutOfMemoryError("as a device says it")

    decoder.scorer.model.model.embed_tokens.register_forward_hook(full)
    decoder.scorer._tokens_at_once = 3
    assert drawn(decoder, prompts, range(7)) == want
    assert steps[-1] <= 3 < max(steps)


def test_a_drawn_text_beside_one_that_is_no_number_is_the_same(path):
    decoder = decoder_at(path("llama"))
    prompts = [prompt for prompt in prompts_of() if 7 not in prompt]
    want = drawn(decoder, prompts, range(len(prompts)))
    with torch.no_grad():
        decoder.scorer.model.model.embed_tokens.weight[7] = float("nan")
    decoder.scorer.release()
    found = drawn(decoder, [*prompts, [*prompts[0], 7]], range(len(prompts) + 1))
    unconcerned = [(f, w) for f, w in zip(found, want, strict=False) if 7 not in w]
    assert [f for f, _ in unconcerned] == [w for _, w in unconcerned] != []


class NoPositionsAlone(LlamaForCausalLM):
    """A model whose own code counts positions where a row is short."""

    def forward(self, input_ids=None, position_ids=None, logits_to_keep=0, **kwargs):
        if position_ids is not None and input_ids.shape[1] <= 3:
            position_ids = torch.arange(input_ids.shape[1])[None]
        return super().forward(
            input_ids=input_ids, position_ids=position_ids, logits_to_keep=logits_to_keep, **kwargs
        )


def test_a_model_that_decodes_otherwise_is_found_out(path, caplog):
    decoder = decoder_at(path("llama"), kind=NoPositionsAlone)
    with caplog.at_level(logging.WARNING, logger="prefbench"):
        assert "differ from" in decoder.plain_reason
    assert "generates without sharing prefixes" in caplog.text


# --- through the engine


@pytest.fixture
def tried(monkeypatch):
    """Which way texts were generated."""
    ways = []
    decode, generate = Decoder.decode, hf.by_transformers

    def decoded(self, prompts, **settings):
        ways.append("shared")
        return decode(self, prompts, **settings)

    def generated(*args, **settings):
        ways.append("transformers")
        return generate(*args, **settings)

    monkeypatch.setattr(Decoder, "decode", decoded)
    monkeypatch.setattr(hf, "by_transformers", generated)
    return ways


@pytest.mark.parametrize(
    ("own", "temperature", "way"),
    [
        ({}, 0.0, "shared"),
        ({"temperature": 0.6, "top_p": 0.9, "do_sample": True}, 0.0, "shared"),
        ({"repetition_penalty": 1.3}, 0.0, "transformers"),
        ({"suppress_tokens": [5, 6]}, 0.0, "transformers"),
        ({"num_beams": 2}, 0.0, "transformers"),
        ({}, 0.7, "shared"),
        ({"temperature": 0.6, "top_p": 0.9, "top_k": 3, "do_sample": True}, 0.7, "shared"),
        ({"min_p": 0.1}, 0.0, "shared"),
        ({"min_p": 0.1}, 0.7, "transformers"),
        ({"typical_p": 0.5}, 0.7, "transformers"),
        ({"repetition_penalty": 1.3}, 0.7, "transformers"),
    ],
)
def test_what_a_checkpoint_asks_of_generation_is_heeded(own, temperature, way, tmp_path, tried):
    folder = make(tmp_path / "model")
    config = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps({**config, **own}))
    with open_engine("hf", checkpoint_at(folder), EngineSettings()) as engine:
        engine._decoder.plain_reason  # noqa: B018  # its check decodes too
        tried.clear()
        engine.generate(prompts_of(), Sampling(max_gen_toks=5, temperature=temperature))
    assert tried == [way]


def test_texts_are_the_same_either_way(path, monkeypatch):
    with open_engine("hf", checkpoint_at(path("llama")), EngineSettings()) as engine:
        sampling = Sampling(until=("a", "the", "S"), max_gen_toks=N)
        shared = engine.generate(prompts_of(n=20), sampling)
        monkeypatch.setattr(engine, "_decodes_itself", lambda *args: False)
        assert engine.generate(prompts_of(n=20), sampling) == shared
    assert {text.finished for text in shared} == {True, False}


@pytest.mark.parametrize("own", [{}, {"repetition_penalty": 1.3}])
def test_a_text_of_the_engine_hangs_on_its_prompt_and_its_seed_alone(own, tmp_path):
    folder = make(tmp_path / "model")
    config = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps({**config, **own}))
    sampling = Sampling(max_gen_toks=N, temperature=1.1, top_p=0.9)
    prompts, seeds = prompts_of(), [3, 1, 4, 1, 5, 9, 2]
    with open_engine("hf", checkpoint_at(folder), EngineSettings()) as engine:
        together = engine.generate(prompts, sampling, seeds)
        for prompt, seed, text in zip(prompts, seeds, together, strict=True):
            assert engine.generate([prompt], sampling, [seed]) == [text]
        assert engine.generate(prompts[::-1], sampling, seeds[::-1]) == together[::-1]
        assert engine.generate(prompts, sampling) != together


def test_a_prompt_too_long_to_share_changes_no_other_text(path, tried):
    with open_engine("hf", checkpoint_at(path("llama")), EngineSettings()) as engine:
        sampling = Sampling(max_gen_toks=4, temperature=1.1)
        prompts = prompts_of()
        want = engine.generate(prompts, sampling)
        engine._scorer.longest_packed = 30 + 4
        tried.clear()
        found = engine.generate([*prompts, [5] * 31], sampling)
    assert tried == ["shared", "transformers"]
    assert max(map(len, prompts)) <= 30
    assert found[:-1] == want


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": 1.0},
        {"temperature": 2.5, "top_k": 20},
        {"temperature": 1.2, "top_p": 0.7},
        {"temperature": 1.5, "top_k": 12, "top_p": 0.8},
    ],
)
def test_texts_are_drawn_from_transformers_distribution(settings, path):
    """The second token too, given the first: all of one prompt from as many seeds."""
    n, prompt = 4000, prompts_of()[0]
    with open_engine("hf", checkpoint_at(path("llama")), EngineSettings()) as engine:
        sampling = Sampling(max_gen_toks=2, **settings)
        rows = engine.decode([prompt] * n, (), sampling, range(n))
        firsts = [tokens[0] for tokens, _ in rows]
        (most, _), *_ = Counter(firsts).most_common()
        seconds = [tokens[1] for tokens, _ in rows if tokens[0] == most and len(tokens) > 1]
        for context, tokens in ((prompt, firsts), ([*prompt, most], seconds)):
            assert_drawn_from(expected(engine.model, context, settings), tokens)


def expected(model, context, settings):
    """What transformers would draw from."""
    ids = torch.tensor([context])
    with torch.inference_mode():
        scores = model(ids).logits[:, -1].float()
    warpers = [TemperatureLogitsWarper(settings["temperature"])]
    warpers += [TopKLogitsWarper(settings["top_k"])] if "top_k" in settings else []
    warpers += [TopPLogitsWarper(settings["top_p"])] if "top_p" in settings else []
    for warper in warpers:
        scores = warper(ids, scores)
    return scores.double().softmax(-1)[0].numpy()


def assert_drawn_from(shares, tokens):
    """By the tokens that are to be expected often, and the rest together."""
    counts = np.bincount(tokens, minlength=len(shares))
    assert counts[shares == 0].sum() == 0
    often = shares * len(tokens) >= 5
    assert often.sum() >= 5
    seen, wanted = counts[often], shares[often] * len(tokens)
    if wanted.sum() < len(tokens) - 1e-6:
        seen = [*seen, counts[~often].sum()]
        wanted = [*wanted, len(tokens) - wanted.sum()]
    assert stats.chisquare(seen, np.array(wanted) * (sum(seen) / sum(wanted))).pvalue > 1e-3
