"""What runs in the process that vLLM lives in; its other side is `vllm.py`.

It is asked in token ids and answers in them. vLLM itself gets no tokenizer: after other weights
have been loaded into it, it would go on with the first checkpoint's.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple


class Adapter(NamedTuple):
    """A LoRA adapter, with a number that no other has."""

    name: str
    number: int
    path: str


@dataclass(frozen=True)
class Ask:
    """A text to be generated."""

    prompt: Sequence[int]
    seed: int
    tokenizer: str
    """The directory of the tokenizer that stop strings are looked for with."""
    end_ids: frozenset[int]
    adapter: Adapter | None = None


@dataclass(frozen=True)
class Manner:
    """How texts are generated."""

    until: tuple[str, ...]
    n_tokens: int
    temperature: float
    top_p: float
    top_k: int
    repetition_penalty: float = 1.0
    min_p: float = 0.0


class Told(NamedTuple):
    """Tokens of a text, and their log-probs in nats, which are not always numbers."""

    tokens: list[int]
    logps: list[float]


Scored = tuple[list[float], bool]
"""Log-probs of an answer's tokens in nats, and whether all are the greedy ones."""


class Inside:
    """vLLM in this process."""

    def __init__(self, progress: Callable[[], None]) -> None:
        self._progress = progress
        self._llm: Any = None
        self._tokenizers: dict[str, Any] = {}
        self._n_asked = 0
        self._remote_code = False

    def open(self, settings: dict[str, Any]) -> dict[str, Any]:
        """Starts vLLM with these arguments of `vllm.LLM`; returns what became of them.

        One that is there already goes first: beside it, the new one would not work.
        """
        import vllm

        self._progress()
        self._llm = None
        self._tokenizers.clear()
        gc.collect()
        self._remote_code = bool(settings["trust_remote_code"])
        self._llm = vllm.LLM(
            **settings,
            skip_tokenizer_init=True,
            generation_config="vllm",
            use_tqdm_on_load=False,
            disable_log_stats=True,
            worker_extension_cls="prefbench.engines.vllm_swap.Swap",
        )
        config = self._llm.llm_engine.vllm_config
        return {
            "version": vllm.__version__,
            "max_model_len": config.model_config.max_model_len,
            "device": str(config.device_config.device_type),
            "n_kv_tokens": (config.cache_config.num_gpu_blocks or 0)
            * config.cache_config.block_size,
        }

    def load(self, path: str) -> None:
        """Takes another checkpoint's weights; not all is done before `repack` and `forget`."""
        self._llm.collective_rpc("load_checkpoint", args=(path,))
        self._tokenizers.clear()

    def repack(self) -> None:
        """Makes anew what vLLM derives from weights once, when it starts."""
        self._llm.collective_rpc("repack_heads")

    def forget(self) -> None:
        """Forgets what the old weights computed.

        Raises:
            RuntimeError: vLLM keeps keys and values of theirs.
        """
        if not self._llm.reset_prefix_cache():
            raise RuntimeError("vLLM would not empty its prefix cache")

    def generate(self, asks: Sequence[Ask], manner: Manner) -> list[Told]:
        """A text each, up to the token at which it has ended."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        def sampling(ask: Ask) -> Any:
            return SamplingParams(
                temperature=manner.temperature,
                top_p=manner.top_p,
                top_k=manner.top_k,
                repetition_penalty=manner.repetition_penalty,
                min_p=manner.min_p,
                seed=ask.seed if manner.temperature > 0 else None,
                max_tokens=manner.n_tokens,
                stop_token_ids=sorted(ask.end_ids),
                ignore_eos=True,
                logprobs=0,
                detokenize=False,
                output_kind=RequestOutputKind.DELTA,
            )

        told = [Told([], []) for _ in asks]
        stops = {ask.tokenizer: self._stops(ask.tokenizer, manner.until) for ask in asks}

        def on_outputs(outputs: dict[int, Any]) -> list[int]:
            by_tokenizer: dict[str, list[int]] = {}
            for i, whole in outputs.items():
                output = whole.outputs[0]
                tokens = list(output.token_ids)
                told[i].tokens.extend(tokens)
                told[i].logps.extend(
                    one[token].logprob for token, one in zip(tokens, output.logprobs, strict=True)
                )
                if output.finish_reason is None:
                    by_tokenizer.setdefault(asks[i].tokenizer, []).append(i)
            return [
                i
                for name, several in by_tokenizer.items()
                for i, met in zip(
                    several, stops[name].are_met([told[i].tokens for i in several]), strict=True
                )
                if met or math.isnan(told[i].logps[-1])
            ]

        self._run([(ask.prompt, sampling(ask), ask.adapter) for ask in asks], on_outputs)
        return told

    def score(
        self, requests: Sequence[tuple[Sequence[int], Sequence[int], Adapter | None]]
    ) -> list[Scored]:
        """Log-probs of each token of a continuation behind its context, and whether it is greedy.

        The last token is asked for as the next one, since vLLM wants room for it. Of a prompt whose
        start is in the prefix cache vLLM gives no log-probs but leaves what was in memory, so that
        an answer counts only if all of it lies behind the cached part; the others run without.
        """
        results: list[Scored | None] = [None] * len(requests)
        for cached in (True, False):
            todo = [i for i, one in enumerate(results) if one is None]
            outputs = self._score([requests[i] for i in todo], cached=cached)
            for i, output in zip(todo, outputs, strict=True):
                context, continuation, _ = requests[i]
                n_cached = output.num_cached_tokens or 0
                if len(continuation) == 1 or n_cached < len(context):
                    results[i] = _read(output, len(context), continuation)
        assert all(one is not None for one in results)
        return [one for one in results if one is not None]

    def _score(self, requests: Sequence[Any], *, cached: bool) -> list[Any]:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        asks = [
            (
                [*context, *continuation[:-1]],
                SamplingParams(
                    max_tokens=1,
                    temperature=0,
                    logprob_token_ids=[continuation[-1]],
                    prompt_logprobs=0 if len(continuation) > 1 else None,
                    skip_reading_prefix_cache=not cached,
                    detokenize=False,
                    ignore_eos=True,
                    output_kind=RequestOutputKind.FINAL_ONLY,
                ),
                adapter,
            )
            for context, continuation, adapter in requests
        ]
        found: dict[int, Any] = {}

        def keep(outputs: dict[int, Any]) -> list[int]:
            found.update(outputs)
            return []

        self._run(asks, keep)
        return [found[i] for i in range(len(asks))]

    def _run(
        self,
        asks: Sequence[tuple[Sequence[int], Any, Adapter | None]],
        on_outputs: Callable[[dict[int, Any]], list[int]],
    ) -> None:
        """Runs requests to their end, those with a common start after each other.

        Args:
            asks: prompts, how each is asked, and by which adapter.
            on_outputs: given what each request has new, names those that have ended.

        vLLM's own `generate` would do, but for stopping texts by the current checkpoint's tokenizer
        and for telling that it is alive.
        """
        from vllm.lora.request import LoRARequest

        engine = self._llm.llm_engine
        index: dict[str, int] = {}
        try:
            for i in sorted(range(len(asks)), key=lambda i: list(asks[i][0])):
                prompt, sampling, adapter = asks[i]
                self._n_asked += 1
                index[str(self._n_asked)] = i
                engine.add_request(
                    str(self._n_asked),
                    {"prompt_token_ids": list(prompt)},
                    sampling,
                    lora_request=LoRARequest(*adapter) if adapter else None,
                )
            names = {i: name for name, i in index.items()}
            while engine.has_unfinished_requests():
                outputs = {index[one.request_id]: one for one in engine.step()}
                self._progress()
                if ended := on_outputs(outputs):
                    engine.abort_request([names[i] for i in ended])
        except BaseException:
            engine.abort_request(list(index))  # else the next run would wait for them
            raise

    def _stops(self, folder: str, until: Sequence[str]) -> Any:
        from transformers import AutoTokenizer

        from prefbench.engines.generation import StopStrings

        if folder not in self._tokenizers:
            self._tokenizers[folder] = AutoTokenizer.from_pretrained(
                folder, trust_remote_code=self._remote_code
            )
        return StopStrings(self._tokenizers[folder], until)

    def stop(self) -> None:
        """Ends the processes that vLLM has started."""
        if self._llm is not None:
            self._llm.llm_engine.engine_core.shutdown()


def _read(output: Any, n_context: int, continuation: Sequence[int]) -> Scored:
    (chosen,), (last,) = output.outputs[0].token_ids, output.outputs[0].logprobs
    logps, greedy = [last[continuation[-1]].logprob], [chosen == continuation[-1]]
    if len(continuation) > 1:
        behind = output.prompt_logprobs[n_context:]
        for token, one in zip(continuation[:-1], behind, strict=True):
            logps.append(one[token].logprob)
            greedy.append(one[token].rank == 1)
    return [*logps[1:], logps[0]], all(greedy)


def main() -> None:
    from prefbench.engines.child import progress, serve

    inside = Inside(progress())
    serve(
        {
            "open": inside.open,
            "load": inside.load,
            "repack": inside.repack,
            "forget": inside.forget,
            "generate": inside.generate,
            "score": inside.score,
            "stop": inside.stop,
        }
    )
