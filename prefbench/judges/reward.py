"""Reward models as judges: each answer is scored alone, and the higher score wins."""

from __future__ import annotations

import gc
import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jinja2
import torch
from lm_eval.models.utils import resolve_max_length
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils import logging as transformers_logging

from prefbench.checkpoints import tokenizer_folder
from prefbench.engines.base import EngineSettings
from prefbench.engines.checks import is_out_of_memory
from prefbench.errors import JudgeError
from prefbench.judges.judge import Ask, Judge, Turn, Unheard, Verdict
from prefbench.judges.models import special_words
from prefbench.judges.prompts import shown
from prefbench.judges.recipe import JudgeRecipe
from prefbench.records import Checkpoint

FLOATS = ("float32", "bfloat16", "float16", "float64")
DEFAULT_MAX_LENGTH = 2048
NAMES = {"system": "System", "user": "Human", "assistant": "Assistant"}
"""Who speaks, in the plain form."""

Key = tuple[tuple[Turn, ...], str]
"""A conversation and an answer."""


class Scored(NamedTuple):
    """What one answer got: its score, or why it has none."""

    score: float | None
    reason: str | None
    n_tokens: int
    n_cut: int
    """Tokens of the conversation that were left out on the left, so that the answer fits."""


class _Row(NamedTuple):
    ids: list[int]
    n_cut: int


