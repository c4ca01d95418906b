"""What a checkpoint of the demo answers itself, in the place of the rejected response."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from prefbench.demo.texts import END, Pair
from prefbench.engines.base import Sampling
from prefbench.engines.decoding import Decoder
from prefbench.engines.scoring import Scorer

N_TOKENS = 96
"""Most tokens of a sample; the longest response of the world has half as many."""

AT_ONCE = 480
"""Samples that are written side by side."""


def with_own_samples(
    pairs: Sequence[Pair], model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, rng: Random
) -> list[Pair]:
    """The pairs with the model's own sample as the rejected response to the chosen one's prompt.

    Samples are drawn at temperature 1 from all tokens, each by a seed of its own. One that says
    the same as the chosen response stays, and trains nothing: the losses of both cancel. So does
    an empty one, which is a response like any other. One that was cut is rejected without an end.

    Source: Chen et al. 2024, algorithm 1, arxiv.org/abs/2401.01335.
    """
    end = int(tokenizer.eos_token_id)
    decoder = Decoder(Scorer(model, model.config.max_position_embeddings, model.device))
    prompts = tokenizer([pair.prompt_chosen for pair in pairs]).input_ids
    seeds = [rng.getrandbits(63) for _ in pairs]
    samples = []
    for at in range(0, len(pairs), AT_ONCE):
        samples += decoder.decode(
            prompts[at : at + AT_ONCE],
            n_tokens=N_TOKENS,
            are_done=lambda some: [tokens[-1] == end for tokens in some],
            sampling=Sampling(temperature=1.0),
            seeds=seeds[at : at + AT_ONCE],
        )
    # As text, like all other responses, and as SPIN's own code has it: a word that was drawn in
    # unusual pieces is learnt in its usual ones.
    texts = [str(tokenizer.decode(sample.tokens)).removesuffix(END) for sample in samples]
    return [
        Pair(pair.prompt_chosen, pair.chosen, pair.prompt_chosen, text, sample.tokens[-1] != end)
        for pair, text, sample in zip(pairs, texts, samples, strict=True)
    ]
