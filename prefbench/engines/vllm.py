"""vLLM behind our contract: one running engine that takes checkpoint after checkpoint."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lm_eval.models.utils import resolve_max_length

from prefbench.checkpoints import read_checkpoint, tokenizer_folder
from prefbench.engines import Engines
from prefbench.engines.adapters import beyond_lora, needs
from prefbench.engines.attention import changes_at
from prefbench.engines.base import Engine, EngineSettings, Generation, Logp, Sampling, TokenRequest
from prefbench.engines.builds import HOW_TO_INSTALL, installed
from prefbench.engines.hf import HEEDED_IN_DRAWING, WITHOUT_EFFECT
from prefbench.engines.probe import N_NEXT, N_TEXT, TEXT, Probe, difference, direct_logps
from prefbench.engines.running import Running, Start
from prefbench.engines.swapping import cannot_swap, described
from prefbench.engines.texts import TextEngine
from prefbench.engines.vllm_child import Ask, Manner, Told
from prefbench.errors import EngineError, StoppedError, UnsuitableError
from prefbench.records import Checkpoint

HOTTEST = 2.0
"""The highest temperature that vLLM takes."""


class VLLMEngine(TextEngine):
    """A checkpoint in a running vLLM: others may have been in it before."""

    kind = "vllm"

    def __init__(self, checkpoint: Checkpoint, settings: EngineSettings, engines: Engines) -> None:
        """Has vLLM take the checkpoint's weights, and asks it about a text to see that it did.

        Raises:
            UnsuitableError: the checkpoint is more than vLLM carries out, or it is not there.
            EngineError: it cannot be loaded, or vLLM's numbers for it are not its own.
        """
        if installed() is None:
            raise EngineError(f"vLLM is not installed: {HOW_TO_INSTALL}")
        try:
            super().__init__(checkpoint, settings)
        except (OSError, ValueError, RuntimeError, ImportError, KeyError, AttributeError) as error:
            raise EngineError(f"{checkpoint.path}: cannot be loaded: {error}") from error
        self._notes: list[str] = []
        self._swapped = False
        if reason := self._beyond_vllm():
            raise UnsuitableError(f"{checkpoint.path}: {reason}")
        self._engines = engines
        self._needed = self._start()
        self._load()
        self._device = torch.device(self._running.facts["device"])

    @property
    def notes(self) -> Sequence[str]:
        room, asked = self._running.facts["max_model_len"], self._running.start.max_model_len
        if room < asked:
            return [*self._notes, f"vLLM had memory for texts of {room} tokens, not of {asked}"]
        return self._notes

    @property
    def facts(self) -> Mapping[str, Any]:
        running = self._running
        return {"vllm": dict(running.facts), "log": running.child.log.name}

    @property
    def batch_size(self) -> int:  # type: ignore[override]
        """As many as keep it busy; it starts on the next as soon as one has ended."""
        return 64 if self._running.facts["device"] == "cpu" else 512

    @property
    def _running(self) -> Running:
        """The vLLM that holds it: one that holds something else by now would answer all the same.

        Raises:
            StoppedError: it was ended for another engine's sake, or holds another checkpoint.
        """
        running, path = self._engines.vllm, self.checkpoint.path
        if running is None:
            raise StoppedError(f"{path}: the vLLM that served it was ended")
        if running.start != self._needed:
            raise StoppedError(f"{path}: the vLLM that served it was started anew for another")
        if not self.checkpoint.adapter and running.holds != self.key:
            raise StoppedError(f"{path}: the vLLM that served it holds other weights now")
        return running

    @property
    def key(self) -> str:
        """Equal for two checkpoints if they are the same weights."""
        return self.checkpoint.fingerprint or str(self.checkpoint.path)

    def _beyond_vllm(self) -> str | None:
        asked = {k for k, v in self.generation_config.to_diff_dict().items() if v is not None}
        heeded = WITHOUT_EFFECT - HEEDED_IN_DRAWING | {"repetition_penalty", "min_p"}
        if others := asked - heeded:
            return f"its generation_config.json sets {', '.join(sorted(others))}"
        if self.checkpoint.adapter and (reason := beyond_lora(self.checkpoint.path)):
            return f"vLLM serves plain LoRA adapters, {reason}"
        if self.settings.dtype == "float64":
            return "vLLM does not compute in float64"
        known = resolve_max_length(self.config, default=self.max_length)
        if self.max_length > known:  # vLLM would read behind the end of its table of positions
            return f"its config.json has {known} positions, --max-length asks for {self.max_length}"
        changes = changes_at(self.config)
        if changes is not None and self.max_length >= changes:
            return f"its position embedding changes at {changes} tokens; vLLM has one for all texts"
        ids = self._probe_ids()
        if len(ids) < 2:
            return f"{self.max_length} tokens of context are too few to compare vLLM's numbers over"
        return super().check_prompt(ids)

    def _probe_ids(self) -> list[int]:
        return self.tok_encode(TEXT)[: max(0, min(N_TEXT, self.max_length - N_NEXT - 1))]

    def _load(self) -> None:
        """Puts the weights into the running vLLM, or into a fresh one where that is not safe."""
        try:
            reason = self._swap()
            if reason is None and (reason := self._probe(fresh=False)) is None:
                return
        except StoppedError as error:
            reason = f"the one that was running failed: {error}"
        if self._engines.vllm is not None:
            self._notes.append(f"a fresh vLLM was started: {reason}")
        try:
            self._start_afresh()
            reason = self._probe(fresh=True)
        except StoppedError as error:
            self._engines.end_vllm()
            if isinstance(error.__cause__, EngineError):  # it did not crash, it refused
                reason = str(error)
            else:
                raise
        if reason:
            self._engines.end_vllm()
            raise UnsuitableError(f"{self.checkpoint.path}: {reason}")

    def _start_afresh(self) -> None:
        """A new vLLM: in the process that is there, where that is known to give its memory back."""
        running = self._engines.vllm
        if running is not None and running.facts["device"] == "cpu" and running.child.is_alive:
            try:
                running.open(self, self._needed)
            except EngineError:
                self._engines.end_vllm()
            else:
                return
        self._engines.end_vllm()
        self._engines.vllm = Running(self, self._needed)

    def _start(self) -> Start:
        lora, base, content = None, None, ""
        if self.checkpoint.adapter:
            base = self.weights
            content = read_checkpoint(
                Path(base),
                allow_pickle=self.settings.allow_pickle,
                allow_remote_code=self.settings.trust_remote_code,
            ).fingerprint
            siblings = [
                one.path
                for one in self._engines.checkpoints
                if one.adapter and one.base == base and one.state == "ready"
                if beyond_lora(one.path) is None
            ]
            lora = needs([self.checkpoint.path, *siblings])
        return Start(
            dtype=self.settings.dtype,
            device=self.settings.device,
            max_model_len=self.max_length + 1,  # to predict the token behind a full context
            tensor_parallel_size=self.settings.tensor_parallel_size,
            allow_pickle=self.settings.allow_pickle,
            trust_remote_code=self.settings.trust_remote_code,
            lora=lora,
            base=base,
            base_content=content,
        )

    def _swap(self) -> str | None:
        """Loads the weights into the running vLLM; says why not, if not."""
        running = self._engines.vllm
        if running is None:
            return "none was running"
        if running.start != self._needed:
            return "the running one was started with other settings"
        if self.checkpoint.adapter or running.holds == self.checkpoint.fingerprint != "":
            return None
        if reason := cannot_swap(running.keeps, described(Path(self.weights))):
            return reason
        running.call("load", self.weights)
        running.call("repack")
        running.call("forget")
        running.holds = self.key
        self._swapped = True
        self._notes.append("its weights were loaded into the vLLM that was running")
        return None

    def _probe(self, *, fresh: bool) -> str | None:
        """Asks vLLM about a text; says how it is not the checkpoint, if it is not."""
        ids = self._probe_ids()
        sampling = Sampling(max_gen_toks=N_NEXT)
        # Generated first: it reads the prefix cache, which must not be of other weights.
        asks = self._asks([ids], [0], frozenset())
        (generated,) = self._told(asks, (), sampling, heeding=False)
        (scored,) = self._scored([TokenRequest(ids[:1], ids[1:])])
        probe = Probe(
            (*ids, *generated.tokens), (*scored[0], *generated.logps), len(generated.tokens)
        )
        running = self._running
        before, running.probe = running.probe, probe
        if not fresh and self._swapped and before == probe:
            return "its log-probs of a probe text are to the bit those of the checkpoint before"
        direct = direct_logps(self.checkpoint, self.settings, probe.tokens, Path(self.weights))
        if direct is None:
            self._notes.append("vLLM was not compared with a forward pass: not enough memory")
            return None
        return difference(probe, direct, self.settings.dtype)

    def check_length(self, n_tokens: int) -> str | None:
        """Why a text of so many tokens has no room in the keys and values, if it has none."""
        room = int(self._running.facts["max_model_len"])
        if n_tokens <= room:
            return None
        return (
            f"prompt and answer may have {n_tokens} tokens, vLLM had memory for {room}; give it "
            "more, or set --max-length lower"
        )

    def check_prompt(self, ids: Sequence[int], n_more: int = 0) -> str | None:
        n = min(len(ids) + n_more, self.max_length)
        return super().check_prompt(ids, n_more) or self.check_length(n)

    def check(self, request: TokenRequest) -> str | None:
        n = min(len(request.context) + len(request.continuation), self.max_length + 1)
        return super().check(request) or self.check_length(n)

    def score(self, requests: Sequence[TokenRequest], *, details: bool = False) -> list[Logp]:
        longest = self.max_length + 1
        cut = []
        for request in requests:
            if reason := self.check(request):
                raise EngineError(f"{self.checkpoint.path}: {reason}")
            room = longest - len(request.continuation)
            cut.append(TokenRequest(list(request.context)[-room:], list(request.continuation)))
        return [
            Logp(
                sum(logps),
                greedy,
                len(request.context) - len(one.context),
                tuple(logps) if details else (),
            )
            for (logps, greedy), request, one in zip(self._scored(cut), requests, cut, strict=True)
        ]

    def _scored(self, requests: Sequence[TokenRequest]) -> list[tuple[list[float], bool]]:
        adapter = self._running.adapter(self.checkpoint)
        asks = [(list(one.context), list(one.continuation), adapter) for one in requests]
        return self._running.call("score", asks)  # type: ignore[no-any-return]

    def decode(
        self,
        prompts: Sequence[Sequence[int]],
        until: Sequence[str],
        sampling: Sampling,
        seeds: Sequence[int],
    ) -> list[tuple[list[int], bool]]:
        return self._call(self._asks(prompts, seeds, self.end_ids), until, sampling)

    def generate_together(
        self,
        others: Sequence[Engine],
        prompts: Sequence[Sequence[int]],
        sampling: Sampling,
        seeds: Sequence[int] = (),
    ) -> list[list[Generation]]:
        several = [self, *(one for one in others if isinstance(one, VLLMEngine))]
        if len(several) <= len(others) or not all(one.checkpoint.adapter for one in several):
            return super().generate_together(others, prompts, sampling, seeds)
        seeds = seeds or range(sampling.seed, sampling.seed + len(prompts))
        sent = [(engine, *engine.rows(prompts, sampling)) for engine in several]
        until = sent[0][2]
        if any(stops != until for *_, stops in sent):  # end-of-sequence is one of them
            return super().generate_together(others, prompts, sampling, seeds)
        asks = [
            ask for engine, rows, _ in sent for ask in engine._asks(rows, seeds, engine.end_ids)
        ]
        decoded = iter(self._call(asks, until, sampling))
        return [
            engine.read(prompts, rows, list(itertools.islice(decoded, len(rows))), until)
            for engine, rows, _ in sent
        ]

    def _asks(
        self, prompts: Sequence[Sequence[int]], seeds: Sequence[int], end_ids: frozenset[int]
    ) -> list[Ask]:
        adapter = self._running.adapter(self.checkpoint)
        tokenizer = str(tokenizer_folder(self.checkpoint))
        # A configuration may name more, which no text ends with and vLLM refuses.
        known = frozenset(i for i in end_ids if 0 <= i < self.n_vocabulary)
        return [
            Ask(list(prompt), seed, tokenizer, known, adapter)
            for prompt, seed in zip(prompts, seeds, strict=True)
        ]

    def _told(
        self, asks: Sequence[Ask], until: Sequence[str], sampling: Sampling, *, heeding: bool = True
    ) -> list[Told]:
        """What vLLM says, heeding the checkpoint's own settings or not."""
        if sampling.temperature > HOTTEST:
            raise EngineError(
                f"{self.checkpoint.path}: vLLM draws at temperatures up to {HOTTEST:g}, not at "
                f"{sampling.temperature:g}; --engine hf can"
            )
        manner = Manner(
            tuple(until),
            sampling.max_gen_toks,
            sampling.temperature,
            sampling.top_p,
            sampling.top_k,
            (self.generation_config.repetition_penalty or 1.0) if heeding else 1.0,
            (self.generation_config.min_p or 0.0) if heeding and sampling.temperature > 0 else 0.0,
        )
        return self._running.call("generate", asks, manner)  # type: ignore[no-any-return]

    def _call(
        self, asks: Sequence[Ask], until: Sequence[str], sampling: Sampling
    ) -> list[tuple[list[int], bool]]:
        return [
            (one.tokens, not any(map(math.isnan, one.logps)))
            for one in self._told(asks, until, sampling)
        ]


@contextmanager
def open_vllm(
    checkpoint: Checkpoint, settings: EngineSettings, engines: Engines
) -> Iterator[VLLMEngine]:
    """A checkpoint in vLLM, which goes on running for the next one."""
    yield VLLMEngine(checkpoint, settings, engines)
