"""Where a checkpoint came from: method, step, seed, reference and base, and who says so."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from prefbench import plain_yaml
from prefbench.errors import CheckpointError
from prefbench.records import METHODS
from prefbench.requests import REQUEST, Request, read_request

SIDECAR = "prefbench.yaml"
KEYS: Mapping[str, type] = {"method": str, "step": int, "seed": int, "reference": str, "base": str}

ALIASES: Mapping[str, str] = {
    **{name: name for name in METHODS},
    "pretrained": "base",
    "mle": "sft",
    "ul": "unlikelihood",
    "dpo_positive": "dpop",
    "smaug": "dpop",
    "ipo_mean": "ipo",
    "ipo_sum": "ipo",
    "slic_hf": "slic",
}
"""How methods are written, in lower case with underscores for everything but letters and digits."""

TRAINED: Mapping[tuple[str, tuple[str, ...]], str] = {
    ("SFTConfig", ("nll",)): "sft",
    ("DPOConfig", ("sigmoid",)): "dpo",
    ("DPOConfig", ("sigmoid", "sft")): "dpo_nll",
    ("DPOConfig", ("ipo",)): "ipo",
    ("DPOConfig", ("hinge",)): "hinge",
    ("DPOConfig", ("sppo_hard",)): "sppo",
    ("CPOConfig", ("simpo",)): "simpo",
    ("ORPOConfig", ()): "orpo",
    ("KTOConfig", ("kto",)): "kto",
}
"""What TRL's arguments and their `loss_type` train."""

_WORDS = re.compile(
    "(?<![a-z0-9])(?:" + "|".join(sorted(ALIASES, key=len, reverse=True)) + ")(?![a-z0-9])"
)
_RUN_CHECKPOINT = re.compile(r"checkpoint-(\d+)")
_SEED = re.compile(r"(?<![a-z])seed[-_=]?(\d+)", re.IGNORECASE)
MOST_JSON = 1 << 28
"""Bytes of a file that is only asked."""
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


class Card(NamedTuple):
    """What a model card starts with, or another file says in its words."""

    content: Mapping[str, Any]
    of_tags: str = "README.md tags"
    of_base: str = "README.md base_model"


class Provenance:
    """What is known of a checkpoint. The first source to name a thing is believed."""

    def __init__(self) -> None:
        self.facts: dict[str, Any] = {}
        self.origins: dict[str, str] = {}

    def learn(self, key: str, value: Any, origin: str) -> None:
        if value is not None and key not in self.facts:
            self.facts[key] = value
            self.origins[key] = origin


def trace(folder: Path, *, names: Sequence[str], places: Sequence[Path]) -> Provenance:
    """Ask the sidecar, then training's request, the model card, the trainer's state, and last the
    folder's name.

    Args:
        folder: the checkpoint's directory.
        names: names of the folder and of those around it, the nearest first.
        places: directories that a relative path in a model card or an adapter may start from.

    Raises:
        CheckpointError: a sidecar that is not valid; every other source is only asked.
    """
    known = Provenance()
    run = run_folder(folder)
    _from_sidecars(known, folder, run)
    request = read_request(folder) or (read_request(run) if run else None)
    cards = _from_request(known, request, places) if request else []
    cards += [Card(_front_matter(place / "README.md")) for place in (folder, run) if place]
    state = _lenient_json(folder / "trainer_state.json")
    preference = _logs_preferences(state)
    _learn_method(known, cards, names, preference=preference)
    known.learn("step", _whole(state.get("global_step")), "trainer_state.json")
    if matched := _RUN_CHECKPOINT.fullmatch(folder.name):
        known.learn("step", int(matched[1]), "folder name")
    for name in names:
        if found := _SEED.search(name):
            known.learn("seed", int(found[1]), "folder name")
    if request:
        known.learn("seed", request.seed, REQUEST)
    base = _lenient_json(folder / "adapter_config.json").get("base_model_name_or_path")
    if isinstance(base, str) and base:
        known.learn("base", locate(base, places), "adapter_config.json")
    method = known.facts.get("method")
    if preference if method is None else method not in ("base", "sft"):
        named = [
            (locate(written, places), card.of_base)
            for card in cards
            if (written := _first_text(card.content.get("base_model")))
        ]
        # A path of the training's machine may lead nowhere here.
        for where, origin in sorted(named, key=lambda one: not Path(one[0]).is_dir()):
            known.learn("reference", where, origin)
        if "base" in known.facts:
            known.learn("reference", known.facts["base"], known.origins["base"])
    return known


def canonical_method(text: str) -> str | None:
    """The method a text names as a word; None where it names none, or several.

    A method counts before the stage it starts from: "llama-sft-dpo" is DPO.
    """
    named = {ALIASES[word] for word in _WORDS.findall(_spelled(text))}
    named = named - {"base", "sft"} or named - {"base"} or named
    return named.pop() if len(named) == 1 else None


