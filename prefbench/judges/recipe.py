"""Judges as YAML files: whom to ask, in which words, and how the verdict is read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from prefbench import plain_yaml
from prefbench.errors import JudgeError
from prefbench.tasks import shipped_folder

PROTOCOL = 1
"""Of how foreign texts are fenced in prompts and labels read from replies: what changes a verdict
without a change of any YAML raises it."""
Kind = Literal["openai", "vllm", "reward", "panel"]
Preference = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class EndpointRecipe(_Strict):
    """An OpenAI-compatible server; `api_key_env` names the variable with the key, never the key."""

    base_url: str
    api_key_env: str | None = None
    timeout: Annotated[float, Field(gt=0)] = 120.0
    concurrency: Annotated[int, Field(ge=1)] = 32


class SamplingRecipe(_Strict):
    """How the judge's reply is drawn.

    `reasoning` is the `reasoning_effort` sent to a server; None leaves it to the server.
    """

    temperature: Annotated[float, Field(ge=0)] = 0.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    max_tokens: Annotated[int, Field(ge=1)] = 512
    seed: int | None = 0
    reasoning: str | None = None


class Reading(_Strict):
    """How a verdict is read from a reply.

    Attributes:
        by: `line`: the reply's last line is `marker` and a label, nothing else; `json`: the reply
            is an object of which `marker` names the label's key; `logprobs`: the probabilities of
            the labels as first token; `score`: a reward model's difference of scores.
        marker: the words before the label, or the key.
        labels: what the judge may say, and how far that prefers the first answer, 0 to 1.
        schema_: the JSON schema sent to servers with structured output.
    """

    by: Literal["line", "json", "logprobs", "score"]
    marker: str = ""
    labels: Mapping[str, Preference] = Field(default_factory=dict)
    schema_: Mapping[str, Any] | None = Field(None, alias="schema")

    @model_validator(mode="after")
    def _can_be_read(self) -> Self:
        if self.by == "json" and not self.marker:
            raise ValueError("marker names the key that holds the label")
        for words in (self.marker, *self.labels):
            if not words.isprintable() or words != words.strip():
                raise ValueError(f"{words!r} is not one line without space around it")
        for label in self.labels:
            if not label or (self.by == "line" and (set(label) & set("*`") or label[-1] == ".")):
                raise ValueError(f"the label {label!r} would be read as decoration")
        return self


class Price(_Strict):
    """US dollars per million tokens."""

    input: Annotated[float, Field(ge=0)] = 0.0
    output: Annotated[float, Field(ge=0)] = 0.0


class Example(_Strict):
    """A reply and the preference that must be read from it; null where it must not be readable."""

    reply: str
    preference: Preference | None
    logprobs: Mapping[str, float] | None = None
    """Of the first token's candidates, in nats, for `by: logprobs`."""


class JudgeRecipe(_Strict):
    """A judge; unknown keys are refused.

    Attributes:
        judge: its name.
        kind: openai: any OpenAI-compatible server; vllm: a local checkpoint in our own engine;
            reward: a sequence-classification reward model; panel: several judges together.
        model: the name that the server knows, or a checkpoint: a directory (relative to the YAML),
            an id on the hub, or `models/<id>` in a mirror.
        revision: of a model on the hub.
        description: one line for lists.
        endpoint: of an openai judge.
        system: jinja2 template of the system turn, if any.
        prompt: jinja2 template of the user turn.
        sampling: how its reply is drawn.
        verdict: how its reply is read.
        price: of its tokens.
        members: the judges of a panel, by name.
        rule: how a panel decides.
        examples: replies, each with what must be read from it; tests hold the reading to them.
    """

    judge: str
    kind: Kind
    model: str | None = None
    revision: str | None = None
    description: str = ""
    endpoint: EndpointRecipe | None = None
    system: str | None = None
    prompt: str | None = None
    sampling: SamplingRecipe = SamplingRecipe()
    verdict: Reading | None = None
    price: Price = Price()
    members: tuple[str, ...] = ()
    rule: Literal["majority", "mean"] = "majority"
    examples: tuple[Example, ...] = ()

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Self:
        if self.kind == "panel":
            if len(self.members) < 2 or len(set(self.members)) < len(self.members):
                raise ValueError("a panel has two or more different members")
            return self
        if not self.model:
            raise ValueError(f"a judge of kind {self.kind} names its model")
        if self.kind == "reward":
            return self
        if self.kind == "openai" and self.endpoint is None:
            raise ValueError("a judge of kind openai names its endpoint")
        if not self.prompt or self.verdict is None:
            raise ValueError(f"a judge of kind {self.kind} needs prompt and verdict")
        if not self.verdict.labels:
            raise ValueError("verdict.labels says what the judge may reply")
        return self

    @property
    def key(self) -> str:
        """Hash of what can change a verdict; price, patience and examples cannot.

        Nor can where a model lies that runs here: its bytes count, which the recipe does not know.
        """
        facts = {"protocol": PROTOCOL, **self.model_dump(mode="json", by_alias=True)}
        for name in ("judge", "description", "price", "examples"):
            del facts[name]
        if self.kind in ("vllm", "reward"):
            del facts["model"], facts["revision"]
        if facts["endpoint"]:
            facts["endpoint"] = facts["endpoint"]["base_url"]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


class JudgeFile(BaseModel):
    """A recipe and the file it was read from."""

    model_config = ConfigDict(frozen=True)

    recipe: JudgeRecipe
    file: Path


def judges_folder() -> Path:
    """The shipped judges."""
    return shipped_folder("judges")


def load_judges(folders: Sequence[Path] = ()) -> dict[str, JudgeFile]:
    """All judges of the shipped folder and of others; a later folder's replaces one of its name.

    Raises:
        JudgeError: a YAML file that cannot be read, or says what a judge must not.
    """
    found: dict[str, JudgeFile] = {}
    for folder in [judges_folder(), *folders]:
        if not folder.is_dir():
            raise JudgeError(f"{folder}: no such judges folder")
        for file in sorted(folder.glob("*.yaml")):
            if not file.name.startswith("_"):
                recipe = read_recipe(file)
                found[recipe.judge] = JudgeFile(recipe=recipe, file=file)
    return found


def find_judge(name: str, judges: Mapping[str, JudgeFile]) -> JudgeFile:
    """The judge of a name.

    Raises:
        JudgeError: there is none, with the nearest names; or a panel's member is none.
    """
    if name not in judges:
        import difflib

        near = difflib.get_close_matches(name, judges, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise JudgeError(f"no judge is named {name!r}; {hint}`prefbench judges` lists them")
    found = judges[name]
    for member in found.recipe.members:
        if find_judge(member, judges).recipe.kind == "panel":
            raise JudgeError(f"{found.file}: members: {member} is a panel itself")
    return found


def read_recipe(file: Path) -> JudgeRecipe:
    """The judge of a YAML file.

    Raises:
        JudgeError: it cannot be read, or says what a judge must not.
    """
    try:
        facts = plain_yaml.load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, OSError, UnicodeDecodeError) as error:
        raise JudgeError(f"{file}: cannot be read as YAML: {error}") from error
    if not isinstance(facts, dict):
        raise JudgeError(f"{file}: is not a mapping of keys to values")
    try:
        return JudgeRecipe.model_validate(facts)
    except ValidationError as error:
        first = error.errors(include_input=False)[0]  # a key may stand where its name belongs
        where = ".".join(str(part) for part in first["loc"])
        raise JudgeError(f"{file}: {where + ': ' if where else ''}{first['msg']}") from error
