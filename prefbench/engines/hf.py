"""The embedded engine: transformers on CPU or GPU."""

from __future__ import annotations

import gc
import hashlib
import json
import warnings
import weakref
from array import array
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from lm_eval.models.utils import (
    handle_stop_sequences,
    has_bos_prefix,
    postprocess_generated_text,
    resolve_max_length,
)
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from prefbench.checkpoints import tokenizer_folder
from prefbench.engines.base import (
    Engine,
    EngineSettings,
    Generation,
    Logp,
    Sampling,
    TokenRequest,
)
from prefbench.engines.decoding import Decoder
from prefbench.engines.generation import StopStrings, by_transformers
from prefbench.engines.scoring import Scorer
from prefbench.errors import EngineError
from prefbench.records import Checkpoint

DEFAULT_MAX_LENGTH = 2048
WITHOUT_EFFECT = {
    "bos_token_id",
    "do_sample",
    "eos_token_id",
    "max_length",
    "max_new_tokens",
    "min_p",
    "output_attentions",
    "output_hidden_states",
    "output_scores",
    "pad_token_id",
    "return_dict_in_generate",
    "temperature",
    "top_k",
    "top_p",
    "transformers_version",
    "typical_p",
    "use_cache",
    "_from_model_config",
}
"""Settings of a checkpoint's generation that greedy search with our own stops does not heed."""


