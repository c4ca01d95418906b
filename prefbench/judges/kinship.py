"""What a judge has in common with those it judges, which may make it prefer its own kind."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prefbench.judges.opening import PlannedJudge

HEAD = re.compile(r"(For\w+|LMHeadModel|Model)$")
"""What an architecture's name says of its use, behind its family."""


def shared(judge: PlannedJudge, contestants: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """What a judge shares with contestants: the thing that is shared, and with whom.

    Of each contestant only what says most is named: the weights, then the base or reference, then
    the model's id, then the family of the architecture.

    Args:
        judge: a panel has what its members have.
        contestants: checkpoints' facts, as plans keep them.
    """
    found: dict[str, list[str]] = {}
    for one in contestants:
        for member in judge.members or (judge,):
            if what := _shared(member, one):
                if judge.members:
                    what = f"{what} (the member {member.name})"
                found.setdefault(what, []).append(str(one["name"]))
    return found


def _shared(judge: PlannedJudge, one: Mapping[str, Any]) -> str | None:
    """The closest thing that a judge and a contestant have in common."""
    name = str(judge.recipe.model or "")
    origins = {str(one[key]) for key in ("reference", "base") if one.get(key)}
    family = _family(str(one.get("architecture") or ""))
    model = judge.model
    if model is not None:
        if model.fingerprint and model.fingerprint == one.get("fingerprint"):
            return "the very weights"
        if str(model.path) == one["path"]:
            return f"the directory {model.path}"
        if str(model.path) in origins:
            return f"{model.path}, which is the judge and what they were tuned from"
        ours = {origin for origin in (model.reference, model.base) if origin}
        if one["path"] in ours:
            return "weights that the judge was tuned from"
        if both := sorted(ours & origins):
            return f"the base or reference {both[0]}"
    if any(_same_id(name, said) for said in (*origins, str(one["name"]), str(one["path"]))):
        return f"the model id {name}"
    if model is not None:
        if family and family == _family(model.architecture or ""):
            return f"the architecture family {family}"
    elif family and re.search(rf"(?i)\b{re.escape(family)}", Path(name).name):
        return f"the architecture family {family}"
    return None


def _same_id(name: str, said: str) -> bool:
    """Whether a path or name is that of a model, with or without its owner."""
    return bool(name) and (said == name or Path(said).name == Path(name).name)


def _family(architecture: str) -> str:
    return HEAD.sub("", architecture)
