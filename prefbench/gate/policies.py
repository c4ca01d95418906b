"""A policy: what checkpoints must not lose, and by how much. Read from YAML, unknown keys refused.

baseline: sft                 # a row or a method; default: the one SFT
checkpoints: [dpo, "ipo/*"]   # rows, methods, patterns; default: every other ready row
confidence: 0.95
max_missing: 1%               # of the items, that one of two checkpoints may lack
rules:
  - {task: gsm8k_5shot, metric: "exact_match,strict-match", max_drop: 2}
  - {task: hh_helpful_pairs, metric: perplexity, max_rise: 5%}
  - {task: "*", metric: shown, max_drop: 1, max_rise: 5%}
  - {task: hh_helpful_winrate, metric: win_rate, require: better, by: 2}
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from prefbench import plain_yaml
from prefbench.errors import InputError

N_BYTES = 1 << 16
"""Most that a policy may take; one that a person wrote takes a hundredth."""


class Amount(NamedTuple):
    """How far a value may move: in the table's unit (points for shares), or relative."""

    size: float
    """A fraction of the baseline's value where relative, else in the table's unit."""
    relative: bool = False

    def __str__(self) -> str:
        return f"{100 * self.size:g}%" if self.relative else f"{self.size:g}"


def _amount(value: Any) -> Any:
    """A number, or text such as `5%`, as an Amount."""
    if isinstance(value, Amount):
        return value
    text = value.strip() if isinstance(value, str) else value
    relative = isinstance(text, str) and text.endswith("%")
    try:
        if isinstance(text, bool):
            raise ValueError
        size = float(text.removesuffix("%")) if isinstance(text, str) else float(text)
    except (OverflowError, TypeError, ValueError):
        raise ValueError(f"is a number or a percentage such as 5%, not {value!r:.40}") from None
    if not (math.isfinite(size) and size >= 0):
        raise ValueError(f"is a finite number from 0 on, not {value!r:.40}")
    return Amount(size / 100 if relative else size, relative)


def _limit(value: Any) -> Any:
    """An Amount above 0."""
    amount = _amount(value)
    if amount.size == 0:
        raise ValueError(
            "must be above 0: no number of items shows that nothing at all was lost; "
            "`require: better` asks for a gain"
        )
    return amount


def _share(value: Any) -> Any:
    if isinstance(value, str) and value.strip().endswith("%"):
        return _amount(value).size
    return value


Limit = Annotated[Amount, BeforeValidator(_limit)]
Text = Annotated[str, Field(min_length=1, strict=True)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


class Rule(_Strict):
    """What is asked of one metric, or of many.

    Attributes:
        task: a task's name, a column group's name as the table's notes give it, or a pattern (`*`).
        metric: a metric's name, with or without its version; `shown`: those that the task shows; or
            a pattern.
        max_drop: how far the value may fall below the baseline's. A number is in the table's unit,
            points for shares; `5%` is relative to the baseline's value.
        max_rise: how far it may rise above. A rule for many metrics takes max_drop for those of
            which more is better and max_rise for the others; a rule that names its metric takes
            what it says, both where it says both.
        require: no_worse, within those limits; or better.
        by: for `require: better`, by how much.
        higher_is_better: for `require: better`, where the metric has no direction or another.
        judge: only win rates by this judge.
        opponent: only win rates against this opponent.
    """

    task: Text
    metric: Text = "shown"
    max_drop: Limit | None = None
    max_rise: Limit | None = None
    require: Literal["no_worse", "better"] = "no_worse"
    by: Annotated[Amount, BeforeValidator(_amount)] = Amount(0.0)
    higher_is_better: Annotated[bool, Field(strict=True)] | None = None
    judge: Text | None = None
    opponent: Text | None = None

    @model_validator(mode="after")
    def _asks_one_thing(self) -> Self:
        limits = self.max_drop is not None or self.max_rise is not None
        if self.require == "no_worse":
            if not limits:
                raise ValueError("says neither max_drop nor max_rise")
            if self.by.size or self.higher_is_better is not None:
                raise ValueError("by and higher_is_better belong to `require: better`")
        elif limits:
            raise ValueError("`require: better` takes `by`, not max_drop or max_rise")
        return self

    @property
    def names_its_metric(self) -> bool:
        """Whether it is for one metric and not for all of a kind."""
        return self.metric != "shown" and not is_pattern(self.metric)


class Policy(_Strict):
    """What must hold of checkpoints beside a baseline.

    Attributes:
        baseline: a row or a method; None is the one SFT.
        checkpoints: rows, methods or patterns of rows' names; none: every other ready row.
        confidence: 1 − the rate of false alarms, over all rules and checkpoints together.
        max_missing: share of the items that one of two checkpoints may lack while the other has
            them; with more missing there is no verdict.
        rules: what is asked.
    """

    baseline: Text | None = None
    checkpoints: tuple[Text, ...] = ()
    confidence: Annotated[float, Field(ge=0.5, lt=1)] = 0.95
    max_missing: Annotated[float, Field(ge=0, lt=1), BeforeValidator(_share)] = 0.01
    rules: Annotated[tuple[Rule, ...], Field(min_length=1)]


def is_pattern(text: str) -> bool:
    """Whether a name stands for several."""
    return any(sign in text for sign in "*?[")


def matches(name: str, wanted: str) -> bool:
    """Whether a name is the wanted one or fits it as a pattern."""
    return name == wanted or (is_pattern(wanted) and fnmatchcase(name, wanted))


def read_policy(file: Path) -> Policy:
    """The policy of a YAML file.

    Raises:
        InputError: it cannot be read, or says what a policy must not.
    """
    try:
        with file.open("rb") as opened:
            raw = opened.read(N_BYTES + 1)
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror or error}") from error
    if len(raw) > N_BYTES:
        raise InputError(f"{file}: is larger than {N_BYTES // 1024} KiB; a policy is a short list")
    try:
        facts = plain_yaml.load(raw.decode("utf-8"), _Plain)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: cannot be read as YAML: {error}") from error
    if not isinstance(facts, Mapping):
        raise InputError(f"{file}: is not a mapping of keys to values")
    try:
        return Policy.model_validate(facts)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        said = first["msg"].removeprefix("Value error, ")
        raise InputError(f"{file}: {where + ': ' if where else ''}{said}") from error


class _Plain(plain_yaml.Loader):
    """YAML without aliases, and without keys that stand twice."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            mark = self.get_event().start_mark  # type: ignore[no-untyped-call]  # the stubs' gap
            raise yaml.MarkedYAMLError(None, None, "a policy has no aliases", mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.MarkedYAMLError(
                    None, None, f"the key {key.value!r:.40} stands twice", key.start_mark
                )
            if isinstance(key.value, str):
                seen.add(key.value)
        return super().construct_mapping(node, deep=deep)
