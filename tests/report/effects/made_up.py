"""What a run of margins, gradients, divergences and comparisons would have given, made up.

Each checkpoint's tuning is said by two numbers, how far it moved the chosen and the rejected
text; all else follows from them and from a seed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from prefbench.boards.scored import board_of
from prefbench.boards.shown import Shown, show
from prefbench.leaderboard import Gathered, Group, Measured
from prefbench.records import Answer, Checkpoint
from prefbench.report.effects.heat import BETWEEN
from prefbench.stats.bootstrap import Array
from prefbench.store import Store

MARGINS, GRADIENTS = "made_up_margins", "made_up_gradients"


class Tuned(NamedTuple):
    """A checkpoint, and how far tuning moved both texts, in nats."""

    name: str
    method: str | None
    chosen: float = 0.0
    rejected: float = 0.0
    step: int | None = None


ZOO = (
    Tuned("sft", "sft", 1.0, 0.8),
    Tuned("unlikelihood", "unlikelihood", -19.0, -18.0),
    Tuned("exmate", "exmate", 0.2, -1.0),
    Tuned("dpo", "dpo", -3.0, -10.0),
    Tuned("dpop", "dpop", 0.3, -2.0),
    Tuned("ipo", "ipo", -1.0, -5.0),
    Tuned("slic", "slic", 0.4, -0.3),
    Tuned("rrhf", "rrhf", -0.5, -3.0),
    Tuned("spin/iteration-2", "spin", 0.1, -4.0),
    Tuned("dpo_exmate", "dpo_exmate", -3.5, -11.0),
)


def gathered_of(
    zoo: Sequence[Tuned],
    measured: Mapping[str, Mapping[str, Mapping[str, Array]]],
    *,
    groups: Mapping[str, Group] | None = None,
    cells: Mapping[tuple[str, str], str] | None = None,
) -> Gathered:
    """What was measured: by group and checkpoint its quantities."""
    rows = tuple(
        Checkpoint(one.name, Path("/made_up") / one.name, "ready", method=one.method, step=one.step)
        for one in zoo
    )
    there = tuple(
        Measured(name, group, np.arange(n, dtype=np.int32), np.arange(n).astype(str), quantities)
        for group, by_row in measured.items()
        for name, quantities in by_row.items()
        for n in [len(next(iter(quantities.values())))]
    )
    known = groups or {}
    return Gathered(
        rows,
        tuple(known.get(name, Group(name, name)) for name in measured),
        there,
        cells=cells or {},
    )


def shown_of(gathered: Gathered, **settings: object) -> Shown:
    """The leaderboard of it, from few draws."""
    return show(board_of(gathered, n_resamples=300, **settings))  # type: ignore[arg-type]  # tests


def margins(one: Tuned, n: int = 300) -> dict[str, Array]:
    """As a task of margins has them: the sums, their quarters, and what each place gave."""
    rng = np.random.default_rng(len(one.name))
    length = np.exp(rng.normal(0, 0.5, n))
    chosen = one.chosen * length + rng.normal(0, 0.4, n)
    rejected = one.rejected * length + rng.normal(0, 0.8, n)
    found = {
        "delta_chosen": chosen,
        "delta_rejected": rejected,
        "ideal": (chosen > 0) & (rejected < 0),
        "both_down": (chosen < 0) & (rejected < 0),
        "both_up": (chosen > 0) & (rejected > 0),
        "inverted": (chosen < 0) & (rejected > 0),
        "in@low_edit": np.arange(n) % 2 == 0,
        "in@mid_edit": np.arange(n) % 2 == 1,
        "in@high_edit": np.zeros(n),
    }
    places = {"before": 0.3, "at": 0.6, "after": 0.1}
    for text, delta, base in (("chosen", chosen, -1.0), ("rejected", rejected, -4.0)):
        for place, part in places.items():
            tokens = np.ones(n) if place == "at" else rng.integers(0, 20, n).astype(float)
            reference = base * part * tokens * np.exp(rng.normal(0, 0.1, n))
            found[f"n_{text}_{place}"] = tokens
            found[f"delta_{text}_{place}"] = delta * part
            found[f"{text}_{place}"] = reference + delta * part
    return {name: np.asarray(values, dtype=np.float64) for name, values in found.items()}


def gradients(one: Tuned, n: int = 200, steps: int = 8) -> dict[str, Array]:
    """As a task of gradients has them; the closer a pair's texts, the more they hang together."""
    rng = np.random.default_rng(100 + len(one.name))
    distance = rng.random(n)
    cosine = np.clip(0.95 - distance + rng.normal(0, 0.1, n), -0.3, 0.99)
    chosen, rejected = np.exp(rng.normal(1, 0.4, n)), np.exp(rng.normal(1.3, 0.4, n))
    found = {
        "norm_chosen": chosen,
        "norm_rejected": rejected,
        "inner": cosine * chosen * rejected,
        "cosine": cosine,
        "edit_distance": distance,
        "in@low_edit": distance < 0.1,
        "in@mid_edit": (distance >= 0.1) & (distance < 0.5),
        "in@high_edit": distance >= 0.5,
    }
    for t in range(1, steps + 1):
        there = np.where(rng.random(n) < 1 / t, 1.0, np.nan) if t > 4 else np.ones(n)
        grown = 0.0 if t == 1 else 0.2 * np.sqrt(t) * np.exp(0.02 * one.rejected)
        for name, scale, least in (
            ("probability_difference_l2", grown, 0.0),
            ("gradient_difference_l2", grown + 0.4, 0.0),
            ("information_difference", 3 * grown, 0.0),
        ):
            noise = np.exp(rng.normal(0, 0.3, n))
            found[f"{name}@{t}"] = (scale * noise + least) * there
            found[f"{name}_random@{t}"] = (0.02 * scale * (noise * 0 + 1) + least) * there
    return {name: np.asarray(values, dtype=np.float64) for name, values in found.items()}


