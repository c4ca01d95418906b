"""Which of the models that an endpoint lists is a checkpoint."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prefbench.engines.base import ServerSettings
from prefbench.errors import EngineError
from prefbench.records import Checkpoint


def served_name(
    cards: Sequence[Mapping[str, Any]], checkpoint: Checkpoint, server: ServerSettings
) -> str:
    """The name that a server knows a checkpoint by; nothing is guessed.

    Args:
        cards: what GET /models lists, by `id`; vLLM adds the directory, `root`.
        checkpoint: the one that is to be measured.
        server: where it is served, and under which name if that is known.

    Raises:
        EngineError: it is not served, or not surely.
    """
    ids = [str(card["id"]) for card in cards]
    served = f"{server.base_url} serves {', '.join(map(repr, ids)) or 'nothing'}"
    if server.model is not None:
        if cards and server.model not in ids:
            raise EngineError(f"{checkpoint.path}: no {server.model!r} is served: {served}")
        return server.model
    path = checkpoint.path.resolve()
    there = [str(c["id"]) for c in cards if path in (_folder(c.get("root")), _folder(c["id"]))]
    if there:
        return there[0]  # several are names of the same weights
    names = {checkpoint.name, path.name} - {""}
    named = [
        str(c["id"])
        for c in cards
        # A run's checkpoint-100 is not another run's; nor is what lies elsewhere on this disk.
        if not re.fullmatch(r"checkpoint-\d+", str(c["id"]))
        and names & {str(c["id"]), str(c.get("root"))}
        and not ((folder := _folder(c.get("root"))) and folder.is_dir())
    ]
    if len(named) == 1:
        return named[0]
    raise EngineError(
        f"{checkpoint.path}: it is not clear whether it is served: {served}; name the right one by "
        f"--served-model, or serve it with --served-model-name {checkpoint.name}"
    )


def max_model_len(cards: Sequence[Mapping[str, Any]], model: str) -> int | None:
    """Tokens that a served model takes, where the server says; an adapter takes its base's."""
    by_id = {str(card["id"]): card for card in cards}
    card: Mapping[str, Any] | None = by_id.get(model)
    while card and card.get("max_model_len") is None and card.get("parent") != card["id"]:
        card = by_id.get(str(card.get("parent")))
    return int(card["max_model_len"]) if card and card.get("max_model_len") else None


def _folder(name: object) -> Path | None:
    return Path(name).resolve() if isinstance(name, str) and name.startswith("/") else None
