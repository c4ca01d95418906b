"""Engines whose texts go through the checkpoint's own tokenizer."""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from array import array
from bisect import bisect_left
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from jinja2 import TemplateError
from lm_eval.models.utils import (
    handle_stop_sequences,
    has_bos_prefix,
    postprocess_generated_text,
    resolve_max_length,
)
from transformers import AutoConfig, AutoTokenizer, GenerationConfig

from prefbench.checkpoints import tokenizer_folder
from prefbench.engines.base import Engine, EngineSettings, Generation, Sampling
from prefbench.engines.templates import try_template
from prefbench.errors import EngineError
from prefbench.records import Checkpoint

DEFAULT_MAX_LENGTH = 2048


class TextEngine(Engine):
    """An engine that is asked in the token ids of its checkpoint, and answers in them."""

    def __init__(self, checkpoint: Checkpoint, settings: EngineSettings) -> None:
        """Loads the tokenizer and the configuration.

        Raises:
            OSError, ValueError: transformers cannot load them.
        """
        super().__init__()
        self.checkpoint = checkpoint
        self.settings = settings
        remote = {"trust_remote_code": settings.trust_remote_code}
        self.tokenizer = AutoTokenizer.from_pretrained(str(tokenizer_folder(checkpoint)), **remote)
        self.config = AutoConfig.from_pretrained(self.weights, **remote)
        self.generation_config = _generation_config(self.weights, self.config)

    @property
    def weights(self) -> str:
        """The directory of the full weights: the checkpoint's own, or an adapter's base."""
        checkpoint = self.checkpoint
        return checkpoint.base if checkpoint.adapter and checkpoint.base else str(checkpoint.path)

    @cached_property
    def tokenizer_key(self) -> str:  # type: ignore[override]
        """Hash of all that turns text into ids."""
        facts = [
            self.tokenizer.backend_tokenizer.to_str()
            if self.tokenizer.is_fast
            else self.checkpoint.path,
            self.tokenizer.chat_template,
            self.tokenizer.special_tokens_map,
            self.tokenizer.encode("a"),  # with or without a begin-of-sequence token
        ]
        return hashlib.sha256(json.dumps(facts, default=str).encode()).hexdigest()

    @property
    def n_vocabulary(self) -> int:
        return int(self.config.get_text_config().vocab_size)

    @property
    def max_length(self) -> int:
        """As lm-eval reads it from the weights' configuration, else from the tokenizer."""
        if self.settings.max_length:
            return self.settings.max_length
        return int(resolve_max_length(self.config, self.tokenizer, default=DEFAULT_MAX_LENGTH))

    @property
    def eot_token_id(self) -> int:
        """The end-of-sequence token.

        Raises:
            EngineError: the tokenizer names none.
        """
        if self.tokenizer.eos_token_id is None:
            raise EngineError(
                f"{self.checkpoint.path}: the tokenizer names no end-of-sequence token; set "
                "eos_token in tokenizer_config.json"
            )
        return int(self.tokenizer.eos_token_id)

    @property
    def prefix_token_id(self) -> int:
        first = self.tokenizer.bos_token_id
        return self.eot_token_id if first is None else int(first)

    @cached_property
    def _prefix(self) -> str:
        return str(self.tokenizer.decode(self.prefix_token_id))

    @property
    def tokenizer_name(self) -> str:
        return str(self.checkpoint.path)

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **kwargs: Any
    ) -> list[int]:
        if add_special_tokens is None:
            doubled = has_bos_prefix(string, self._prefix)
            special = {"add_special_tokens": False} if doubled else {}
        else:
            special = {"add_special_tokens": add_special_tokens}
        return list(self.tokenizer.encode(string, **special))

    def encode(
        self, texts: Sequence[str], add_special_tokens: bool | None = None
    ) -> list[array[int]]:
        if not self.tokenizer.is_fast:
            return super().encode(texts, add_special_tokens)
        if add_special_tokens is None:
            special = [not has_bos_prefix(text, self._prefix) for text in texts]
        else:
            special = [add_special_tokens] * len(texts)
        ids: list[array[int]] = [array("i")] * len(texts)
        for kind in set(special):
            alike = [i for i, one in enumerate(special) if one is kind]
            encodings = self.tokenizer(
                [texts[i] for i in alike],
                add_special_tokens=kind,
                return_attention_mask=False,
                return_token_type_ids=False,
            )["input_ids"]
            for i, one in zip(alike, encodings, strict=True):
                ids[i] = array("i", one)
        return ids

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """Turns as one text.

        Raises:
            EngineError: the checkpoint's chat template cannot be filled, or not within bounds.
        """
        where = self.checkpoint.path
        if isinstance(template := self.tokenizer.chat_template, str):
            try:
                try_template(template)
            except EngineError as error:
                raise EngineError(f"{where}: {error}") from error
        try:
            return str(
                self.tokenizer.apply_chat_template(
                    chat_history,
                    tokenize=False,
                    add_generation_prompt=add_generation_prompt,
                    continue_final_message=not add_generation_prompt,
                )
            )
        except (TemplateError, TypeError, ValueError, LookupError, RecursionError) as error:
            why = f"{type(error).__name__}: {error}"
            raise EngineError(f"{where}: its chat template cannot be filled: {why}") from error

    @abstractmethod
    def decode(
        self,
        prompts: Sequence[Sequence[int]],
        until: Sequence[str],
        sampling: Sampling,
        seeds: Sequence[int],
    ) -> list[tuple[list[int], bool]]:
        """Tokens behind each prompt, and whether they were picked from numbers.

        They may go on behind a text's end, which is found afterwards.

        Args:
            prompts: each at least one id, with room for the text behind it.
            until: stop strings.
            sampling: everything else about it.
            seeds: of each prompt's text.
        """

    def generate(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, seeds: Sequence[int] = ()
    ) -> list[Generation]:
        rows, until = self.rows(prompts, sampling)
        seeds = seeds or range(sampling.seed, sampling.seed + len(rows))
        return self.read(prompts, rows, self.decode(rows, until, sampling, seeds), until)

    def rows(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling
    ) -> tuple[list[list[int]], list[str]]:
        """Prompts as they fit, and all stop strings; raises as `generate` does."""
        room = self.max_length - sampling.max_gen_toks
        if room <= 0:
            raise EngineError(
                f"{self.checkpoint.path}: {sampling.max_gen_toks} tokens to generate leave no room "
                f"for a prompt in a context of {self.max_length}"
            )
        for prompt in prompts:
            if reason := self.check_prompt(prompt):
                raise EngineError(f"{self.checkpoint.path}: {reason}")
        rows = [list(prompt)[-room:] or [self.prefix_token_id] for prompt in prompts]
        end = self.tokenizer.decode([self.eot_token_id])
        return rows, handle_stop_sequences(list(sampling.until), eos=end)

    def read(
        self,
        prompts: Sequence[Sequence[int]],
        rows: Sequence[Sequence[int]],
        decoded: Sequence[tuple[list[int], bool]],
        until: Sequence[str],
    ) -> list[Generation]:
        """The texts among decoded tokens, each up to its own end."""
        return [
            self._generation(tokens, list(until))._replace(
                n_cut=max(0, len(prompt) - len(row)), finite=finite
            )
            for (tokens, finite), prompt, row in zip(decoded, prompts, rows, strict=True)
        ]

    def _generation(self, tokens: list[int], until: list[str]) -> Generation:
        """One row up to its own end: a row that ends before the others is padded or goes on."""
        ended = next((i for i, token in enumerate(tokens) if token in self.end_ids), None)
        kept = tokens[:ended]

        def stopped(n: int) -> bool:
            # With special tokens, which may be stop strings and which the text leaves out.
            said = self.tokenizer.decode(kept[:n])
            return any(stop in said for stop in until if stop)

        finished = ended is not None
        drawn = tokens if ended is None else tokens[: ended + 1]
        if stopped(len(kept)):
            finished = True
            drawn = kept = kept[: bisect_left(range(len(kept)), True, key=stopped)]
        raw = self.tokenizer.decode(kept, skip_special_tokens=True)
        text = postprocess_generated_text(raw, until, None)
        return Generation(text, len(kept), finished, tokens=tuple(drawn))

    @cached_property
    def end_ids(self) -> frozenset[int]:
        """The ids that end a text: the checkpoint may name several."""
        named = self.generation_config.eos_token_id
        several = named if isinstance(named, list) else [named]
        return frozenset({self.eot_token_id, *(i for i in several if i is not None)})


def _generation_config(weights: str, config: Any) -> Any:
    try:
        return GenerationConfig.from_pretrained(weights)
    except OSError:  # there is none
        return GenerationConfig.from_model_config(config)