class HFEngine(Engine):
    """A checkpoint in transformers, exact before fast."""

    kind = "hf"

    def __init__(self, checkpoint: Checkpoint, settings: EngineSettings) -> None:
        """Loads a checkpoint (and an adapter's base), from safetensors unless told otherwise.

        Raises:
            EngineError: transformers cannot load it; the message carries its reason.
        """
        super().__init__()
        self.checkpoint = checkpoint
        self.settings = settings
        self._device = torch.device(_pick_device(settings.device))
        folder = str(checkpoint.path)
        weights = checkpoint.base if checkpoint.adapter and checkpoint.base else folder
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(
                str(tokenizer_folder(checkpoint)), trust_remote_code=settings.trust_remote_code
            )
            self.model: Any = AutoModelForCausalLM.from_pretrained(
                weights,
                dtype=getattr(torch, settings.dtype),
                use_safetensors=not settings.allow_pickle or None,
                trust_remote_code=settings.trust_remote_code,
            )
            if checkpoint.adapter:
                self.model = _with_adapter(self.model, folder, settings)
        except (OSError, ValueError, RuntimeError, ImportError, KeyError, AttributeError) as error:
            raise EngineError(f"{checkpoint.path}: cannot be loaded: {error}") from error
        self.model.to(self._device).eval()
        self._scorer = Scorer(self.model, self.max_length, self._device)
        self._decoder = Decoder(self._scorer)

    @property
    def notes(self) -> Sequence[str]:
        return self._scorer.notes

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
    def max_length(self) -> int:
        """As lm-eval reads it from the weights' configuration, else from the tokenizer."""
        if self.settings.max_length:
            return self.settings.max_length
        return int(
            resolve_max_length(self.model.config, self.tokenizer, default=DEFAULT_MAX_LENGTH)
        )

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
        return str(
            self.tokenizer.apply_chat_template(
                chat_history,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                continue_final_message=not add_generation_prompt,
            )
        )

    def score(self, requests: Sequence[TokenRequest]) -> list[Logp]:
        for request in requests:
            if reason := self.check(request):
                raise EngineError(f"{self.checkpoint.path}: {reason}")
        return self._scorer.score(requests)

    @torch.inference_mode()
    def generate(self, prompts: Sequence[Sequence[int]], sampling: Sampling) -> list[Generation]:
        room = self.max_length - sampling.max_gen_toks
        if room <= 0:
            raise EngineError(
                f"{self.checkpoint.path}: {sampling.max_gen_toks} tokens to generate leave no room "
                f"for a prompt in a context of {self.max_length}"
            )
        rows = [list(prompt)[-room:] or [self.prefix_token_id] for prompt in prompts]
        end = self.tokenizer.decode([self.eot_token_id])
        until = handle_stop_sequences(list(sampling.until), eos=end)
        longest = max(map(len, rows), default=0) + sampling.max_gen_toks
        if self._decodes_itself(sampling, longest):
            stops = StopStrings(self.tokenizer, until)
            texts = self._decoder.decode(
                rows,
                n_tokens=sampling.max_gen_toks,
                are_done=lambda some: [
                    text[-1] in self._end_ids or stop
                    for text, stop in zip(some, stops.are_met(some), strict=True)
                ],
            )
            generated = [(text.tokens, text.finite) for text in texts]
        else:
            pad = self.tokenizer.pad_token_id
            generated = by_transformers(
                self.model,
                self.tokenizer,
                rows,
                until,
                sampling,
                pad=self.eot_token_id if pad is None else pad,
            )
        return [
            self._generation(tokens, until)._replace(
                n_cut=max(0, len(prompt) - len(row)), finite=finite
            )
            for (tokens, finite), prompt, row in zip(generated, prompts, rows, strict=True)
        ]

    def _decodes_itself(self, sampling: Sampling, longest: int) -> bool:
        """Whether generation is plain greedy search that can share prefixes.

        A checkpoint's own generation configuration may ask for more, for example a penalty of
        repetitions; transformers knows all of that.
        """
        asked = {k for k, v in self.model.generation_config.to_diff_dict().items() if v is not None}
        return (
            sampling.temperature == 0
            and asked <= WITHOUT_EFFECT
            and self._decoder.plain_reason is None
            and longest <= self._scorer.longest_packed
        )

    def _generation(self, tokens: list[int], until: list[str]) -> Generation:
        """One row up to its own end: a row that ends before the others is padded or goes on."""
        ended = next((i for i, token in enumerate(tokens) if token in self._end_ids), None)
        kept = tokens[:ended]

        def stopped(n: int) -> bool:
            # With special tokens, which may be stop strings and which the text leaves out.
            said = self.tokenizer.decode(kept[:n])
            return any(stop in said for stop in until if stop)

        finished = ended is not None
        if stopped(len(kept)):
            finished = True
            kept = kept[: bisect_left(range(len(kept)), True, key=stopped)]
        raw = self.tokenizer.decode(kept, skip_special_tokens=True)
        return Generation(postprocess_generated_text(raw, until, None), len(kept), finished)

    @cached_property
    def _end_ids(self) -> frozenset[int]:
        """The ids that end a text: the checkpoint may name several."""
        named = self.model.generation_config.eos_token_id
        several = named if isinstance(named, list) else [named]
        return frozenset({self.eot_token_id, *(i for i in several if i is not None)})


def _with_adapter(model: Any, folder: str, settings: EngineSettings) -> Any:
    from peft import PeftModel

    if not settings.allow_pickle and not (Path(folder) / "adapter_model.safetensors").is_file():
        raise OSError("the adapter has no adapter_model.safetensors (allow_pickle loads others)")
    with warnings.catch_warnings():
        # peft still asks transformers for an attribute by its old name.
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing", FutureWarning)
        return PeftModel.from_pretrained(model, folder)


def _pick_device(name: str) -> str:
    if name != "auto":
        return name
    return "cuda" if torch.cuda.is_available() else "cpu"


@contextmanager
def open_hf(checkpoint: Checkpoint, settings: EngineSettings) -> Iterator[HFEngine]:
    """A loaded checkpoint whose memory is given back at the end."""
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    engine = HFEngine(checkpoint, settings)
    model = weakref.ref(engine.model)
    try:
        yield engine
    finally:
        del engine.model, engine._scorer, engine._decoder
        if model() is not None:  # it is part of a circle of references
            gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
