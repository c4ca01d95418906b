"""What a Trainer logged of preference pairs, and whether it can be true by itself."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from prefbench.doctor.findings import Finding
from prefbench.errors import InputError
from prefbench.provenance import run_folder

STATE = "trainer_state.json"
TRAINING = "training"
"""The set of what is logged on training batches; others are named as in the log, from `eval` on."""

CHOSEN, REJECTED = "rewards/chosen", "rewards/rejected"
MARGINS, ACCURACIES = "rewards/margins", "rewards/accuracies"
LOGPS = ("logps/chosen", "logps/rejected")
NAMES = (*LOGPS, CHOSEN, REJECTED, MARGINS, ACCURACIES)
"""TRL's names of what a preference trainer logs of pairs."""

ROUNDING = 1e-3
"""How far means of float32 numbers may be apart, relative to their size."""


@dataclass(frozen=True)
class Entry:
    """What was logged of one set at one step: means over batches, or over an evaluation's pairs.

    `n_pairs` is what an evaluation's speed and time, both rounded, leave possible for the number of
    its pairs; empty where the log does not tell.
    """

    step: int
    values: Mapping[str, float]
    n_pairs: range = range(0)
    n_batches: int | None = None


@dataclass(frozen=True)
class TrainingLog:
    """A Trainer's log: by set, its entries in the order of steps."""

    file: Path
    sets: Mapping[str, tuple[Entry, ...]]

    @property
    def evaluations(self) -> dict[str, tuple[Entry, ...]]:
        return {name: entries for name, entries in self.sets.items() if name != TRAINING}

    @property
    def names(self) -> list[str]:
        """What it holds of pairs."""
        held = {name for entries in self.sets.values() for one in entries for name in one.values}
        return [name for name in NAMES if name in held]


def find_log(run: Path) -> Path | None:
    """The log of a run or of a checkpoint-N; a run's last checkpoint has all of it, too."""
    steps = [folder for folder in run.glob("checkpoint-*") if run_folder(folder)]
    steps.sort(key=lambda folder: int(folder.name.rpartition("-")[2]), reverse=True)
    return next((f for place in (run, *steps) if (f := place / STATE).is_file()), None)


def read_log(file: Path) -> TrainingLog:
    """The log in a trainer_state.json; what is no number in it is left out.

    Raises:
        InputError: it cannot be read, or has no `log_history`.
    """
    try:
        state = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{file}: cannot be read: {error}") from error
    history = state.get("log_history") if isinstance(state, dict) else None
    if not isinstance(history, list):
        raise InputError(f"{file}: has no list log_history; is it a Trainer's state?")
    # A run that was resumed logs some steps twice: the later word counts.
    found: dict[str, dict[int, Entry]] = {}
    for raw in history:
        step = _number(raw.get("step")) if isinstance(raw, dict) else None
        if step is None or not step.is_integer():
            continue
        numbers = {key: n for key, value in raw.items() if (n := _number(value)) is not None}
        values: dict[str, dict[str, float]] = {}
        for key, number in numbers.items():
            if named := _named(key, numbers):
                values.setdefault(named[0], {})[named[1]] = number
        for name, held in values.items():
            found.setdefault(name, {})[int(step)] = _entry(int(step), name, held, numbers)
    return TrainingLog(
        file,
        {name: tuple(one for _, one in sorted(entries.items())) for name, entries in found.items()},
    )


