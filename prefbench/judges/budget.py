"""What judging may cost: limits that are asked before every call and never passed."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Any, NamedTuple, TypeGuard

from prefbench.errors import InputError
from prefbench.judges.judge import Ask
from prefbench.judges.prompts import draw_delimiter, render
from prefbench.judges.recipe import JudgeRecipe, Price

BYTES_A_TOKEN = 4
"""Of English, about; no tokenizer has tokens of less than one byte."""
ALLOWANCE = 256
"""Tokens that a chat template may add to any conversation, most of all a system turn of its own."""
ALLOWANCE_A_MESSAGE = 16


class Bound(NamedTuple):
    """Tokens that a call takes and gives, at most."""

    n_in: int
    n_out: int


class Paid(NamedTuple):
    """What a request cost when it was answered, and how often it was sent."""

    n_in: int
    n_out: int
    cost: float
    n_tries: int


class Estimate(NamedTuple):
    """What asking would take: tokens and dollars as is likely for the prompts, and at most."""

    calls: int
    n_in: int
    n_out_most: int
    cost: float
    cost_most: float


class Budget:
    """Limits on what judging costs, in all and from any number of threads.

    Before a try its upper bound is set aside. An answer costs what the server says, or the bound
    where it says nothing that can be; a try that may have been charged without an answer stays set
    aside. So the limits hold for any server that keeps to `max_tokens` and whose chat template adds
    no more than the allowance.
    """

    def __init__(self, *, max_cost: float | None = None, max_calls: int | None = None) -> None:
        """Nothing is spent yet.

        Args:
            max_cost: in US dollars.
            max_calls: tries that are not turned away; those without an answer count too.

        Raises:
            InputError: a limit is below 0 or no number.
        """
        for name, limit in (("max_cost", max_cost), ("max_calls", max_calls)):
            if limit is not None and not (math.isfinite(limit) and limit >= 0):
                raise InputError(f"{name} is 0 or more, not {limit}")
        self.max_cost = max_cost
        self.max_calls = max_calls
        self._most = None if max_cost is None else _exact(max_cost)
        self._spent = self._reserved = Fraction(0)
        self._n_calls = self._n_answered = 0
        self._n_in = self._n_out = 0
        self._n_beyond = 0
        self._has_refused = False
        self._lock = threading.Lock()

    @property
    def has_refused(self) -> bool:
        """Whether a call was turned away because it could have passed a limit."""
        with self._lock:
            return self._has_refused

    @property
    def facts(self) -> Mapping[str, Any]:
        """For the manifest: limits, and what was spent, or may have been without an answer."""
        with self._lock:
            return {
                "max_cost": self.max_cost,
                "max_calls": self.max_calls,
                "calls": self._n_calls,
                "unanswered": self._n_calls - self._n_answered,
                "n_in": self._n_in,
                "n_out": self._n_out,
                "spent": float(self._spent),
                "reserved": float(self._reserved),
                "beyond_bound": self._n_beyond,
            }

    def tab(self, price: Price) -> Tab:
        """An account for requests of one price."""
        return Tab(self, price)

    # --- for tabs

    def take(self, cost: Fraction) -> str | None:
        """Sets a bound aside, or says why the limits do not allow it."""
        with self._lock:
            if self.max_calls is not None and self._n_calls >= self.max_calls:
                self._has_refused = True
                return f"not asked: the limit of {self.max_calls} calls is reached"
            if self._most is not None and self._spent + self._reserved + cost > self._most:
                digits = 2 if self._most >= 1 else 4
                spent = f"spent ${float(self._spent):.{digits}f}"
                if self._reserved:
                    spent += f", and up to ${float(self._reserved):.{digits}f} without an answer"
                self._has_refused = True
                return (
                    "not asked: the next call could pass the limit of "
                    f"${float(self._most):.{digits}f} ({spent})"
                )
            self._reserved += cost
            self._n_calls += 1
            return None

    def give_back(self, cost: Fraction) -> None:
        with self._lock:
            self._reserved -= cost
            self._n_calls -= 1

    def settle(self, reserved: Fraction, cost: Fraction, n_in: int, n_out: int) -> None:
        with self._lock:
            self._reserved -= reserved
            self._spent += cost
            self._n_answered += 1
            self._n_in += n_in
            self._n_out += n_out
            self._n_beyond += cost > reserved


class Tab:
    """What the requests of one call to a client cost: the gate that the client asks."""

    def __init__(self, budget: Budget, price: Price) -> None:
        self._budget = budget
        self._price = _exact(price.input) / 10**6, _exact(price.output) / 10**6
        self._bounds: dict[int, Bound] = {}
        self._tries: dict[int, int] = {}
        self._paid: dict[int, Paid] = {}

    def expect(self, index: int, body: Mapping[str, Any]) -> None:
        """Says what will be sent, before the client is given it."""
        self._bounds[index] = bound_of(body)

    def take(self, index: int) -> str | None:
        reason = self._budget.take(self._cost(self._bounds[index]))
        if reason is None:
            self._tries[index] = self._tries.get(index, 0) + 1
        return reason

    def give_back(self, index: int) -> None:
        self._budget.give_back(self._cost(self._bounds[index]))

    def settle(self, index: int, answer: Mapping[str, Any]) -> None:
        bound = self._bounds[index]
        used = used_by(answer, bound)
        cost = self._cost(used)
        self._budget.settle(self._cost(bound), cost, *used)
        self._paid[index] = Paid(*used, float(cost), self._tries[index])

    def close(self, index: int) -> Paid:
        """What a request cost that has ended; nothing where it has no answer."""
        del self._bounds[index]
        n_tries = self._tries.pop(index, 0)
        return self._paid.pop(index, Paid(0, 0, 0.0, n_tries))

    def _cost(self, used: Bound) -> Fraction:
        a_token_in, a_token_out = self._price
        return used.n_in * a_token_in + used.n_out * a_token_out


def bound_of(body: Mapping[str, Any]) -> Bound:
    """Tokens of a chat completion, at most: as many as the request has bytes, and some more."""
    shown = [body["messages"], body.get("response_format")]
    n_bytes = len(json.dumps(shown, ensure_ascii=False).encode(errors="surrogatepass"))
    n_in = n_bytes + ALLOWANCE + ALLOWANCE_A_MESSAGE * len(body["messages"])
    return Bound(n_in, int(body.get("max_completion_tokens") or body["max_tokens"]))


def used_by(answer: Mapping[str, Any], bound: Bound) -> Bound:
    """The tokens that a server says it counted; the bound for what it does not say or cannot be."""
    usage = answer.get("usage")
    said = usage if isinstance(usage, Mapping) else {}
    n_in, n_out = said.get("prompt_tokens"), said.get("completion_tokens")
    total = said.get("total_tokens")
    if not _is_count(n_in) or n_in == 0:  # no prompt has no tokens
        return Bound(bound.n_in, n_out if _is_count(n_out) else bound.n_out)
    if not _is_count(n_out):
        return Bound(n_in, bound.n_out)
    # Some count the tokens of thinking in the sum alone.
    return Bound(n_in, max(n_out, total - n_in) if _is_count(total) else n_out)


def n_out_most(recipe: JudgeRecipe) -> int:
    """Tokens that a judge may reply: one where only the first is looked at and no limit is said."""
    reads_first = recipe.verdict is not None and recipe.verdict.by == "logprobs"
    if reads_first and "max_tokens" not in recipe.sampling.model_fields_set:
        return 1
    return recipe.sampling.max_tokens


def estimate(recipe: JudgeRecipe, asks: Iterable[Ask]) -> Estimate:
    """What it would take to ask a judge that has a prompt, without asking it.

    Raises:
        JudgeError: its prompt cannot be filled.
    """
    schema = recipe.verdict.schema_ if recipe.verdict else None
    calls = n_bytes = n_in_most = 0
    for ask in asks:
        messages = render(recipe, ask, delimiter=draw_delimiter())
        calls += 1
        n_bytes += sum(len(m["content"].encode(errors="surrogatepass")) for m in messages)
        body = {"messages": messages, "response_format": schema, "max_tokens": n_out_most(recipe)}
        n_in_most += bound_of(body).n_in
    n_in, n_out = math.ceil(n_bytes / BYTES_A_TOKEN), calls * n_out_most(recipe)
    price_in, price_out = recipe.price.input / 1e6, recipe.price.output / 1e6
    return Estimate(
        calls,
        n_in,
        n_out,
        n_in * price_in + n_out * price_out,
        n_in_most * price_in + n_out * price_out,
    )


def _exact(dollars: float) -> Fraction:
    """The decimal number as it is written: three times 0.1 is then 0.3 and not more."""
    return Fraction(str(dollars))


def _is_count(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
