"""Greedy texts behind a shared prefix are those of transformers' own greedy search."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaForCausalLM

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
        ({}, 0.7, "transformers"),
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
