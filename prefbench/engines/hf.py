"""The embedded engine: transformers on CPU or GPU."""

from __future__ import annotations

import gc
import warnings
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoModelForCausalLM
from transformers.utils import logging as transformers_logging

from prefbench.engines import Engines
from prefbench.engines.base import (
    EngineSettings,
    Logp,
    Sampling,
    TokenRequest,
)
from prefbench.engines.decoding import Decoder
from prefbench.engines.generation import StopStrings, by_transformers
from prefbench.engines.scoring import Scorer
from prefbench.engines.texts import TextEngine
from prefbench.errors import EngineError
from prefbench.records import Checkpoint

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
HEEDED_IN_DRAWING = {"min_p", "typical_p"}
"""Of those, the ones that transformers heeds where the temperature is above 0.

Temperature, top_p and top_k are the task's and never the checkpoint's.
"""


class HFEngine(TextEngine):
    """A checkpoint in transformers, exact before fast."""

    kind = "hf"

    def __init__(self, checkpoint: Checkpoint, settings: EngineSettings) -> None:
        """Loads a checkpoint (and an adapter's base), from safetensors unless told otherwise.

        Raises:
            EngineError: transformers cannot load it; the message carries its reason.
        """
        try:
            with _hushed():
                super().__init__(checkpoint, settings)
                self._device = torch.device(_pick_device(settings.device))
                found: Any = AutoModelForCausalLM.from_pretrained(
                    self.weights,
                    output_loading_info=True,
                    ignore_mismatched_sizes=True,  # the message says which they are
                    dtype=getattr(torch, settings.dtype),
                    use_safetensors=not settings.allow_pickle or None,
                    trust_remote_code=settings.trust_remote_code,
                )
            self.model, loaded = found
            if lost := sorted(loaded["missing_keys"]):  # it would make them up
                raise OSError(f"its weights lack {len(lost)} tensors, of which {lost[0]}")
            if other := sorted(loaded["mismatched_keys"]):
                name, there, wanted = other[0]
                raise OSError(
                    f"{len(other)} of its tensors have another shape than config.json says, of "
                    f"which {name} has {list(there)}, not {list(wanted)}"
                )
            if checkpoint.adapter:
                self.model = _with_adapter(self.model, str(checkpoint.path), settings)
        except LOADING as error:
            raise EngineError(f"{checkpoint.path}: cannot be loaded: {_told(error)}") from error
        self.model.to(self._device).eval()
        self._scorer = Scorer(self.model, self.max_length, self._device)
        self._decoder = Decoder(self._scorer)

    @property
    def notes(self) -> Sequence[str]:
        return self._scorer.notes

    @property
    def n_vocabulary(self) -> int:
        return int(self._scorer.n_vocabulary)

    def score(self, requests: Sequence[TokenRequest], *, details: bool = False) -> list[Logp]:
        for request in requests:
            if reason := self.check(request):
                raise EngineError(f"{self.checkpoint.path}: {reason}")
        return self._scorer.score(requests, details=details)

    @torch.inference_mode()
    def decode(
        self,
        prompts: Sequence[Sequence[int]],
        until: Sequence[str],
        sampling: Sampling,
        seeds: Sequence[int],
    ) -> list[tuple[list[int], bool]]:
        # Each prompt by itself, as the two ways draw different texts from one seed.
        shared = self._decodes_itself(sampling)
        room = self._scorer.longest_packed - sampling.max_gen_toks
        ours = [i for i, prompt in enumerate(prompts) if shared and len(prompt) <= room]
        theirs = sorted(set(range(len(prompts))) - set(ours))
        found: dict[int, tuple[list[int], bool]] = {}
        if ours:
            stops = StopStrings(self.tokenizer, until)
            texts = self._decoder.decode(
                [prompts[i] for i in ours],
                n_tokens=sampling.max_gen_toks,
                are_done=lambda some: [
                    text[-1] in self.end_ids or stop
                    for text, stop in zip(some, stops.are_met(some), strict=True)
                ],
                sampling=sampling,
                seeds=[seeds[i] for i in ours],
            )
            found.update(zip(ours, ((text.tokens, text.finite) for text in texts), strict=True))
        if theirs:
            pad = self.tokenizer.pad_token_id
            rows = by_transformers(
                self.model,
                self.tokenizer,
                [prompts[i] for i in theirs],
                until,
                sampling,
                [seeds[i] for i in theirs],
                pad=self.eot_token_id if pad is None else pad,
            )
            found.update(zip(theirs, rows, strict=True))
        return [found[i] for i in range(len(prompts))]

    def _decodes_itself(self, sampling: Sampling) -> bool:
        """Whether generation is a plain search or plain sampling that can share prefixes.

        A checkpoint's own generation configuration may ask for more, for example a penalty of
        repetitions; transformers knows all of that.
        """
        asked = {k for k, v in self.generation_config.to_diff_dict().items() if v is not None}
        drawn = sampling.temperature > 0
        heeded = asked - (WITHOUT_EFFECT - HEEDED_IN_DRAWING if drawn else WITHOUT_EFFECT)
        return not heeded and self._decoder.plain_reason is None


LOADING = (
    *(OSError, ValueError, RuntimeError, ImportError),
    *(LookupError, AttributeError, TypeError, StrictDataclassError),
)
"""What transformers raises of configurations, tokenizers and weights that it cannot load."""


@contextmanager
def _hushed() -> Iterator[None]:
    """Without transformers' reports on stderr, in which names of checkpoints are not made plain."""
    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        transformers_logging.set_verbosity(before)


def _told(error: Exception) -> str:
    """What an error says; of one that was not made to be read its kind, too."""
    if isinstance(error, LookupError | AttributeError | TypeError):
        return f"{type(error).__name__}: {error}"
    return str(error)


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
def open_hf(
    checkpoint: Checkpoint, settings: EngineSettings, engines: Engines | None = None
) -> Iterator[HFEngine]:
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