class RewardJudge(Judge):
    """A sequence classifier with one output, in transformers; loaded when it is first needed.

    It reads a conversation and an answer through the tokenizer's chat template. Where there is
    none, it reads the plain form `\\n\\nHuman: …\\n\\nAssistant: …`, as that of HH-RLHF, without
    space around the turns. Words that the tokenizer takes as the end of a turn or the like are
    broken up in both.

    The preference is 1 where the first answer has the higher score, 0 where it has the lower one
    and a half where the scores are equal: a win rate counts wins. With `verdict: {by: score}` it is
    the probability that Bradley and Terry's model gives, σ(r_first − r_second). A verdict's facts
    hold the scores and that probability either way.
    """

    symmetric = True

    def __init__(
        self, recipe: JudgeRecipe, checkpoint: Checkpoint, settings: EngineSettings | None = None
    ) -> None:
        """Reads the configuration; loads no weights.

        Args:
            recipe: of kind reward.
            checkpoint: as `find_model` gives it.
            settings: of which dtype, device, max_length, trust_remote_code and allow_pickle count;
                the dtype `auto`, also without settings, is float32 on a CPU and the weights' own
                on a GPU.

        Raises:
            JudgeError: it is no reward model.
        """
        settings = settings or EngineSettings(dtype="auto")
        self.recipe = recipe
        self.checkpoint = checkpoint
        self._settings = settings
        self._device = _device(settings.device)
        self._dtype = _dtype(settings.dtype, self._device, checkpoint)
        self._scored: dict[Key, Scored] = {}
        self._model: Any = None
        self._config = self._read_config()
        facts = [recipe.key, checkpoint.fingerprint, self._dtype, settings.max_length]
        self.key = hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    def decide(self, asks: Sequence[Ask]) -> Iterator[tuple[int, Verdict | Unheard]]:
        wanted: dict[Key, list[int]] = {}
        n_lacking: Counter[int] = Counter()
        for index, ask in enumerate(asks):
            for key in dict.fromkeys(_keys(ask)):
                if key not in self._scored:
                    wanted.setdefault(key, []).append(index)
                    n_lacking[index] += 1
            if not n_lacking[index]:
                yield index, self._verdict(ask)
        for key in self._score(list(wanted)):
            for index in wanted[key]:
                n_lacking[index] -= 1
                if not n_lacking[index]:
                    yield index, self._verdict(asks[index])

    def close(self) -> None:
        if self._model is not None:
            self._model = None
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def _verdict(self, ask: Ask) -> Verdict:
        first, second = (self._scored[key] for key in _keys(ask))
        facts: dict[str, Any] = {
            "score_first": first.score,
            "score_second": second.score,
            "n_cut_first": first.n_cut,
            "n_cut_second": second.n_cut,
        }
        n_in = first.n_tokens + second.n_tokens
        if first.score is None or second.score is None:
            name, reason = ("first", first.reason) if first.reason else ("second", second.reason)
            return Verdict(None, f"the {name} answer: {reason}", n_in=n_in, facts=facts)
        facts["probability"] = _sigmoid(first.score - second.score)
        preference = (1 + (first.score > second.score) - (first.score < second.score)) / 2
        if self.recipe.verdict is not None:
            preference = facts["probability"]
        return Verdict(preference, n_in=n_in, facts=facts)

    def _score(self, keys: Sequence[Key]) -> Iterator[Key]:
        """Scores answers one by one; yields each that has been scored.

        Together they would be faster on a GPU, but each one's score would hang on the others, by
        rounding: other numbers after a kill, and in narrow formats other wins.
        """
        if not keys:
            return
        if self._model is None:
            self._load()
        for key in keys:
            row = self._row(key)
            self._scored[key] = row if isinstance(row, Scored) else self._scored_row(row)
            yield key

    def _scored_row(self, row: _Row) -> Scored:
        try:
            score = self._run(row.ids)
        except (RuntimeError, MemoryError) as error:
            why = f"cannot score: {error}"
            if is_out_of_memory(error):
                why = (
                    f"out of memory with an answer of {len(row.ids)} tokens: use a smaller reward "
                    "model, or a device with more memory"
                )
            raise JudgeError(f"{self._where}: {why}") from error
        if math.isfinite(score):
            return Scored(score, None, len(row.ids), row.n_cut)
        return Scored(None, f"its score is {score}, no number", len(row.ids), row.n_cut)

    @torch.inference_mode()
    def _run(self, ids: Sequence[int]) -> float:
        row = torch.tensor([ids], device=self._device)
        logits = self._model(input_ids=row, attention_mask=torch.ones_like(row)).logits
        return float(logits[0, 0])

    def _row(self, key: Key) -> _Row | Scored:
        """The tokens that the model sees, or why it cannot."""
        conversation, answer = key
        turns = [Turn(t.role, shown(t.content, self._special)) for t in conversation]
        try:
            before, whole = self._texts(turns, shown(answer, self._special))
        except (jinja2.TemplateError, ValueError, TypeError) as error:
            reason = f"its chat template does not take this conversation: {error}"
            return Scored(None, reason, 0, 0)
        templated = bool(self._tokenizer.chat_template)
        start, ids = (
            list(self._tokenizer.encode(text, add_special_tokens=not templated))
            for text in (before, whole)
        )
        n_before = _n_common(start, ids)
        tokenizer = self._tokenizer
        head = int(n_before > 0 and ids[0] in (tokenizer.bos_token_id, tokenizer.cls_token_id))
        n_cut = max(0, len(ids) - self._max_length)
        if n_cut > n_before - head:
            return Scored(
                None,
                f"it has {len(ids) - n_before} tokens, the context length of the reward model is "
                f"{self._max_length}",
                len(ids),
                0,
            )
        return _Row(ids[:head] + ids[head + n_cut :], n_cut)

    def _texts(self, conversation: Sequence[Turn], answer: str) -> tuple[str, str]:
        """What comes before an answer, and all together."""
        if not self._tokenizer.chat_template:
            return plain_form(conversation), plain_form(conversation, answer)
        messages = [{"role": turn.role, "content": turn.content} for turn in conversation]
        reply = {"role": "assistant", "content": answer}
        render = self._tokenizer.apply_chat_template
        whole = str(render([*messages, reply], tokenize=False))
        before = str(render(messages, tokenize=False, add_generation_prompt=True))
        # A template may write a prompt and a whole conversation in different ways.
        return whole[: _n_common(before, whole)], whole

    @property
    def _where(self) -> str:
        return f"{self.recipe.judge}: {self.checkpoint.path}"

    def _read_config(self) -> Any:
        if self.recipe.verdict is not None and self.recipe.verdict.by != "score":
            raise JudgeError(
                f"{self.recipe.judge}: verdict: a reward model says nothing that could be read by "
                f"{self.recipe.verdict.by}: leave verdict out, or say `verdict: {{by: score}}`"
            )
        if self.checkpoint.adapter:
            raise JudgeError(f"{self._where}: is an adapter: merge it into its base first")
        try:
            config = AutoConfig.from_pretrained(
                str(self.checkpoint.path), trust_remote_code=self._settings.trust_remote_code
            )
        except (OSError, ValueError, KeyError, ImportError) as error:
            raise JudgeError(f"{self._where}: cannot be loaded: {error}") from error
        if config.num_labels != 1:
            raise JudgeError(
                f"{self._where}: {self.checkpoint.architecture or 'it'} has {config.num_labels} "
                "outputs where a reward model has one: choose a sequence classifier with "
                "num_labels 1"
            )
        return config

    def _load(self) -> None:
        transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        remote = {"trust_remote_code": self._settings.trust_remote_code}
        path = str(self.checkpoint.path)
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(
                str(tokenizer_folder(self.checkpoint)), **remote
            )
            found: Any = AutoModelForSequenceClassification.from_pretrained(
                path,
                output_loading_info=True,
                dtype=getattr(torch, self._dtype),
                use_safetensors=not self._settings.allow_pickle or None,
                **remote,
            )
            model, loaded = found
            if lost := sorted(loaded["missing_keys"]):  # it would make them up
                raise OSError(f"its weights lack {len(lost)} tensors, of which {lost[0]}")
        except (OSError, ValueError, RuntimeError, ImportError, KeyError, AttributeError) as error:
            raise JudgeError(f"{self._where}: cannot be loaded: {error}") from error
        self._special = special_words(self._tokenizer)
        model.config.use_cache = False
        self._model = model.to(self._device).eval()

    @property
    def _max_length(self) -> int:
        """What the weights and the tokenizer both allow, unless the user says otherwise."""
        if self._settings.max_length:
            return self._settings.max_length
        weights = resolve_max_length(self._config, self._tokenizer, default=DEFAULT_MAX_LENGTH)
        return int(min(weights, self._tokenizer.model_max_length))


def plain_form(conversation: Sequence[Turn], answer: str | None = None) -> str:
    """A conversation as HH-RLHF writes it, with its answer or up to where that begins."""
    turns = "".join(
        f"\n\n{NAMES.get(turn.role, turn.role.capitalize())}: {turn.content}"
        for turn in conversation
    )
    end = f"\n\n{NAMES['assistant']}:"
    return turns + end if answer is None else f"{turns}{end} {answer}"


def _keys(ask: Ask) -> tuple[Key, Key]:
    return (ask.conversation, ask.first), (ask.conversation, ask.second)


def _n_common(one: Sequence[object], other: Sequence[object]) -> int:
    """How many items two sequences have in common at their beginnings."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((n for n, (a, b) in pairs if a != b), min(len(one), len(other)))


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else 1 - 1 / (1 + math.exp(max(x, -700.0)))


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def _dtype(asked: str, device: torch.device, checkpoint: Checkpoint) -> str:
    if asked != "auto":
        return asked
    stored = checkpoint.dtype if checkpoint.dtype in FLOATS else None
    return "float32" if device.type == "cpu" or stored is None else stored
