"""What a task asks: items with their prompts as sent, and the token ids of one tokenizer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from jinja2 import TemplateError

from prefbench.engines.base import Engine, Sampling, TokenRequest, sampling_of
from prefbench.errors import TaskError
from prefbench.harness import SHOT_SEED, HarnessTask
from prefbench.tasks import Task

Progress = Callable[[int, int], None]


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


@dataclass(frozen=True)
class Requests:
    """A task's items and, in the same order, their token ids; shared by checkpoints of a tokenizer.

    `tokens[i]` holds a request per continuation; for generation one request whose continuation is
    empty; for rolling text one whose context is empty.
    """

    task: Task
    harness: HarnessTask
    items: tuple[Item, ...]
    tokens: tuple[tuple[TokenRequest, ...], ...]
    sampling: Sampling | None
    chat: bool

    @cached_property
    def digest(self) -> str:
        """Hash of all texts as sent."""
        digest = hashlib.sha256()
        for item in self.items:
            digest.update(json.dumps([item.prompt, item.continuations, item.reason]).encode())
        return digest.hexdigest()


def build_requests(
    task: Task,
    harness: HarnessTask,
    engine: Engine,
    *,
    chat: bool,
    limit: int | None = None,
    progress: Progress | None = None,
) -> Requests:
    """All requests of a task for one tokenizer.

    Documents are taken from the head, in the order of the data, so that neither prompts nor
    examples depend on the limit.

    Raises:
        TaskError: the task has no documents.
    """
    harness.set_fewshot_seed(SHOT_SEED)  # building twice gives the same
    documents = harness.eval_docs
    n = len(documents) if limit is None else min(limit, len(documents))
    if n == 0:
        raise TaskError(f"{task.name}: the {task.eval_split} split has no documents")
    build = _pair_item if task.recipe.pairs else _item
    end = _end_of_turn(engine, chat=chat) if task.recipe.pairs else None
    items, tokens = [], []
    for index in range(n):
        item = build(harness, documents[index], index, engine, chat)
        items.append(item)
        tokens.append(_encode(item, task, engine, end))
        if progress:
            progress(index + 1, n)
    sampling = (
        sampling_of(harness.config.generation_kwargs) if task.kind == "generate_until" else None
    )
    return Requests(task, harness, tuple(items), tuple(tokens), sampling, chat)


def _item(
    harness: HarnessTask, document: Mapping[str, Any], index: int, engine: Engine, chat: bool
) -> Item:
    """The item as lm-eval words it."""
    context = harness.fewshot_context(
        document,
        num_fewshot=int(harness.config.num_fewshot or 0),
        apply_chat_template=chat,
        fewshot_as_multiturn=chat,
        chat_template=engine.apply_chat_template if chat else None,
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


def _pair_item(
    harness: HarnessTask, document: Mapping[str, Any], index: int, engine: Engine, chat: bool
) -> Item:
    """The item of a preference pair: the prompt as the conversation it is."""
    texts = [*document["chosen"], *document["rejected"]]
    prompt = document["prompt"]
    reason = document["missing"] or None
    if chat and not reason:
        texts = [text.strip() for text in texts]
        try:
            prompt = engine.apply_chat_template([dict(turn) for turn in document["messages"]])
        except TemplateError as error:  # some know no system turn
            reason = f"the chat template refuses the conversation: {error}"
    return Item(index, prompt, tuple(texts), document, str(document["cluster"]), reason)


def _encode(item: Item, task: Task, engine: Engine, end: int | None) -> tuple[TokenRequest, ...]:
    if item.reason:
        return ()
    if end is not None:
        context = engine.tok_encode(item.prompt) or [engine.prefix_token_id]
        return tuple(
            TokenRequest(context, [*engine.tok_encode(text, add_special_tokens=False), end])
            for text in item.continuations
        )
    if task.kind == "generate_until":
        return (TokenRequest(engine.tok_encode(item.prompt), ()),)
    if task.kind == "loglikelihood_rolling":
        return (TokenRequest((), engine.tok_encode(item.continuations[0])),)
    return _split_jointly(item, engine)


def _split_jointly(item: Item, engine: Engine) -> tuple[TokenRequest, ...]:
    """lm-eval's split: prompt and choice tokenised together, cut where the prompt's tokens end."""
    if not item.prompt:
        requests = []
        for text in item.continuations:
            ids = engine.tok_encode(text, add_special_tokens=False)
            start = [engine.prefix_token_id]
            doubled = ids[:1] == start
            requests.append(TokenRequest(start, ids[1:] if doubled else ids))
        return tuple(requests)
    prompt = item.prompt.rstrip()
    space = item.prompt[len(prompt) :]
    context = engine.tok_encode(prompt)
    return tuple(
        TokenRequest(context, engine.tok_encode(prompt + space + text)[len(context) :])
        for text in item.continuations
    )


def _end_of_turn(engine: Engine, *, chat: bool) -> int:
    """The id that ends a reply: what the chat template writes after one, else end-of-sequence."""
    if not chat:
        return int(engine.eot_token_id)
    # A turn follows the reply, lest the engine render an opening of the reply.
    reply = "\u2022reply\u2022"
    turns = [("user", "a"), ("assistant", reply), ("user", "b")]
    rendered = engine.apply_chat_template([{"role": r, "content": text} for r, text in turns])
    after = engine.tok_encode(rendered.rpartition(reply)[2].lstrip(), add_special_tokens=False)
    added = getattr(engine.tokenizer, "added_tokens_decoder", {})
    special = {i for i, token in added.items() if token.special}
    return next((i for i in after if i in special), int(engine.eot_token_id))
