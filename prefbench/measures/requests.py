"""What a task asks: items with their prompts as sent, and the token ids of one tokenizer."""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeAlias

from prefbench.engines.base import Engine, Sampling, TokenRequest, sampling_of
from prefbench.errors import TaskError
from prefbench.harness import SHOT_SEED, HarnessTask
from prefbench.measures.items import ChatTemplate, Item, pair_item, plain_item, prompt_item
from prefbench.tasks import OF_TEXTS, Task

CHUNK = 64
"""Items that are tokenised at once: enough texts to keep every core busy for a while."""

Text = tuple[str, bool | None]
"""A text to be tokenised, and whether with special tokens, as `Engine.encode` takes it."""

Ids: TypeAlias = "Mapping[Text, array[int]]"


class Requests:
    """A task's items in the order of the data, and their token ids; each is built once, when asked.

    Checkpoints that share a tokenizer share them. What is missing is built with the engine of
    `built_by`, and one chunk of token ids ahead of what is asked for. Nothing else may draw
    examples from `harness` meanwhile.
    """

    def __init__(
        self, task: Task, harness: HarnessTask, n: int, *, chat: bool, end: int | None
    ) -> None:
        """Builds nothing yet.

        Args:
            task: what is asked.
            harness: lm-eval's side of it.
            n: items in all.
            chat: whether prompts go through the chat template.
            end: for a task of pairs, the id that ends a reply.
        """
        self.task = task
        self.harness = harness
        self.chat = chat
        self.sampling: Sampling | None = (
            sampling_of(harness.config.generation_kwargs) if task.kind == "generate_until" else None
        )
        self._n = n
        self._end = end
        self._documents = harness.eval_docs
        self._items: list[Item] = []
        self._tokens: dict[int, list[tuple[TokenRequest, ...]]] = {}
        self._underway: dict[int, Future[Ids]] = {}
        self._engine: Engine | None = None
        self._thread: ThreadPoolExecutor | None = None

    def __len__(self) -> int:
        return self._n

    @property
    def items(self) -> Sequence[Item]:
        """All items."""
        self._render(self._n)
        return self._items

    def item(self, index: int) -> Item:
        """One item."""
        self._render(index + 1)
        return self._items[index]

    def tokens(self, index: int) -> tuple[TokenRequest, ...]:
        """The token ids of one item.

        A request per continuation; for generation one whose continuation is empty; for rolling
        text one whose context is empty; none where the item cannot be asked.
        """
        chunk, place = divmod(index, CHUNK)
        self._begin(chunk)
        self._begin(chunk + 1)
        if chunk in self._underway:
            ids = self._underway.pop(chunk).result()
            self._tokens[chunk] = [
                self._token_requests(self.item(i), ids) for i in self._span(chunk)
            ]
        return self._tokens[chunk][place]

    def digest(self, batch: Iterable[int] | None = None) -> str:
        """Hash of the texts as sent, of some items or of all."""
        digest = hashlib.sha256()
        for item in self.items if batch is None else map(self.item, batch):
            sent: list[Any] = [item.prompt, item.continuations, item.reason]
            if self.task.recipe.measure in OF_TEXTS:  # judges are shown more than is sent
                sent.append(item.fields)
            if item.prompt_rejected is not None:
                sent.append(item.prompt_rejected)
            digest.update(json.dumps(sent, default=str).encode())
        return digest.hexdigest()

    @contextmanager
    def built_by(self, engine: Engine) -> Iterator[None]:
        """Within, what is missing is built with this engine; afterwards it is let go."""
        self._engine = engine
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="tokenizer")
        try:
            yield
        finally:
            self._thread.shutdown(cancel_futures=True)
            self._underway.clear()
            self._engine = self._thread = None

    def _render(self, stop: int) -> None:
        """Builds the items before `stop`, in order: examples are drawn from item to item."""
        if len(self._items) >= stop:
            return
        template = self._current_engine().apply_chat_template if self.chat else None
        if not self._items:
            self.harness.set_fewshot_seed(SHOT_SEED)
        try:
            for index in range(len(self._items), stop):
                document = self._documents[index]
                self._items.append(self._item(document, index, template))
        except BaseException:
            self._items.clear()  # its draws are gone, so that only all of them come out the same
            raise

    def _item(self, document: Mapping[str, Any], index: int, template: ChatTemplate | None) -> Item:
        if self.task.recipe.pairs:
            return pair_item(document, index, template)
        if self.task.recipe.measure in OF_TEXTS:
            return prompt_item(document, index, template)
        return plain_item(self.harness, document, index, template)

    def _begin(self, chunk: int) -> None:
        """Has a chunk tokenised in the background, unless it is or there is none.

        Prompts are rendered before, on this thread: a second one that runs Python would keep the
        GIL from the many short calls of the engine. The tokenizer itself leaves the GIL free. Its
        settings (transformers sets truncation and padding at each call) may not change while it
        works, so nothing else encodes meanwhile; to decode and to fill in chat templates, as
        engines do, changes none.
        """
        if chunk in self._tokens or chunk in self._underway or not self._span(chunk):
            return
        texts = [text for i in self._span(chunk) for text in self._texts(self.item(i))]
        engine = self._current_engine()
        assert self._thread is not None
        self._underway[chunk] = self._thread.submit(_encode, engine, texts)

    def _span(self, chunk: int) -> range:
        return range(chunk * CHUNK, min((chunk + 1) * CHUNK, self._n))

    def _current_engine(self) -> Engine:
        assert self._engine is not None, "requests are built inside of built_by(engine)"
        return self._engine

    def _texts(self, item: Item) -> list[Text]:
        """What is tokenised for an item; the context, if there is one, first."""
        if item.reason:
            return []
        if self.task.recipe.pairs:
            prompts = [item.prompt]
            if item.prompt_rejected is not None:
                prompts.append(item.prompt_rejected)
            replies = [(text, False) for text in item.continuations]
            return [*((prompt, None) for prompt in prompts), *replies]
        if self.task.kind == "generate_until":
            return [(item.prompt, None)]
        if self.task.kind == "loglikelihood_rolling":
            return [(item.continuations[0], None)]
        if not item.prompt:
            return [(text, False) for text in item.continuations]
        # lm-eval moves the space at the prompt's end to the choice; together they are the same.
        wholes = [item.prompt + text for text in item.continuations]
        return [(text, None) for text in (item.prompt.rstrip(), *wholes)]

    def _token_requests(self, item: Item, ids: Ids) -> tuple[TokenRequest, ...]:
        encoded = [ids[text] for text in self._texts(item)]
        if not encoded:
            return ()
        if self.task.kind == "generate_until":
            return (TokenRequest(encoded[0], ()),)
        if self.task.kind == "loglikelihood_rolling":
            return (TokenRequest((), encoded[0]),)
        if self._end is not None:
            n_prompts = 1 if item.prompt_rejected is None else 2
            contexts = [ids or self._start() for ids in encoded[:n_prompts]]
            end = array("i", [self._end])
            n_chosen = len(item.fields["chosen"])
            return tuple(
                TokenRequest(contexts[0] if i < n_chosen else contexts[-1], reply + end)
                for i, reply in enumerate(encoded[n_prompts:])
            )
        if not item.prompt:
            start = self._start()
            return tuple(
                TokenRequest(start, choice[1:] if choice[:1] == start else choice)
                for choice in encoded
            )
        # lm-eval's split: tokenised together, cut where the prompt's tokens end.
        context, *wholes = encoded
        return tuple(TokenRequest(context, whole[len(context) :]) for whole in wholes)

    def _start(self) -> array[int]:
        return array("i", [self._current_engine().prefix_token_id])


def build_requests(
    task: Task, harness: HarnessTask, engine: Engine, *, chat: bool, limit: int | None = None
) -> Requests:
    """The requests of a task for one tokenizer.

    Documents are taken from the head, in the order of the data, so that neither prompts nor
    examples depend on the limit.

    Raises:
        TaskError: the task has no documents.
    """
    n = len(harness.eval_docs)
    if n == 0:
        raise TaskError(f"{task.name}: the {task.eval_split} split has no documents")
    end = _end_of_turn(engine, chat=chat) if task.recipe.pairs else None
    return Requests(task, harness, n if limit is None else min(limit, n), chat=chat, end=end)


def _encode(engine: Engine, texts: Iterable[Text]) -> Ids:
    """The ids of every distinct text."""
    alike: dict[bool | None, list[str]] = {}
    for text, special in dict.fromkeys(texts):
        alike.setdefault(special, []).append(text)
    return {
        (text, special): ids
        for special, several in alike.items()
        for text, ids in zip(several, engine.encode(several, special), strict=True)
    }


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
