"""The server engine: a checkpoint behind an OpenAI-compatible endpoint, e.g. `vllm serve`."""

from __future__ import annotations

import itertools
import math
import sys
from array import array
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

from lm_eval.models.utils import postprocess_generated_text

from prefbench.client import Client, Endpoint, Failure
from prefbench.engines import SERVER_DTYPE, Engines
from prefbench.engines.base import EngineSettings, Generation, Logp, Sampling, TokenRequest
from prefbench.engines.served import max_model_len, served_name
from prefbench.engines.texts import TextEngine
from prefbench.errors import EngineError, InputError
from prefbench.records import Checkpoint

PATHS = {"completions": "/completions", "chat": "/chat/completions"}
MOST_STOPS = 4
"""Stop strings that the API takes; the others are looked for in what comes back."""
NO_LOGPS = "nothing can be scored through a server without log-probs of prompts; use --engine hf"

NOT_NUMBERS = "not JSON compliant"
"""In vLLM's refusal where log-probs are not numbers; asked for none, it would say "!!!!"."""
LOWEST = -9999.0
"""What vLLM says for minus infinity."""

_in_order = itertools.count(1)


class ServerEngine(TextEngine):
    """A served checkpoint: its directory gives the tokenizer and the identity, the server answers.

    Where the server gives the ids that it generated, texts are exactly those of the embedded
    engine. Where it gives only text, text and token counts are the server's own.
    """

    kind = "server"

    def __init__(self, checkpoint: Checkpoint, settings: EngineSettings, client: Client) -> None:
        """Finds the checkpoint among what is served.

        Raises:
            EngineError: the directory cannot be read, the server cannot be reached, or it is not
                clear which of its models this is.
        """
        assert settings.server is not None
        try:
            super().__init__(checkpoint, settings)
        except (OSError, ValueError, ImportError, KeyError, AttributeError) as error:
            raise EngineError(f"{checkpoint.path}: cannot be loaded: {error}") from error
        self._client = client
        self._is_chat = settings.server.api == "chat"
        self._path = PATHS[settings.server.api]
        self._device = settings.server.base_url  # where it computes, as the manifest says it
        # All that is asked at once waits for its slowest: more than are under way.
        self.batch_size = 4 * settings.server.concurrency
        self._number = next(_in_order)
        self._texts: dict[bytes, str] = {}
        self._conversations: dict[str, list[dict[str, str]]] = {}
        self._has_answered = False
        self._refusals: list[str] = []
        cards = self._cards(settings.server.model)
        self._model = served_name(cards, checkpoint, settings.server)
        self._longest = max_model_len(cards, self._model)

    @property
    def notes(self) -> Sequence[str]:
        found = [f"served as {self._model!r} in the server's number format, asked by {self._path}"]
        if not self.__dict__.get("_gives_ids", True):
            found.append("the server gives no token ids: texts and token counts are its own")
        if self._refusals:
            found.append(f"refused by the server: {len(self._refusals)}, e.g. {self._refusals[0]}")
        return found

    @property
    def facts(self) -> Mapping[str, Any]:
        gives_ids = self.__dict__.get("_gives_ids")  # None where nothing was generated
        asked = {"url": self._device, "path": self._path, "model": self._model}
        told = {"max_model_len": self._longest, "gives_ids": gives_ids}
        return {"dtype": SERVER_DTYPE, "server": {**asked, **told}}

    @property
    def max_length(self) -> int:
        """As for the embedded engine, or less where the server takes less."""
        return min(super().max_length, self._longest or sys.maxsize)

    # --- what a server is asked

    def _cards(self, model: str | None) -> list[dict[str, Any]]:
        listed = self._client.get("/models")
        if isinstance(listed, Failure):
            if model and listed.status in (404, 405):  # a server need not list what it has
                return []
            raise self._error(listed.message)
        cards = listed.get("data")
        return [card for card in cards if "id" in card] if isinstance(cards, list) else []

    def _error(self, message: str) -> EngineError:
        return EngineError(f"{self.checkpoint.path}: {message}")

    def _ask(self, bodies: Sequence[Mapping[str, Any]]) -> list[dict[str, Any] | None]:
        """Whole answers, in order; None where there is none but the server has given others.

        Raises:
            EngineError: the server failed, or refuses everything.
        """
        outcomes = self._client.post(self._path, bodies)
        failures = [one for one in outcomes if isinstance(one, Failure)]
        fatal = next((one for one in failures if not one.refused), None)
        refused = [one for one in failures if NOT_NUMBERS not in one.message]
        if refused and len(refused) == len(outcomes) and not self._has_answered:
            fatal = fatal or refused[0]
        if fatal:
            raise self._error(fatal.message)
        self._has_answered = self._has_answered or len(refused) < len(outcomes)
        self._refusals += [one.message for one in refused]
        return [None if isinstance(one, Failure) else one for one in outcomes]

    def _choice(self, answer: Mapping[str, Any]) -> dict[str, Any]:
        choices = answer.get("choices")
        if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
            raise self._error(f"{self._path}: the server answers without choices; is it OpenAI's?")
        return dict(choices[0])

    @cached_property
    def _gives_ids(self) -> bool:
        """Whether the server says which ids it generated; asked once, with one token.

        Raises:
            EngineError: it takes no ids, or reads others than it was sent.
        """
        sent = [self.prefix_token_id]
        body = {"model": self._model, "max_tokens": 1, "temperature": 0}
        if self._is_chat:
            body["messages"] = [{"role": "user", "content": "a"}]
        else:
            body["prompt"] = sent
        with_ids, without = self._client.post(
            self._path, [{**body, "return_token_ids": True}, body]
        )
        if isinstance(with_ids, Failure) and isinstance(without, Failure):
            advice = "" if self._is_chat else "; --server-api chat needs no token ids of it"
            raise self._error(f"{without.message}{advice if without.refused else ''}")
        if not isinstance(with_ids, Failure):
            choice = self._choice(with_ids)
            if _are_ids(choice.get("token_ids")):
                read = choice.get("prompt_token_ids")
                if not self._is_chat and read is not None and read != sent:
                    raise self._error(f"the server reads the ids {read} where it was sent {sent}")
                return True
        return False

    # --- log-probs

    def check(self, request: TokenRequest) -> str | None:
        if reason := super().check(request):
            return reason
        n = min(len(request.context) + len(request.continuation), self.max_length + 1)
        # No engine reads a text's last token, but the API wants room for it, and for one behind.
        if self._longest and n >= self._longest:
            return (
                f"context and answer are {n} tokens, the server scores at most {self._longest - 1} "
                f"at once; with a max_length of {self._longest - 2} they are cut to that"
            )
        return None

    def score(self, requests: Sequence[TokenRequest], *, details: bool = False) -> list[Logp]:
        for request in requests:
            if reason := self.check(request):
                raise self._error(reason)
        if not requests or not self._scores:
            return []
        rows, cuts = [], []
        for request in requests:
            ids = [*map(int, request.context), *map(int, request.continuation)]
            cuts.append(max(0, len(ids) - self.max_length - 1))
            rows.append(ids[cuts[-1] :])
        answers = self._ask([self._scoring(ids) for ids in rows])
        return [
            Logp(math.fsum(logps), greedy, n_cut, tuple(logps) if details else ())
            for answer, ids, request, n_cut in zip(answers, rows, requests, cuts, strict=True)
            for logps, greedy in [self._read_logps(answer, ids, len(request.continuation))]
        ]

    def _scoring(self, ids: Sequence[int]) -> dict[str, Any]:
        return {
            "model": self._model,
            "prompt": list(ids),
            "max_tokens": 0,
            "temperature": 0,
            "echo": True,
            "logprobs": 1,
            **({"return_tokens_as_token_ids": True} if self._gives_ids else {}),
        }

    @cached_property
    def _scores(self) -> bool:
        """Whether the server gives log-probs of prompts; tried once.

        Raises:
            EngineError: it does not.
        """
        why = "the chat API has none"
        if not self._is_chat:
            ids = [self.prefix_token_id] * 2
            answer = self._client.post(self._path, [self._scoring(ids)])[0]
            if not isinstance(answer, Failure):
                self._read_logps(answer, ids, 1)
                return True
            if NOT_NUMBERS in answer.message:  # it does, and each will be missing
                return True
            if not answer.refused:
                raise self._error(answer.message)
            why = answer.message
        raise self._error(f"{NO_LOGPS} ({why})")

    def _read_logps(
        self, answer: Mapping[str, Any] | None, ids: Sequence[int], n: int
    ) -> tuple[list[float], bool]:
        """The log-probs of the last n ids, and whether they are the greedy ones.

        Raises:
            EngineError: there are no log-probs, or they are those of other tokens.
        """
        if answer is None:
            return [math.nan] * n, False
        logprobs = self._choice(answer).get("logprobs") or {}
        given = logprobs.get("token_logprobs") or []
        best = logprobs.get("top_logprobs") or []
        if not given or not best or None in given[1:] or None in best[1:]:
            raise self._error(NO_LOGPS)
        tokens = logprobs.get("tokens") or []
        named = all(str(token).startswith("token_id:") for token in tokens)
        if len(given) != len(ids) or (named and tokens != [f"token_id:{i}" for i in ids]):
            raise self._error(
                f"{len(ids)} tokens were sent, and the server gives log-probs of {len(given)}, or "
                f"of others; {NO_LOGPS}"
            )
        # Both are of one softmax: a token is the greedy one if none is above it.
        greedy = all(
            one >= max(several.values()) for one, several in zip(given[-n:], best[-n:], strict=True)
        )
        logps = [one if one > LOWEST else -math.inf for one in given[-n:]]
        return logps, greedy

    # --- texts

    def decode(
        self,
        prompts: Sequence[Sequence[int]],
        until: Sequence[str],
        sampling: Sampling,
        seeds: Sequence[int],
    ) -> list[tuple[list[int], bool]]:
        bodies = [
            {"prompt": [int(i) for i in ids], **self._generating(until, sampling, seed)}
            for ids, seed in zip(prompts, seeds, strict=True)
        ]
        return [self._ids(answer) for answer in self._ask(bodies)]

    def generate(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, seeds: Sequence[int] = ()
    ) -> list[Generation]:
        """A text per prompt; in chat mode nothing is cut, the server refuses what is too long."""
        if self._gives_ids and not self._is_chat:
            return super().generate(prompts, sampling, seeds)
        rows, until = self.rows(prompts, sampling)
        seeds = seeds or range(sampling.seed, sampling.seed + len(rows))
        if self._is_chat:
            asked, cuts = [self._messages(prompt) for prompt in prompts], [0] * len(rows)
        else:
            asked = [{"prompt": [int(i) for i in row]} for row in rows]
            cuts = [
                max(0, len(prompt) - len(row)) for prompt, row in zip(prompts, rows, strict=True)
            ]
        bodies = [
            {**one, **self._generating(until, sampling, seed)}
            for one, seed in zip(asked, seeds, strict=True)
        ]
        return [
            self._read_text(answer, until)._replace(n_cut=n_cut)
            for answer, n_cut in zip(self._ask(bodies), cuts, strict=True)
        ]

    def _generating(self, until: Sequence[str], sampling: Sampling, seed: int) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self._model,
            "max_tokens": sampling.max_gen_toks,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "stop": [stop for stop in until if stop][:MOST_STOPS],
        }
        if sampling.temperature > 0:
            body["seed"] = seed
        if self._gives_ids:
            logprobs = {"logprobs": True, "top_logprobs": 0} if self._is_chat else {"logprobs": 0}
            return body | {
                **logprobs,  # as a sign of numbers
                "top_k": sampling.top_k,  # else the checkpoint's own generation settings count
                "stop_token_ids": sorted(self.end_ids),
                "skip_special_tokens": False,  # they may be stop strings
                "include_stop_str_in_output": True,
                "return_token_ids": True,
            }
        return body | ({"top_k": sampling.top_k} if sampling.top_k else {})

    def _ids(self, answer: Mapping[str, Any] | None) -> tuple[list[int], bool]:
        if answer is None:
            return [], False
        ids = self._choice(answer).get("token_ids")
        if ids is None or not _are_ids(ids):
            raise self._error("the server gave token ids at first and now gives none; run again")
        return list(ids), True

    def _read_text(self, answer: Mapping[str, Any] | None, until: list[str]) -> Generation:
        if self._gives_ids or answer is None:
            ids, finite = self._ids(answer)
            return self._generation(ids, until)._replace(finite=finite)
        choice = self._choice(answer)
        said = str((choice.get("message") or {}).get("content") or choice.get("text") or "")
        text = postprocess_generated_text(said, until, None)
        n_tokens = (answer.get("usage") or {}).get("completion_tokens")
        if text != said or not isinstance(n_tokens, int):
            n_tokens = len(self.tok_encode(text, add_special_tokens=False))
        reason = choice.get("finish_reason")
        finished = text != said or reason != "length"
        return Generation(text, n_tokens, finished, finite=reason != "content_filter")

    # --- chat: prompts arrive rendered and go out as messages

    @property
    def tokenizer_key(self) -> str:  # type: ignore[override]
        """In chat mode this engine's alone: it must have rendered what it sends as messages."""
        key = str(super().tokenizer_key)
        return f"{key}-{self._number}" if self._is_chat else key

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        rendered = super().apply_chat_template(chat_history, add_generation_prompt)
        if self._is_chat:
            self._conversations[rendered] = chat_history
        return rendered

    def encode(
        self, texts: Sequence[str], add_special_tokens: bool | None = None
    ) -> list[array[int]]:
        several = super().encode(texts, add_special_tokens)
        if self._is_chat:
            self._texts.update(
                (ids.tobytes(), text) for ids, text in zip(several, texts, strict=True)
            )
        return several

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **kwargs: Any
    ) -> list[int]:
        ids = super().tok_encode(string, add_special_tokens, **kwargs)
        if self._is_chat:
            self._texts[array("i", ids).tobytes()] = string
        return ids

    def _messages(self, prompt: Sequence[int]) -> dict[str, Any]:
        """The messages that a prompt was rendered from; any other text is said by the user."""
        prompt = [int(i) for i in prompt]
        text = self._texts.get(array("i", prompt).tobytes())
        if text is None:
            text = str(self.tokenizer.decode(list(prompt), skip_special_tokens=True))
        messages = self._conversations.get(text, [{"role": "user", "content": text}])
        if messages[-1]["role"] != "assistant":
            return {"messages": messages}
        if not self._gives_ids:
            raise self._error(
                "the prompt ends within a reply, which a chat server need not go on with; use "
                "--server-api completions"
            )
        return {
            "messages": messages,
            "add_generation_prompt": False,
            "continue_final_message": True,
        }


def _are_ids(ids: object) -> bool:
    return isinstance(ids, list) and all(isinstance(i, int) for i in ids)


@contextmanager
def open_server(
    checkpoint: Checkpoint, settings: EngineSettings, engines: Engines | None = None
) -> Iterator[ServerEngine]:
    """A served checkpoint, for the length of a `with`; the server itself stays as it is."""
    server = settings.server
    if server is None:
        raise InputError("--engine server needs a --base-url")
    if server.api not in PATHS:
        raise InputError(f"the server API is one of {', '.join(PATHS)}, not {server.api!r}")
    endpoint = Endpoint(
        server.base_url,
        server.api_key_env,
        concurrency=server.concurrency,
        timeout=server.timeout,
    )
    with Client(endpoint) as client:
        yield ServerEngine(checkpoint, settings, client)
