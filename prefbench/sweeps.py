"""How a task's texts are drawn, by its YAML: several of an item, and a task per temperature."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def sweep(config: Mapping[str, Any], temperatures: Sequence[float]) -> list[dict[str, Any]]:
    """A task's YAML once per temperature, each with a name of its own.

    None of them says what the other temperatures are, so that one more changes no definition. At
    temperature 0, where all texts of an item are the same, one is asked for.
    """
    metadata = dict(config["metadata"])
    metadata["prefbench"] = {k: v for k, v in metadata["prefbench"].items() if k != "temperatures"}
    tasks = []
    for temperature in temperatures:
        task = {**config, "task": f"{config['task']}{suffix(temperature)}", "metadata": metadata}
        drawn = {"do_sample": temperature > 0, "temperature": temperature}
        task["generation_kwargs"] = {**(config.get("generation_kwargs") or {}), **drawn}
        if temperature == 0:
            task.pop("repeats", None)
        tasks.append(task)
    return tasks


def suffix(temperature: float) -> str:
    """What stands behind a sweep's name in the name of one of its tasks."""
    return f"_t{temperature:g}"


def refusal(config: Mapping[str, Any]) -> str | None:
    """Why texts cannot be drawn as a task's YAML asks, after the key that asks it, if so."""
    repeats, kind = config.get("repeats"), config["output_type"]
    if repeats is None:
        repeats = 1
    if isinstance(repeats, bool) or not isinstance(repeats, int) or repeats < 1:
        return f"repeats: is a whole number from 1 on, not {repeats!r}"
    if kind != "generate_until":
        return None if repeats == 1 else f"repeats: {_generates_none(kind)}"
    settings = config.get("generation_kwargs") or {}
    if not isinstance(settings, Mapping):
        return "generation_kwargs: is not a mapping of keys to values"
    temperature = settings.get("temperature") or 0.0
    if isinstance(temperature, bool) or not isinstance(temperature, int | float) or temperature < 0:
        return f"generation_kwargs.temperature: is a number from 0 on, not {temperature!r}"
    if repeats > 1 and (temperature == 0 or not settings.get("do_sample", True)):
        return (
            f"repeats: {repeats} texts of an item would all be the same; generation_kwargs needs "
            "do_sample: true and a temperature above 0"
        )
    return None


def sweep_refusal(config: Mapping[str, Any]) -> str | None:
    """Why a task cannot be asked at several temperatures, if so."""
    kind = config["output_type"]
    return None if kind == "generate_until" else _generates_none(kind)


def _generates_none(kind: str) -> str:
    return f"a task of output_type {kind} generates no texts"
