"""What a reader must know of a column group's numbers, from the manifests of its cells."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

NO_TEXTS = hashlib.sha256().hexdigest()
"""Of what was imported without its items: nobody knows what was sent."""


def notes_of(name: str, cell: Mapping[str, Any], manifests: Sequence[dict[str, Any]]) -> list[str]:
    """What a reader must know of a group's numbers, once for all its checkpoints where alike."""
    identity = cell["identity"]
    notes = _judging_notes(manifests) if "judge" in cell else []
    notes += _reference_notes(manifests)
    config = manifests[0]["task"]["config"]
    shots = config.get("fewshot_split") or config.get("training_split")
    if identity["shots"] and shots and identity["shots"] != shots:
        notes.append(f"examples come from the {identity['shots']} split: the data have no {shots}")
    for key, what in _COUNTS.items():
        notes += _counted(manifests, key, what)
    for key, what in _CONDITIONS.items():
        by_value: dict[str, list[str]] = {}
        for one in manifests:
            # What was asked for, but for the engine: another may have had to do instead.
            value = one["engine"]["kind"] if key == "engine" else one["identity"][key]
            said = {True: "on", False: "off", None: "not told"}.get(value, str(value))
            by_value.setdefault(said, []).append(one["checkpoint"]["name"])
        if len(by_value) > 1:
            told = "; ".join(f"{value}: {', '.join(who)}" for value, who in by_value.items())
            notes.append(f"{what} differs ({told})")
    warned: dict[str, list[str]] = {}
    for one in manifests:
        for warning in one.get("warnings", ()):
            warned.setdefault(warning, []).append(one["checkpoint"]["name"])
    notes += [f"{', '.join(who)}: {warning}" for warning, who in warned.items()]
    if len({one["items"] for one in manifests} - {NO_TEXTS}) > 1:
        notes.append("not all checkpoints were sent the same text")
    return [f"{name}: {note}" for note in notes]


def _judging_notes(manifests: Sequence[dict[str, Any]]) -> list[str]:
    """Who judged, how, at what price, and what could not be read."""
    first = manifests[0]["judging"]
    recipe = first["judge"]["recipe"]
    who = f"{first['judge']['name']} is "
    if recipe["kind"] == "panel":
        who += f"a panel of {', '.join(recipe['members'])}, {recipe['rule']}"
    elif recipe["kind"] == "reward":
        who += f"the reward model {recipe['model']}, which rates each answer alone"
    else:
        host = f" at {recipe['endpoint']['base_url']}" if recipe["endpoint"] else ""
        who += f"{recipe['model']}{host}, asked in both orders; a split counts half"
    facts = [one["judging"] for one in manifests]
    if compared := sum(one.get("compared", 0) for one in facts):
        share = sum(one["consistent"] for one in facts) / compared
        who += f"; in {share:.0%} of pairs both orders say the same"
    if cost := sum(one["cost"] for one in facts):
        who += f"; its verdicts here cost ${cost:.2f}, those that rows share counted in each"
    notes = [who]
    told: dict[str, list[str]] = {}
    for manifest, one in zip(manifests, facts, strict=True):
        for key, what in _JUDGED.items():
            if one[key]:
                text = f"{one[key]} of {one['n_verdicts'] + one['n_unheard']} verdicts {what}"
                told.setdefault(text, []).append(manifest["checkpoint"]["name"])
        if agree := one["agreement"]:
            text = (
                "the panel's members agree with Krippendorff's α = "
                f"{agree['value']:.2f} [{agree['low']:.2f}, {agree['high']:.2f}]"
            )
            told.setdefault(text, []).append(manifest["checkpoint"]["name"])
        if one["sure"]:
            text = (
                "ended when it was sure; the interval of the win rate is a confidence sequence, "
                "and no other interval holds"
            )
            told.setdefault(text, []).append(manifest["checkpoint"]["name"])
    return notes + [f"{', '.join(names)}: {text}" for text, names in told.items()]


def _reference_notes(manifests: Sequence[dict[str, Any]]) -> list[str]:
    """What changes are changes from, and of what gradients are."""
    references: dict[str, list[str]] = {}
    gradients: dict[str, list[str]] = {}
    for one in manifests:
        name = one["checkpoint"]["name"]
        beside = (one.get("analysis") or {}).get("reference") or one.get("beside")
        if beside:
            references.setdefault(beside["name"], []).append(name)
        if one.get("work") == "gradients":
            objective = one["identity"]["objective"]
            gradients.setdefault(f"a step of {objective}", []).append(name)
    notes = []
    if references:
        told = "; ".join(f"{who} of {', '.join(of)}" for who, of in references.items())
        notes.append(f"the reference is {told}")
    if gradients:
        told = "; ".join(f"{what} for {', '.join(who)}" for what, who in gradients.items())
        notes.append(f"observed is {told}")
    if judge := next((j for one in manifests if (j := _ranker(one))), None):
        notes.append(f"candidates are ranked beside the rewards of {judge}")
    return notes


def _ranker(manifest: Mapping[str, Any]) -> str | None:
    judge = (manifest.get("analysis") or {}).get("judge")
    return str(judge["name"]) if judge else None


_JUDGED = {
    "n_unreadable": "could not be read, which counts as no verdict",
    "n_unheard": "did not arrive; the same command asks for them again",
}
_COUNTS = {
    "n_missing": "items have no value",
    "n_cut": "prompts were longer than the context and lost their start",
    "n_unfinished": "items have texts that were cut at the token limit",
}
_CONDITIONS = {
    "chat": "the chat template",
    "dtype": "the number format",
    "engine": "the engine",
    "max_length": "the context length asked for",
}


def _counted(manifests: Sequence[dict[str, Any]], key: str, what: str) -> list[str]:
    """How many items of each checkpoint a remark is true of, told once where all are alike."""
    told: dict[str, list[str]] = {}
    for one in manifests:
        if one[key]:
            why = one["missing"] if key == "n_missing" else {}
            details = "; ".join(f"{n} × {reason}" for reason, n in why.items())
            text = f"{one[key]} of {one['n_items']} {what}" + (f" ({details})" if details else "")
            told.setdefault(text, []).append(one["checkpoint"]["name"])
    return [
        text if len(who) == len(manifests) else f"{', '.join(who)}: {text}"
        for text, who in told.items()
    ]