def run_folder(folder: Path) -> Path | None:
    """The training run that wrote a checkpoint-N directory; None for any other directory."""
    return folder.parent if _RUN_CHECKPOINT.fullmatch(folder.name) else None


def locate(written: str, places: Iterable[Path]) -> str:
    """The directory meant by a path or hub id; as written where it is not on this machine."""
    for place in places:
        # A name of any length, of a user who is not here, behind a door that is closed to us.
        with suppress(OSError, RuntimeError):
            folder = place / Path(written).expanduser()
            if folder.is_dir():
                return str(folder.resolve())
    if _HUB_ID.fullmatch(written):
        from huggingface_hub import snapshot_download

        try:
            return str(Path(snapshot_download(written, local_files_only=True)).resolve())
        except (OSError, ValueError):
            return written
    return written


def _from_sidecars(known: Provenance, folder: Path, run: Path | None) -> None:
    for place in (folder, run):
        if place is None:
            continue
        for key, value in _sidecar(place / SIDECAR).items():
            if key == "step" and place == run:
                continue  # the run's last step, not that of each of its checkpoints
            if key in ("reference", "base"):
                value = locate(value, [place])
            elif key == "method":
                value = canonical_method(value) or value
            known.learn(key, value, SIDECAR)


def _sidecar(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        with path.open(encoding="utf-8") as file:
            content = plain_yaml.load(file.read(plain_yaml.N_CHARACTERS + 1))
    except (yaml.YAMLError, ValueError) as error:
        raise CheckpointError(f"{path} is not valid YAML: {error}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} must hold keys: {', '.join(KEYS)}")
    for key, value in content.items():
        if key not in KEYS:
            raise CheckpointError(f"{path} has an unknown key {key!s:.60}: use {', '.join(KEYS)}")
        if value is not None and type(value) is not KEYS[key]:
            wanted = "a whole number" if KEYS[key] is int else "text"
            raise CheckpointError(f"{path}: {key} must be {wanted}, not {value!r:.60}")
    return {key: value for key, value in content.items() if value is not None}


def _from_request(known: Provenance, request: Request, places: Sequence[Path]) -> list[Card]:
    """What the user said there counts; the rest is asked as a model card is."""
    if request.method:
        known.learn("method", canonical_method(request.method) or request.method, REQUEST)
    if request.reference:
        known.learn("reference", locate(request.reference, places), REQUEST)
    trained = TRAINED.get((request.trainer or "", request.losses))
    return [Card({"tags": ["trl", trained], "base_model": request.start}, REQUEST, REQUEST)]


def _learn_method(
    known: Provenance, cards: Sequence[Card], names: Sequence[str], *, preference: bool
) -> None:
    folder = next((method for name in names if (method := canonical_method(name))), None)
    if preference and folder in ("base", "sft"):
        folder = None  # such a run logs no rewards
    for card in cards:
        tags = card.content.get("tags")
        tags = tags if isinstance(tags, list) else [tags]
        tags = [_spelled(tag) for tag in tags if isinstance(tag, str)]
        tagged = canonical_method(" ".join(tag for tag in tags if tag in ALIASES))
        # TRL's tag names the trainer, and its DPO trainer has many losses: a folder that names one
        # of them knows better.
        if tagged == "dpo" and "trl" in tags and folder not in (None, "base", "sft"):
            tagged = folder if folder == "dpo" else None
        known.learn("method", tagged, card.of_tags)
    known.learn("method", folder, "folder name")
    if preference and "method" not in known.facts:
        # DPO, IPO, SLiC and others log the same keys, so the method stays open.
        known.origins["method"] = "trainer_state.json: trained on preferences, method not named"


def _logs_preferences(state: Mapping[str, Any]) -> bool:
    rows = state.get("log_history")
    return isinstance(rows, list) and any(
        isinstance(row, dict) and "rewards/chosen" in row for row in rows
    )


def _front_matter(path: Path) -> dict[str, Any]:
    """The YAML a model card starts with; empty where there is none, or none that is valid."""
    if not path.is_file():
        return {}
    with path.open(encoding="utf-8", errors="replace") as file:
        matched = re.match(r"---\n(.*?)\n---", file.read(plain_yaml.N_CHARACTERS), re.DOTALL)
    try:
        content = plain_yaml.load(matched[1]) if matched else None
    except yaml.YAMLError:
        return {}
    return content if isinstance(content, dict) else {}


def _lenient_json(path: Path) -> dict[str, Any]:
    """A JSON object, or an empty one: whether files are whole is checked elsewhere."""
    if not path.is_file() or path.stat().st_size > MOST_JSON:
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _spelled(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")


def _whole(value: object) -> int | None:
    return value if type(value) is int else None


def _first_text(value: object) -> str | None:
    first = value[0] if isinstance(value, list) and value else value
    return first if isinstance(first, str) and first else None
