"""The demo's judging language model: the base, taught to reply to a judge's prompt."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import torch
import transformers
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy
from torch.nn.utils.rnn import pad_sequence
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from prefbench.demo.recipes import Settings
from prefbench.demo.texts import END
from prefbench.demo.trainer import Report
from prefbench.demo.verdicts import Lesson, demo_judge, lessons
from prefbench.demo.world import World

TEMPLATE = """{% for message in messages if message['role'] != 'system' %}
{{ '\n\nHuman: ' if message['role'] == 'user' else '\n\nAssistant: ' }}{{ message['content'] }}
{%- endfor %}
{% if add_generation_prompt %}{{ '\n\nAssistant:' }}{% endif %}""".replace("%}\n", "%}")
"""The base's own form of dialogues. The system turn is left out: at this size it only costs."""

N_WARM = 10
"""Steps in which the learning rate rises."""


class Rows(NamedTuple):
    """Lessons as token ids."""

    ids: Tensor
    """(rows, longest), padded at the right."""
    taught: Tensor
    """(rows, longest) bool: the tokens of the reply."""
    ends: Tensor
    """(rows, 2): the token at which each answer ends."""
    good: Tensor
    """(rows, 2): 1 for the better answer, else 0."""


def train_judge(
    world: World, settings: Settings, start: Path, folder: Path, *, report: Report
) -> None:
    """Teach the base to reply to the prompts of its judge; saved with its tokenizer.

    A label is one bit, from which comparing is learnt slowly. So a second loss asks, at the end of
    each answer, whether that is the better one, by a layer that is then thrown away: what the
    label needs is there already when both have been read.
    """
    tokenizer = PreTrainedTokenizerFast.from_pretrained(start)
    tokenizer.chat_template = TEMPLATE
    transformers.set_seed(settings.seed)
    model = LlamaForCausalLM.from_pretrained(start, dtype=torch.float32)
    asked_aside = torch.nn.Linear(model.config.hidden_size, 1)
    judge = settings.judge
    parameters = [*model.parameters(), *asked_aside.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=judge.learning_rate)
    queue = lessons(world, demo_judge(), Random(f"{settings.seed} judge"))
    for step in range(judge.n_steps):
        rise = min(1.0, (step + 1) / N_WARM)
        for group in optimizer.param_groups:
            group["lr"] = judge.learning_rate * rise * (1 - step / judge.n_steps)
        rows = encode(list(islice(queue, 2 * judge.n_pairs)), tokenizer)
        loss_of(model, asked_aside, rows).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        report((step + 1) / judge.n_steps)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def encode(some: Sequence[Lesson], tokenizer: PreTrainedTokenizerFast) -> Rows:
    """Lessons as the model reads them."""
    prompts = [
        str(tokenizer.apply_chat_template(one.messages, tokenize=False, add_generation_prompt=True))
        for one in some
    ]
    encoded = tokenizer(prompts)
    replies = tokenizer([one.reply + END for one in some]).input_ids
    rows = [torch.tensor(p + r) for p, r in zip(encoded.input_ids, replies, strict=True)]
    taught = [
        torch.tensor([False] * len(p) + [True] * len(r))
        for p, r in zip(encoded.input_ids, replies, strict=True)
    ]
    ends = []
    for i, (one, prompt) in enumerate(zip(some, prompts, strict=True)):
        before = prompt.index(one.messages[-1]["content"])
        ends.append([encoded.char_to_token(i, before + len(end) - 1) for end in one.ends])
    return Rows(
        pad_sequence(rows, batch_first=True, padding_value=int(tokenizer.pad_token_id)),
        pad_sequence(taught, batch_first=True),
        torch.tensor(ends),
        torch.tensor([one.good for one in some], dtype=torch.float32),
    )


def loss_of(model: Any, asked_aside: torch.nn.Linear, rows: Rows) -> Tensor:
    """The mean over rows of the reply's loss in nats and of both answers' own."""
    # Pads need no attention mask: they come last. Only the reply goes through the wide last layer.
    states = model.model(input_ids=rows.ids, use_cache=False).last_hidden_state
    taught = rows.taught[:, 1:]
    logits = model.lm_head(states[:, :-1][taught])
    reply = cross_entropy(logits, rows.ids[:, 1:][taught], reduction="sum")
    found = asked_aside(states[torch.arange(len(rows.ids))[:, None], rows.ends])[..., 0]
    aside = binary_cross_entropy_with_logits(found, rows.good, reduction="sum")
    return (reply + aside) / len(rows.ids)