def _number(value: Any) -> float | None:
    """A number as it is, infinite ones and NaN too."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _named(key: str, numbers: Mapping[str, float]) -> tuple[str, str] | None:
    """The set that a key belongs to and what it names, if that is of pairs or a loss."""
    for name in (*NAMES, "loss"):
        if key == name:
            return TRAINING, name
        if key.startswith("eval_") and key.endswith(f"_{name}"):
            set_ = key.removesuffix(f"_{name}")
            return _timed(numbers) if set_ == "eval" else set_, name
    return None


def _timed(numbers: Mapping[str, float]) -> str:
    """The set whose time an entry has: of several, TRL names the loss and time alone after each."""
    timed = [key for key in numbers if key.startswith("eval_") and key.endswith("_runtime")]
    return timed[0].removesuffix("_runtime") if len(timed) == 1 else "eval"


def _entry(
    step: int, name: str, values: Mapping[str, float], numbers: Mapping[str, float]
) -> Entry:
    seconds = numbers.get(f"{name}_runtime", math.nan)
    batches = _count(numbers.get(f"{name}_steps_per_second", math.nan), seconds)
    n_pairs = _count(numbers.get(f"{name}_samples_per_second", math.nan), seconds)
    return Entry(step, values, n_pairs, batches.start if len(batches) == 1 else None)


def _count(per_second: float, seconds: float) -> range:
    """What a rate of three decimals and a time of four leave possible for a number."""
    product = per_second * seconds
    error = 0.00051 * seconds + 0.000051 * per_second
    if not math.isfinite(product) or not 0 < product < 1e9:
        return range(0)
    return range(max(1, math.ceil(product - error)), math.floor(product + error) + 1)


# --- whether it can be true


def examine_log(log: TrainingLog) -> list[Finding]:
    """What the log holds, and what in it contradicts itself."""
    said = [
        f"{len(entries)} entries of {name} to step {entries[-1].step}"
        for name, entries in log.sets.items()
    ]
    if not log.names:
        detail = f"{', '.join(said) or 'no entries'}; nothing of pairs, as TRL's DPOTrainer logs it"
        return [Finding("log", STATE, "unused", f"{log.file}: {detail}")]
    facts = {
        "file": str(log.file),
        "steps": {name: [one.step for one in entries] for name, entries in log.sets.items()},
    }
    detail = f"{log.file}: {', '.join(said)}; {', '.join(log.names)}"
    margins = f"{MARGINS} is {CHOSEN} − {REJECTED} throughout"
    return [
        Finding("log", STATE, "ok", detail, facts=facts),
        *_check(log, "numbers", (), _no_number, "all are finite"),
        *_check(log, "margins", (CHOSEN, REJECTED, MARGINS), _wrong_margin, margins),
        *_check(log, "accuracies", (ACCURACIES,), _no_share, "all are shares"),
        *_check(log, "log-probs", (), _no_logp, "none is above 0"),
        *(beta for name, entries in log.evaluations.items() for beta in _beta(name, entries)),
    ]


def _check(
    log: TrainingLog,
    name: str,
    needed: Sequence[str],
    wrong: Callable[[Mapping[str, float]], str | None],
    well: str,
) -> Iterator[Finding]:
    """One check over all entries that have what it needs."""
    entries = [
        (set_, one)
        for set_, some in log.sets.items()
        for one in some
        if all(math.isfinite(one.values.get(key, math.nan)) for key in needed)
    ]
    if not entries:
        return
    faults = [
        f"{set_} at step {one.step}: {fault}"
        for set_, one in entries
        if (fault := wrong(one.values))
    ]
    if not faults:
        yield Finding("log", name, "ok", well)
        return
    more = f"; and {len(faults) - 1} more entries" if len(faults) > 1 else ""
    yield Finding("log", name, "broken", faults[0] + more, needed=True, facts={"faults": faults})


def _no_number(values: Mapping[str, float]) -> str | None:
    wrong = [name for name, value in values.items() if not math.isfinite(value)]
    return f"{', '.join(wrong)} is no finite number" if wrong else None


def _wrong_margin(values: Mapping[str, float]) -> str | None:
    chosen, rejected, margin = (values[name] for name in (CHOSEN, REJECTED, MARGINS))
    if abs(chosen - rejected - margin) <= ROUNDING * (abs(chosen) + abs(rejected)) + 1e-5:
        return None
    return f"{MARGINS} is {margin:.4g}, and {CHOSEN} − {REJECTED} is {chosen - rejected:.4g}"


def _no_share(values: Mapping[str, float]) -> str | None:
    value = values[ACCURACIES]
    return None if -1e-6 <= value <= 1 + 1e-6 else f"{ACCURACIES} is {value:.4g}"


def _no_logp(values: Mapping[str, float]) -> str | None:
    wrong = [f"{name} is {values[name]:.4g}" for name in LOGPS if values.get(name, 0) > 0]
    return ", ".join(wrong) or None


def _beta(name: str, entries: Sequence[Entry]) -> Iterator[Finding]:
    """The β and the reference's log-probs behind several evaluations of the same pairs.

    A reward is β × (log-prob − the reference's), so that over evaluations all rewards lie on a line
    against the log-probs. On training batches they do not: each has pairs of its own.
    """
    whole = [
        one
        for one in entries
        if all(math.isfinite(one.values.get(key, math.nan)) for key in (*LOGPS, CHOSEN, REJECTED))
    ]
    lines = []
    for logp, reward in zip(LOGPS, (CHOSEN, REJECTED), strict=True):
        x = np.array([one.values[logp] for one in whole])
        y = np.array([one.values[reward] for one in whole])
        if len(whole) < 2 or np.ptp(x) <= ROUNDING * (1 + np.abs(x).max()):
            return  # nothing moved, or hardly: no line
        slope, start = np.polyfit(x - x[0], y, 1)
        off = float(np.abs(slope * (x - x[0]) + start - y).max())
        lines.append((float(slope), float(x[0] - start / slope) if slope else math.nan, off))
    (beta, chosen, off), (other, rejected, off_too) = lines
    if abs(beta - other) <= 0.02 * abs(beta) and max(off, off_too) <= 0.02 * abs(beta) and beta > 0:
        detail = (
            f"{beta:.4g} by {len(whole)} entries of {name}: rewards are β × (log-prob − the "
            f"reference's); the reference has {chosen:.4g} and {rejected:.4g}"
        )
        facts = {"beta": beta, "reference": [chosen, rejected]}
        yield Finding("log", "β", "ok", detail, facts=facts)
        return
    detail = (
        f"rewards and log-probs of {name} are not those of one β and one reference: {beta:.4g} by "
        f"the chosen, {other:.4g} by the rejected texts; the reference changed on the way, or one "
        "of the two is per token"
    )
    yield Finding("log", "β", "unknown", detail)
