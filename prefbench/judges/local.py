"""Judges that are checkpoints on this machine, in our own engines: no text leaves it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import jinja2

from prefbench.engines import Engines
from prefbench.engines.base import Engine, EngineSettings, Logp, Sampling, TokenRequest
from prefbench.engines.builds import installed
from prefbench.errors import EngineError, JudgeError, StoppedError, UnsuitableError
from prefbench.judges.judge import Ask, Judge, Unheard, Verdict
from prefbench.judges.models import special_words
from prefbench.judges.prompts import render
from prefbench.judges.reading import Read, read
from prefbench.judges.recipe import JudgeRecipe
from prefbench.records import Checkpoint

FALLBACK = "hf"
NO_NUMBERS = "the judge's log-probs are not all numbers"


class _Prompt(NamedTuple):
    place: int
    """Among the asks."""
    ask: Ask
    text: str
    ids: list[int]


class LocalJudge(Judge):
    """A checkpoint that generates a reply, or says how probable each label is.

    It is asked through its chat template; where it has none, it reads the messages one after the
    other. It generates by vLLM where that is installed, else by hf; labels are scored by hf, which
    is faster at it. The engine is opened when it is first needed. What is drawn depends on the ask
    and the recipe alone: asked again, the judge says the same.
    """

    def __init__(
        self,
        recipe: JudgeRecipe,
        checkpoint: Checkpoint,
        settings: EngineSettings | None = None,
        *,
        engine: str | None = None,
        logs: Path | None = None,
        on_notice: Callable[[str], None] = lambda text: None,
    ) -> None:
        """Loads nothing yet.

        Args:
            recipe: of kind vllm.
            checkpoint: as `find_model` gives it.
            settings: of the engine; by default the weights' own number format.
            engine: hf or vllm instead of the usual one.
            logs: where an engine in another process keeps what it prints.
            on_notice: told which engine is used, and what goes wrong on the way.

        Raises:
            JudgeError: the recipe says no prompt or a verdict that only other judges give.
        """
        if recipe.prompt is None or recipe.verdict is None or recipe.verdict.by == "score":
            raise JudgeError(
                f"{recipe.judge}: a judge of kind {recipe.kind} needs a prompt, and a verdict by "
                "line, json or logprobs"
            )
        self.recipe = recipe
        self.checkpoint = checkpoint
        self._reading = recipe.verdict
        settings = settings or EngineSettings(dtype=checkpoint.dtype or "float32")
        self._settings = replace(settings, log_folder=logs or settings.log_folder)
        self._on_notice = on_notice
        generates = self._reading.by != "logprobs"
        self._kind = engine or ("vllm" if generates and installed() else FALLBACK)
        self._stack = contextlib.ExitStack()
        self._engine: Engine | None = None
        facts = [
            recipe.key,
            checkpoint.fingerprint,
            self._kind,
            self._settings.dtype,
            self._settings.max_length,
        ]
        self.key = hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    def decide(self, asks: Sequence[Ask]) -> Iterator[tuple[int, Verdict | Unheard]]:
        if not asks:
            return
        try:
            yield from self._decide(asks)
        except EngineError as error:
            raise JudgeError(f"{self.recipe.judge}: {error}") from error

    def close(self) -> None:
        self._engine = None
        self._stack.close()

    def _decide(self, asks: Sequence[Ask]) -> Iterator[tuple[int, Verdict]]:
        engine = self._opened()
        answer = self._score if self._reading.by == "logprobs" else self._generate
        waiting = self._prompts(asks, engine)
        waiting.sort(key=lambda prompt: -len(prompt.ids))
        stopped = False
        while waiting:
            batch = waiting[: engine.batch_size]
            try:
                verdicts = answer(batch, engine)
            except StoppedError as error:
                self.close()
                if stopped:
                    raise
                stopped = True
                self._tell(f"asked once more in a fresh engine: {error}")
                engine = self._opened()
                continue
            stopped = False
            del waiting[: len(batch)]
            for prompt, verdict in zip(batch, verdicts, strict=True):
                yield prompt.place, verdict

    def _opened(self) -> Engine:
        if self._engine is None:
            engines = self._stack.enter_context(Engines([self.checkpoint]))

            def opened(kind: str) -> Engine:
                return self._stack.enter_context(
                    engines.open(kind, self.checkpoint, self._settings)
                )

            try:
                self._engine = opened(self._kind)
            except UnsuitableError as error:
                self._tell(f"judges by {FALLBACK} instead of {self._kind}: {error}")
                self._engine = opened(FALLBACK)
            self._tell(f"judges by {self._engine.kind} on this machine")
        return self._engine

    def _tell(self, text: str) -> None:
        self._on_notice(f"{self.recipe.judge}: {text}")

    def _prompts(self, asks: Sequence[Ask], engine: Engine) -> list[_Prompt]:
        special = special_words(engine.tokenizer)
        texts = [
            self._text(render(self.recipe, ask, delimiter=_delimiter(ask), special=special), engine)
            for ask in asks
        ]
        rows = self._encode(texts, engine)
        return [
            _Prompt(place, ask, text, row)
            for place, (ask, text, row) in enumerate(zip(asks, texts, rows, strict=True))
        ]

    def _encode(self, texts: Sequence[str], engine: Engine) -> list[list[int]]:
        # A chat template writes the tokens that begin a text itself.
        special = False if engine.tokenizer.chat_template else None
        return [row.tolist() for row in engine.encode(texts, add_special_tokens=special)]

    def _text(self, messages: list[dict[str, str]], engine: Engine) -> str:
        """The messages as the checkpoint is used to them; the reply comes next."""
        if not engine.tokenizer.chat_template:
            return "\n\n".join(message["content"].rstrip() for message in messages) + "\n"
        try:
            return self._templated(messages, engine)
        except jinja2.TemplateError as error:
            if len(messages) == 1:
                raise JudgeError(
                    f"{self.recipe.judge}: its chat template fails: {error}"
                ) from error
        # Some templates know no system turn.
        both = "\n\n".join(message["content"] for message in messages)
        return self._text([{"role": "user", "content": both}], engine)

    def _templated(self, messages: list[dict[str, str]], engine: Engine) -> str:
        thinks = {"enable_thinking": False} if self.recipe.sampling.reasoning == "none" else {}
        return str(
            engine.tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True, **thinks
            )
        )

    def _verdict(self, prompt: _Prompt, found: Read, engine: Engine, **more: Any) -> Verdict:
        facts = {**found.facts, "engine": engine.kind}
        return Verdict(found.preference, found.reason, n_in=len(prompt.ids), facts=facts, **more)

    def _fails(self, prompt: _Prompt, n_more: int, engine: Engine) -> str | None:
        """Why a prompt cannot be asked; a cut would take away its instructions."""
        if len(prompt.ids) + n_more > engine.max_length:
            return (
                f"the prompt has {len(prompt.ids)} tokens and the reply may have {n_more}, the "
                f"judge's context length is {engine.max_length}"
            )
        return engine.check_prompt(prompt.ids, n_more)

    def _generate(self, prompts: Sequence[_Prompt], engine: Engine) -> list[Verdict]:
        asked = self.recipe.sampling
        sampling = Sampling(
            max_gen_toks=asked.max_tokens, temperature=asked.temperature, top_p=asked.top_p
        )
        reasons = [self._fails(prompt, asked.max_tokens, engine) for prompt in prompts]
        able = [p for p, reason in zip(prompts, reasons, strict=True) if reason is None]
        seeds = [_seed(prompt.ask, asked.seed) for prompt in able]
        texts = iter(engine.generate([p.ids for p in able], sampling, seeds) if able else ())
        verdicts = []
        for prompt, reason in zip(prompts, reasons, strict=True):
            if reason is not None:
                verdicts.append(self._verdict(prompt, Read(None, reason, {}), engine))
                continue
            said = next(texts)
            found = Read(None, NO_NUMBERS, {})
            if said.finite:
                found = read(self._reading, said.text, finished=said.finished)
            more = {"reply": said.text, "n_out": said.n_tokens}
            verdicts.append(self._verdict(prompt, found, engine, **more))
        return verdicts

    def _score(self, prompts: Sequence[_Prompt], engine: Engine) -> list[Verdict]:
        labels = [
            said for label in self._reading.labels for said in (label, f" {label}")
        ]  # a label may follow the prompt with or without a space
        texts = [prompt.text + said for prompt in prompts for said in labels]
        joint = iter(self._encode(texts, engine))
        alone = dict(
            zip(labels, map(list, engine.encode(labels, add_special_tokens=False)), strict=True)
        )
        spelled: list[dict[tuple[int, ...], str]] = []
        for prompt in prompts:
            ways: dict[tuple[int, ...], str] = {}
            for said in labels:
                whole = next(joint)
                n = len(prompt.ids)
                ids = whole[n:] if whole[:n] == prompt.ids else alone[said]
                ways.setdefault(tuple(ids), said)  # to some tokenizers both are the same
            spelled.append({ids: said for ids, said in ways.items() if ids})
        reasons = [
            self._fails(prompt, max(map(len, ways), default=0), engine)
            for prompt, ways in zip(prompts, spelled, strict=True)
        ]
        requests = [
            TokenRequest(prompt.ids, ids)
            for prompt, ways, reason in zip(prompts, spelled, reasons, strict=True)
            if reason is None
            for ids in ways
        ]
        logps = iter(engine.score(requests))
        verdicts = []
        for prompt, ways, reason in zip(prompts, spelled, reasons, strict=True):
            found = Read(None, reason, {})
            if reason is None:
                scored = {ids: next(logps) for ids in ways}
                found = self._read_labels(scored, ways)
            verdicts.append(self._verdict(prompt, found, engine))
        return verdicts

    def _read_labels(
        self, scored: Mapping[tuple[int, ...], Logp], ways: Mapping[tuple[int, ...], str]
    ) -> Read:
        if any(math.isnan(one.logp) for one in scored.values()):
            return Read(None, NO_NUMBERS, {})
        masses = exclusive({ids: math.exp(one.logp) for ids, one in scored.items()})
        logps = {ways[ids]: math.log(mass) for ids, mass in masses.items() if mass > 0}
        return read(self._reading, "", logprobs=logps)


def exclusive(masses: Mapping[tuple[int, ...], float]) -> dict[tuple[int, ...], float]:
    """The probability of each way to go on, without that of the longer ways it is the beginning of.

    Of a judge that may say 1 or 10, and writes digits apart, saying 10 is not saying 1.
    """
    found: dict[tuple[int, ...], float] = {}
    for ids in sorted(masses, key=lambda ids: -len(ids)):
        longer = math.fsum(mass for way, mass in found.items() if way[: len(ids)] == ids)
        found[ids] = max(0.0, masses[ids] - longer)
    return found


def _seed(ask: Ask, seed: int | None) -> int:
    digest = hashlib.sha256(f"{seed} {ask.digest}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def _delimiter(ask: Ask) -> str:
    """Twelve hex digits, the same for the same ask, that are nowhere in it.

    No answer can foresee them: they are a hash of it.
    """
    texts = [*(turn.content for turn in ask.conversation), ask.first, ask.second, ask.reference]
    whole = "\n".join(text for text in texts if text).lower()
    drawn = (
        hashlib.sha256(f"delimiter {n} {ask.digest}".encode()).hexdigest()[:12] for n in count()
    )
    return next(one for one in drawn if one not in whole)