TALK, KL = "made_up_winrate", "made_up_divergence"


def divergences(one: Tuned, n: int = 120) -> dict[str, Array]:
    """As a task of divergences has them: the farther a text moved, the larger."""
    rng = np.random.default_rng(200 + len(one.name))
    return {"kl": abs(one.rejected) * np.exp(rng.normal(0, 0.3, n)) + rng.normal(0, 0.5, n)}


def comparisons(one: Tuned, n: int = 120, *, temperature: float = 0.0) -> dict[str, Array]:
    """As a comparison has them, by a reward model: far is good at first, and then it is not."""
    rng = np.random.default_rng(300 + len(one.name))
    gain = 0.25 * abs(one.rejected) - 0.02 * one.rejected**2 - 0.4 * temperature
    reward = gain + rng.normal(0, 1, n)
    chars = rng.integers(20, 200, (2, n)).astype(float)
    return {
        "reward": reward,
        "win": (reward > rng.normal(0, 1, n)).astype(float),
        "n_chars": chars[0],
        "n_chars_opponent": chars[1],
    }


def tokens_of(text: Sequence[str]) -> str:
    """Tokens as an answer keeps them."""
    return BETWEEN.join(text)


def stored(folder: Path, cell: str, answers: Sequence[Answer]) -> Store:
    """A results directory with the answers of one cell more."""
    store = Store(folder)
    with store.claim(cell) as claimed:
        assert claimed is not None
        claimed.seal(answers, [], {one.item: str(one.item) for one in answers}, {"cell": cell})
    return store


def cosines(item: int, chosen: Sequence[str], rejected: Sequence[str], *, seed: int = 0) -> Answer:
    """An answer with a made-up map of cosines."""
    rng = np.random.default_rng(seed)
    alike = np.array([[float(a == b) for b in rejected] for a in chosen])
    matrix = np.clip(0.8 * alike + rng.normal(0, 0.3, alike.shape), -1, 1)
    texts = tokens_of(chosen), tokens_of(rejected)
    return Answer(item, texts=texts, cosines=tuple(map(float, matrix.ravel())))


def judged(task: str) -> Group:
    """The group of a comparison."""
    return Group(task, task, opponent="sft", judge="toy", shown=("win_rate",))
