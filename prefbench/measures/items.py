"""How a document of a task becomes an item: the prompt and the texts as they are sent."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError

from prefbench.harness import HarnessTask

ChatTemplate = Callable[..., str]
"""Turns as text, as `Engine.apply_chat_template` writes them."""


@dataclass(frozen=True)
class Item:
    """One document of a task, as it is sent to a checkpoint.

    `continuations` are the choices, the texts of a pair (chosen ones first) or the one rolling
    text; empty for generation. `reason` says why the item cannot be asked.
    """

    item: int
    prompt: str
    continuations: tuple[str, ...]
    fields: Mapping[str, Any]
    cluster: str
    reason: str | None = None
    prompt_rejected: str | None = None
    """The prompt of a pair's rejected texts, where it is another."""


def plain_item(
    harness: HarnessTask, document: Mapping[str, Any], index: int, template: ChatTemplate | None
) -> Item:
    """The item as lm-eval words it."""
    chat = template is not None
    context = harness.fewshot_context(
        document,
        num_fewshot=int(harness.config.num_fewshot or 0),
        apply_chat_template=chat,
        fewshot_as_multiturn=chat,
        chat_template=template,
        gen_prefix=harness.doc_to_prefix(document),
    )
    instances = harness.construct_requests(
        doc=document,
        ctx=context,
        apply_chat_template=chat,
        metadata=(harness.config.task, index, 1),
    )
    several = instances if isinstance(instances, list) else [instances]
    kind = several[0].request_type
    if kind == "generate_until":
        continuations: tuple[str, ...] = ()
    elif kind == "loglikelihood_rolling":
        context, continuations = "", (several[0].args[0],)
    else:
        continuations = tuple(instance.args[1] for instance in several)
    return Item(index, context, continuations, document, str(index))


def pair_item(document: Mapping[str, Any], index: int, template: ChatTemplate | None) -> Item:
    """The item of a preference pair: the prompt as the conversation it is."""
    texts = [*document["chosen"], *document["rejected"]]
    prompt, other = document["prompt"], document.get("prompt_rejected")
    reason = document["missing"] or None
    if template and not reason:
        texts = [text.strip() for text in texts]
        try:
            prompt = template([dict(turn) for turn in document["messages"]])
            if other is not None:
                other = template([dict(turn) for turn in document["messages_rejected"]])
        except TemplateError as error:  # some know no system turn
            reason = f"the chat template refuses the conversation: {error}"
    cluster = str(document["cluster"])
    return Item(index, prompt, tuple(texts), document, cluster, reason, other)


def prompt_item(document: Mapping[str, Any], index: int, template: ChatTemplate | None) -> Item:
    """The item of a prompt that is to be answered and judged: the conversation it is."""
    whole = pair_item({**document, "chosen": (), "rejected": ()}, index, template)
    return dataclasses.replace(whole, fields=document)
