"""Judges behind an OpenAI-compatible server: what one is asked, and what its answers say."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from prefbench.client import WORTHLESS, Client, Endpoint, Failure, Outcome
from prefbench.errors import InputError, JudgeError
from prefbench.judges.budget import Bound, Budget, Paid, n_out_most, used_by
from prefbench.judges.judge import Ask, Judge, Unheard, Verdict
from prefbench.judges.prompts import draw_delimiter, render
from prefbench.judges.reading import read
from prefbench.judges.recipe import JudgeRecipe

PATH = "/chat/completions"
N_CANDIDATES = 20
"""First tokens whose log-probs are asked for: as many as the API gives."""
BY_ITSELF = frozenset({None, "stop", "end_turn", "eos", "eos_token", "stop_sequence"})
"""What servers say of replies that ended by themselves; some say nothing."""
AT_THE_LIMIT = frozenset({"length", "max_tokens", "model_length"})

UNSUPPORTED = re.compile(
    r"unsupported|not support|unknown|unrecogni[sz]ed|unexpected|not permitted|not allowed"
    r"|not available|extra inputs",
    re.IGNORECASE,
)
RENAMED = "max_completion_tokens"
"""What newer models of OpenAI want instead of max_tokens, and mean the same by."""
RENAMES = re.compile(r"https://([\w-]+\.)*(openai\.com|openai\.azure\.com)(:\d+)?(/|$)", re.I)
"""Where all models take the new name. Elsewhere it may be overlooked, and the reply has no end."""
LEFT_OUT = {
    "temperature": "`sampling: {temperature: 1}`; the model then draws its replies",
    "top_p": "`sampling: {top_p: 1}`",
    "seed": "`sampling: {seed: null}`",
    "reasoning_effort": "no `sampling.reasoning`, or one that it knows",
    "response_format": "no `verdict.schema`",
    "json_schema": "no `verdict.schema`",
    "logprobs": "`verdict: {by: line}` or json; this model says no log-probs",
    "top_logprobs": "`verdict: {by: line}` or json; this model says no log-probs",
}
"""What the YAML can say where a server takes a parameter not at all, or not with this value."""


class ChatJudge(Judge):
    """A judge that is asked by chat completions."""

    def __init__(
        self, recipe: JudgeRecipe, *, budget: Budget, endpoint: Endpoint | None = None
    ) -> None:
        """Asks nothing yet.

        Args:
            recipe: of kind openai.
            budget: what may be spent.
            endpoint: where and how patiently to ask, if not as the recipe says.

        Raises:
            JudgeError: the endpoint's URL is none or its key is not set; or dollars are limited
                and the recipe does not say what a call costs.
        """
        assert recipe.endpoint is not None
        assert recipe.verdict is not None
        if recipe.verdict.by == "score":
            raise JudgeError(f"judge {recipe.judge}: verdict.by: only reward models give a score")
        said = recipe.endpoint
        self.endpoint = endpoint or Endpoint(
            said.base_url, said.api_key_env, concurrency=said.concurrency, timeout=said.timeout
        )
        if (
            budget.max_cost is not None
            and said.api_key_env
            and "price" not in recipe.model_fields_set
        ):
            raise JudgeError(
                f"judge {recipe.judge}: no limit in dollars can hold without its price; write "
                "`price: {input: ..., output: ...}`, in dollars per million tokens; 0 if it is free"
            )
        asked = said.model_copy(update={"base_url": self.endpoint.base_url})
        self.recipe = recipe.model_copy(update={"endpoint": asked})
        self.key = self.recipe.key
        self._budget = budget
        self._adapted: frozenset[str] = frozenset()
        try:
            self._client = Client(self.endpoint)
        except InputError as error:
            raise JudgeError(f"judge {recipe.judge}: endpoint: {error}") from error

    def __repr__(self) -> str:
        return f"ChatJudge({self.recipe.judge!r}, {self.endpoint.base_url!r})"

    def close(self) -> None:
        self._client.close()

    def decide(self, asks: Sequence[Ask]) -> Iterator[tuple[int, Verdict | Unheard]]:
        """As they come. What a server refuses for a parameter that can be renamed is asked again.

        Raises:
            JudgeError: the key, the URL or a parameter is wrong, so that no ask has an answer.
        """
        rest: Sequence[int] = range(len(asks))
        while rest:
            again: list[int] = []
            yield from self._round(asks, rest, again)
            rest = again

    def _round(
        self, asks: Sequence[Ask], indices: Sequence[int], again: list[int]
    ) -> Generator[tuple[int, Verdict | Unheard]]:
        tab = self._budget.tab(self.recipe.price)
        sent: list[tuple[int, frozenset[str]]] = []
        unmade: list[tuple[int, Unheard]] = []
        fatal: JudgeError | None = None

        def bodies() -> Iterator[dict[str, Any]]:
            for index in indices:
                if fatal:
                    return
                adapted = self._adapted
                try:
                    body = adapt(body_of(self.recipe, asks[index], draw_delimiter()), adapted)
                except JudgeError as error:
                    unmade.append((index, Unheard(str(error))))
                    continue
                tab.expect(len(sent), body)
                sent.append((index, adapted))
                yield body

        with contextlib.closing(self._client.post_each(PATH, bodies(), gate=tab)) as outcomes:
            for n, outcome in outcomes:
                index, adapted = sent[n]
                paid = tab.close(n)
                try:
                    if isinstance(outcome, Failure) and (
                        more := self._adaptation(outcome, adapted)
                    ):
                        self._adapted |= {more}
                        again.append(index)
                        continue
                except JudgeError as error:
                    fatal = fatal or error  # what is under way was paid for and is still read
                    continue
                yield index, self._verdict(outcome, paid, adapted)
        if fatal is None and unmade and not sent:
            fatal = JudgeError(unmade[0][1].reason)
        if fatal:
            raise fatal
        yield from unmade

    def _adaptation(self, failure: Failure, adapted: frozenset[str]) -> str | None:
        """What a request has to change to be taken, if nothing of its meaning.

        Raises:
            JudgeError: no request of this judge is taken.
        """
        if failure.status in WORTHLESS:
            raise JudgeError(f"judge {self.recipe.judge}: {failure.message}")
        parameter = refused_parameter(failure)
        if parameter is None or parameter in adapted:
            return None
        sampling = self.recipe.sampling
        as_if_unsaid = parameter in ("temperature", "top_p") and getattr(sampling, parameter) == 1
        if parameter == "max_tokens" or as_if_unsaid:
            return parameter
        raise JudgeError(
            f"judge {self.recipe.judge}: {failure.message}; its YAML needs {LEFT_OUT[parameter]}"
        )

    def _verdict(self, outcome: Outcome, paid: Paid, adapted: frozenset[str]) -> Verdict | Unheard:
        if isinstance(outcome, Failure):
            return Unheard(outcome.message)
        verdict = verdict_of(self.recipe, outcome)
        if isinstance(verdict, Unheard):
            return verdict
        facts = {**verdict.facts, "n_tries": paid.n_tries}
        if adapted:
            facts["adapted"] = sorted(
                f"{RENAMED} for {one}" if one == "max_tokens" else f"without {one}"
                for one in adapted
            )
        return replace(verdict, n_in=paid.n_in, n_out=paid.n_out, cost=paid.cost, facts=facts)


def body_of(recipe: JudgeRecipe, ask: Ask, delimiter: str) -> dict[str, Any]:
    """The request that puts an ask to a judge.

    Raises:
        JudgeError: its prompt cannot be filled.
    """
    assert recipe.verdict is not None
    sampling, reading = recipe.sampling, recipe.verdict
    body: dict[str, Any] = {
        "model": recipe.model,
        "messages": render(recipe, ask, delimiter=delimiter),
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        (RENAMED if _renames(recipe) else "max_tokens"): n_out_most(recipe),
    }
    if sampling.seed is not None:
        body["seed"] = sampling.seed
    if sampling.reasoning is not None:
        body["reasoning_effort"] = sampling.reasoning
    if reading.by == "logprobs":
        body |= {"logprobs": True, "top_logprobs": N_CANDIDATES}
    if reading.by == "json" and reading.schema_ is not None:
        schema = {"name": "verdict", "strict": True, "schema": dict(reading.schema_)}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    return body


def adapt(body: Mapping[str, Any], parameters: frozenset[str]) -> dict[str, Any]:
    """A request without parameters that a server does not take, and with what it takes instead."""
    changed = {name: value for name, value in body.items() if name not in parameters}
    if "max_tokens" in parameters and "max_tokens" in body:
        changed[RENAMED] = body["max_tokens"]
    return changed


def _renames(recipe: JudgeRecipe) -> bool:
    return recipe.endpoint is not None and bool(RENAMES.match(recipe.endpoint.base_url))


def refused_parameter(failure: Failure) -> str | None:
    """The parameter that a server says it does not take."""
    if failure.status not in (400, 422) or not UNSUPPORTED.search(failure.message):
        return None
    words = set(re.findall(r"\w+", failure.message))
    if RENAMED in words:
        return "max_tokens"
    return next((name for name in LEFT_OUT if name in words), None)


def verdict_of(recipe: JudgeRecipe, answer: Mapping[str, Any]) -> Verdict | Unheard:
    """What a chat completion says; tokens and cost as far as the server counts them."""
    assert recipe.verdict is not None
    choices = answer.get("choices")
    if not isinstance(choices, list) or not choices:
        said = json.dumps(answer.get("error") or "", ensure_ascii=False)
        return Unheard(f"the server answered without a reply: {said[:200]}")
    n_in, n_out = used_by(answer, Bound(0, 0))
    price = recipe.price
    raw = Verdict(
        None,
        reply=json.dumps(choices, ensure_ascii=False),
        n_in=n_in,
        n_out=n_out,
        cost=(n_in * price.input + n_out * price.output) / 1e6,
        facts={
            name: answer[name]
            for name in ("model", "system_fingerprint")
            if isinstance(answer.get(name), str)
        },
    )
    if len(choices) > 1:
        return replace(raw, reason="several replies where one was asked for")
    choice = choices[0] if isinstance(choices[0], dict) else {}
    message = choice.get("message")
    if not isinstance(message, dict):
        return replace(raw, reason="the reply is no message")
    content = message.get("content")
    if not isinstance(content, str | None):
        return replace(raw, reason="the reply is no text")
    finish = choice.get("finish_reason")
    reasoning = message.get("reasoning_content") or message.get("reasoning")
    facts = {**raw.facts, "finish_reason": finish, "reasoning": reasoning}
    refusal = message.get("refusal")
    whole = replace(
        raw,
        reply=content or (refusal if isinstance(refusal, str) else ""),
        facts={name: value for name, value in facts.items() if value is not None},
    )
    if refusal:
        return replace(whole, reason="the judge refused")
    if finish == "content_filter":
        return replace(whole, reason="stopped by the server's content filter")
    if finish not in BY_ITSELF | AT_THE_LIMIT and content:
        return replace(whole, reason=f"the server ended the reply: {str(finish)[:40]!r}")
    found = read(
        recipe.verdict,
        content or "",
        finished=finish not in AT_THE_LIMIT,
        logprobs=_first_token(choice),
    )
    return replace(
        whole,
        preference=found.preference,
        reason=found.reason,
        facts={**whole.facts, **found.facts},
    )


def _first_token(choice: Mapping[str, Any]) -> dict[str, float] | None:
    """Log-probs of the candidates for the first token, in nats; None where none are given."""
    logprobs = choice.get("logprobs")
    tokens = logprobs.get("content") if isinstance(logprobs, dict) else None
    if not isinstance(tokens, list) or not tokens or not isinstance(tokens[0], dict):
        return None
    top = tokens[0].get("top_logprobs")
    found: dict[str, float] = {}
    for one in [*(top if isinstance(top, list) else []), tokens[0]]:
        token, logprob = (one.get("token"), one.get("logprob")) if isinstance(one, dict) else (0, 0)
        if isinstance(token, str) and isinstance(logprob, int | float):
            found.setdefault(token, float(logprob))
    return found
