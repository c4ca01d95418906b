"""Small models with random or overfitted weights, and their tokenizer, made on the spot."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    AfmoeConfig,
    AutoModelForCausalLM,
    BloomConfig,
    Gemma2Config,
    GemmaConfig,
    GPT2Config,
    GPTNeoXConfig,
    GptOssConfig,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    MixtralConfig,
    OPTConfig,
    Phi3Config,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
    RobertaConfig,
)

CONTEXT = 48
END, START, TURN, TURN_END = "<end>", "<start>", "<turn>", "</turn>"
WORDS = ["the", " cat", " sat", " on", " mat", "Question", ":", "St", "op", "##"]
CHATML = (
    "{% for m in messages %}<turn>{{ m['role'] }}\n{{ m['content'] }}</turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<turn>assistant\n{% endif %}"
)


def tokenizer(*, start: bool = False, chat: str | None = None) -> PreTrainedTokenizerFast:
    """Bytes, and a few merged words, as a trained byte-level one would have them."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: i for i, letter in enumerate(alphabet)}
    merges = []
    for word in WORDS:
        pieces = list(word.replace(" ", "Ġ"))
        while len(pieces) > 1:
            pair = (pieces[0], pieces[1])
            if pair not in merges:
                merges.append(pair)
                vocabulary.setdefault("".join(pair), len(vocabulary))
            pieces = ["".join(pair), *pieces[2:]]
    inner = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens([END, START, TURN, TURN_END])
    if start:
        inner.post_processor = processors.TemplateProcessing(
            single=f"{START} $A", special_tokens=[(START, inner.token_to_id(START))]
        )
    made = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        eos_token=END,
        pad_token=TURN,
        **({"bos_token": START} if start else {}),
    )
    made.chat_template = chat
    return made


SIZE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
CONFIGS = {
    "llama": lambda n: LlamaConfig(
        vocab_size=n, intermediate_size=64, max_position_embeddings=CONTEXT, **SIZE
    ),
    "gpt2": lambda n: GPT2Config(vocab_size=n, n_embd=32, n_layer=2, n_head=2, n_positions=CONTEXT),
    "gpt_neox": lambda n: GPTNeoXConfig(
        vocab_size=n, intermediate_size=64, max_position_embeddings=CONTEXT, **SIZE
    ),
    "qwen2_tied": lambda n: Qwen2Config(
        vocab_size=n,
        intermediate_size=64,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        num_key_value_heads=1,
        **SIZE,
    ),
}

WINDOW = 12
ROPE = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}


def _like_llama(kind, **settings):
    return lambda n: kind(
        vocab_size=n,
        intermediate_size=64,
        max_position_embeddings=CONTEXT,
        num_key_value_heads=1,
        **SIZE,
        **settings,
    )


OTHER_CONFIGS = {
    "mistral_window": _like_llama(MistralConfig, sliding_window=WINDOW, head_dim=16),
    "qwen2_window": _like_llama(
        Qwen2Config, use_sliding_window=True, sliding_window=WINDOW, max_window_layers=1
    ),
    "qwen3": _like_llama(Qwen3Config, head_dim=16),
    "gemma2": _like_llama(Gemma2Config, sliding_window=WINDOW, head_dim=16),
    "phi3_window": _like_llama(Phi3Config, sliding_window=WINDOW),
    "mixtral": _like_llama(MixtralConfig, num_local_experts=4),
    "opt": lambda n: OPTConfig(
        vocab_size=n, ffn_dim=64, max_position_embeddings=CONTEXT, word_embed_proj_dim=32, **SIZE
    ),
    "bloom": lambda n: BloomConfig(vocab_size=n, hidden_size=32, n_layer=2, n_head=2),
    "mamba": lambda n: MambaConfig(vocab_size=n, hidden_size=32, num_hidden_layers=2),
    "gpt_oss": _like_llama(
        GptOssConfig, sliding_window=WINDOW, head_dim=16, num_local_experts=4, num_experts_per_tok=2
    ),
    "llama_dynamic": _like_llama(LlamaConfig, rope_parameters=ROPE),
    "afmoe": _like_llama(
        AfmoeConfig,
        head_dim=16,
        sliding_window=WINDOW,
        num_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=16,
        num_dense_layers=1,
    ),
    "gemma_both_ways": _like_llama(GemmaConfig, head_dim=16, use_bidirectional_attention=True),
    "roberta": lambda n: RobertaConfig(
        vocab_size=n,
        intermediate_size=64,
        max_position_embeddings=CONTEXT + 300,
        is_decoder=True,
        **SIZE,
    ),
}
"""More than most tests need: windows, capped scores, experts, and what cannot be packed."""


def make(
    folder: Path,
    architecture: str = "llama",
    *,
    shards: str = "1GB",
    seed: int = 7,
    wide: bool = False,
    **kind,
) -> Path:
    """A checkpoint with random weights, large enough to prefer some tokens clearly.

    A `wide` one has heads of size 32, the least that vLLM knows on CPUs.
    """
    made = tokenizer(**kind)
    torch.manual_seed(seed)
    config = (CONFIGS | OTHER_CONFIGS)[architecture](len(made))
    if wide:
        config.hidden_size *= 2
        if getattr(config, "head_dim", None):
            config.head_dim = 32
    config.initializer_range = 0.3
    config.bos_token_id = made.bos_token_id
    config.eos_token_id = made.eos_token_id
    config.pad_token_id = made.pad_token_id
    model = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(folder, max_shard_size=shards)
    made.save_pretrained(folder)
    return folder


def script(path: Path, *replies: str, end: str = END) -> list[str]:
    """Makes a checkpoint say each reply after a prompt of its own letter; returns the prompts."""
    made = tokenizer()
    letters = [chr(ord("A") + i) for i in range(len(replies))]
    rows = [
        made.encode(letter) + made.encode(reply, add_special_tokens=False)
        for letter, reply in zip(letters, replies, strict=True)
    ]
    if end:
        rows = [[*row, made.convert_tokens_to_ids(end)] for row in rows]
    return teach(path, rows, letters)


def teach(
    path: Path, rows: list[list[int]], letters: list[str], *, chat: str | None = None, **settings
) -> list[str]:
    """Overfits a small model on a few rows of ids; further settings are of its configuration."""
    made = tokenizer(chat=chat)
    torch.manual_seed(3)
    config = CONFIGS["llama"](len(made))
    config.eos_token_id, config.pad_token_id = made.eos_token_id, made.pad_token_id
    for name, value in settings.items():
        setattr(config, name, value)
    model = AutoModelForCausalLM.from_config(config)
    width = max(map(len, rows))
    ids = torch.tensor([row + [made.pad_token_id] * (width - len(row)) for row in rows])
    labels = torch.tensor([row + [-100] * (width - len(row)) for row in rows])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        model(input_ids=ids, labels=labels).loss.backward()
        optimizer.step()
    model.save_pretrained(path)
    made.save_pretrained(path)
    return letters
