"""Which judges there are, and whether this machine could ask each: nothing is opened or fetched."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from prefbench.errors import JudgeError
from prefbench.judges.models import MIRRORED
from prefbench.judges.recipe import JudgeFile, JudgeRecipe, load_judges

VARIABLE = re.compile(r"[A-Z][A-Z0-9_]{0,60}")


@dataclass(frozen=True)
class Presence:
    """A judge, where its YAML is, and whether what it needs is there; `said` is for people."""

    recipe: JudgeRecipe
    file: Path
    there: bool
    said: str


def look_for_judges(folders: Sequence[Path], mirrors: Sequence[Path]) -> list[Presence]:
    """All judges by name.

    Raises:
        JudgeError: a folder that is none, or a YAML file that cannot be read.
    """
    known = load_judges(folders)
    return [_presence(known[name], known, mirrors) for name in sorted(known)]


def _presence(one: JudgeFile, known: Mapping[str, JudgeFile], mirrors: Sequence[Path]) -> Presence:
    recipe = one.recipe
    if recipe.kind == "panel":
        lacking = [
            name
            for name in recipe.members
            if name not in known or not _presence(known[name], known, mirrors).there
        ]
        said = f"members: {', '.join(recipe.members)}"
        if lacking:
            said += f"; cannot be asked here: {', '.join(lacking)}"
        return Presence(recipe, one.file, not lacking, said)
    there, said = _key(recipe) if recipe.kind == "openai" else _model(one, mirrors)
    return Presence(recipe, one.file, there, said)


def _key(recipe: JudgeRecipe) -> tuple[bool, str]:
    """Whether the variable with the key is set; what it holds is not looked at."""
    assert recipe.endpoint is not None
    name, url = recipe.endpoint.api_key_env, recipe.endpoint.base_url
    if not name:
        return True, f"at {url}, without a key"
    if os.environ.get(name):
        return True, f"at {url}, the key is in {name}"
    if not VARIABLE.fullmatch(name):  # some put the key itself there, which is not for a screen
        return False, f"at {url}, no key: what api_key_env names is not set"
    return False, f"at {url}, no key: {name} is not set"


def _model(one: JudgeFile, mirrors: Sequence[Path]) -> tuple[bool, str]:
    """Whether the weights are in a directory, a mirror or the hub's cache."""
    model, revision = str(one.recipe.model), one.recipe.revision
    places = [one.file.parent / Path(model).expanduser()]
    places += [mirror / MIRRORED / model for mirror in mirrors]
    for place in places:
        if place.is_dir():
            return True, f"the model is in {place}"
    if not revision:
        return False, "no model here: --mirror names a directory with models, --judge-model another"
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(model, "config.json", revision=revision)
    except HFValidationError as error:
        raise JudgeError(f"{one.file}: model: {error}") from error
    if isinstance(found, str):
        return True, "the model is in the hub's cache"
    return False, "the model is not here; it would be fetched from the hub"
