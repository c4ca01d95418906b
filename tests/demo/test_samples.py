from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from prefbench.demo.samples import N_TOKENS, with_own_samples
from prefbench.demo.texts import END, Pair
from prefbench.demo.trainer import pad, pair_logps
from prefbench.objectives import dpo

PAIRS = [
    Pair("Question: 1 + 1?\nAnswer:", " 2", "Question: 1 + 1?\nAnswer:", " 3"),
    Pair("Ada: A long story, then.\n", "Bruno: Oh no.", "Ada: Hi.\n", "Bruno: Go on, please."),
    Pair("\n\nHuman: Hello!\n\nAssistant:", " Hi.", "\n\nHuman: Hello!\n\nAssistant:", " No."),
]

Loaded = tuple[LlamaForCausalLM, PreTrainedTokenizerFast]


@pytest.fixture
def loaded(small_zoo: Path) -> Loaded:
    run = small_zoo / "checkpoints" / "sft"
    model = LlamaForCausalLM.from_pretrained(run, dtype=torch.float32)
    return model, PreTrainedTokenizerFast.from_pretrained(run)


def only(model: LlamaForCausalLM, token: int) -> None:
    """Let the model say one token and nothing else, whatever is asked."""
    with torch.no_grad():
        model.model.norm.weight.zero_()
    bias = torch.full((model.config.vocab_size,), -40.0)
    bias[token] = 40.0
    model.lm_head.register_forward_hook(lambda module, given, logits: logits + bias)


def test_samples_answer_the_chosen_ones_prompt(loaded: Loaded) -> None:
    model, tokenizer = loaded
    samples = with_own_samples(PAIRS * 20, model, tokenizer, Random(0))
    for pair, sample in zip(PAIRS * 20, samples, strict=True):
        assert sample[:2] == pair[:2]
        assert sample.prompt_rejected == pair.prompt_chosen
        assert END not in sample.rejected
    assert len({sample.rejected for sample in samples}) == len(samples)
    cut = [sample.cut for sample in samples]
    assert any(cut)  # it has learnt next to nothing
    assert with_own_samples(PAIRS * 20, model, tokenizer, Random(0)) == samples
    others = with_own_samples(PAIRS * 20, model, tokenizer, Random(1))
    assert all(a.rejected != b.rejected for a, b in zip(samples, others, strict=True))
    # What a text is drawn by is its own: those after it change nothing.
    assert with_own_samples(PAIRS, model, tokenizer, Random(0)) == samples[: len(PAIRS)]


def test_a_sample_that_was_cut_has_no_end(loaded: Loaded) -> None:
    model, tokenizer = loaded
    (word,) = tokenizer(" the").input_ids
    only(model, word)
    samples = with_own_samples(PAIRS, model, tokenizer, Random(0))
    assert {(sample.rejected, sample.cut) for sample in samples} == {(" the" * N_TOKENS, True)}
    batch = pad(samples, tokenizer)
    assert batch["n_response"][len(PAIRS) :].tolist() == [N_TOKENS] * len(PAIRS)


def test_an_empty_sample_is_an_end_alone(loaded: Loaded) -> None:
    model, tokenizer = loaded
    only(model, int(tokenizer.eos_token_id))
    samples = with_own_samples(PAIRS, model, tokenizer, Random(0))
    assert {(sample.rejected, sample.cut) for sample in samples} == {("", False)}
    assert pad(samples, tokenizer)["n_response"][len(PAIRS) :].tolist() == [1] * len(PAIRS)


def test_a_sample_like_the_chosen_response_trains_nothing(loaded: Loaded) -> None:
    model, tokenizer = loaded
    equal = [pair._replace(prompt_rejected=pair[0], rejected=pair.chosen) for pair in PAIRS]
    batch = pad(equal, tokenizer)
    with torch.no_grad():
        reference = pair_logps(model, batch)

    def moves(pairs: list[Pair]) -> float:
        model.zero_grad()
        dpo(pair_logps(model, pad(pairs, tokenizer)), reference).mean().backward()
        return max(float(p.grad.abs().max()) for p in model.parameters() if p.grad is not None)

    assert moves(equal) < 1e-6 < 1e-3 < moves(PAIRS)
