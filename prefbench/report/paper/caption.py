"""What a printed table says of itself: the sentences of its caption and of the notes below it.

All of them are plain text; who prints them escapes them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from prefbench.boards.shown import LEFT_OUT, Shown
from prefbench.leaderboard import Column, Gathered, Group
from prefbench.metrics import Metric
from prefbench.records import Checkpoint
from prefbench.report.layout import plain
from prefbench.report.tables import FEW, figure
from prefbench.stats.estimates import Estimate
from prefbench.stats.winrate import FEWEST
from prefbench.store import Store

IntervalStyle: TypeAlias = Literal["bracket", "pm", "subscript"]

DAGGERS: Mapping[str, str] = {"better": "†", "worse": "‡", "different": "§", "noise": "≈", "": ""}
"""What a printed table sets beside a value by its verdict."""

LONGEST = 600
"""Characters of a note, which may quote what an engine or a server said."""


@dataclass(frozen=True)
class Conditions:
    """How a group's cells were measured, as a manifest has it."""

    n_shots: int = 0
    shots: str = ""
    """The split that examples come from."""
    sampling: Mapping[str, Any] | None = None
    """Of texts: temperature, top_p, seed, max_gen_toks; None where nothing was generated."""


def conditions_of(results: Path, gathered: Gathered) -> dict[str, Conditions]:
    """By group, how it was measured. Wherever checkpoints differ in it, the board's notes say so.

    Raises:
        StoreError: the directory has no readable results.
    """
    store = Store(results, create=False)
    found: dict[str, Conditions] = {}
    for (_, group), cell in gathered.cells.items():
        manifest = None if group in found else store.manifest(cell)
        if manifest is not None:
            found[group] = Conditions(
                n_shots=manifest.get("task", {}).get("n_shots") or 0,
                shots=manifest.get("identity", {}).get("shots") or "",
                sampling=manifest.get("sampling"),
            )
    return found


class Missing:
    """The reasons of missing cells, numbered in the order in which a reader meets them."""

    def __init__(self, shown: Shown) -> None:
        self.shown = shown
        self.numbers: dict[str, int] = {}
        for row in shown.board.rows:
            for column in shown.columns:
                if shown.entry(row, column) is None:
                    reason = shown.board.reason(row, column)
                    self.numbers.setdefault(reason, len(self.numbers) + 1)

    def number(self, row: Checkpoint, column: Column) -> int:
        """The note's number of an entry that is missing."""
        return self.numbers[self.shown.board.reason(row, column)]

    def notes(self) -> list[tuple[int, str]]:
        return [(number, shortened(plain(reason))) for reason, number in self.numbers.items()]


def caption(
    shown: Shown,
    *,
    marks: Mapping[str, str] = DAGGERS,
    style: IntervalStyle = "bracket",
    letters: bool = False,
) -> list[str]:
    """What the signs of a table mean, in the order of their weight."""
    tasks = list(dict.fromkeys(column.group.task for column in shown.columns))
    rows = shown.board.rows
    what = "method" if any(map(_is_pool, rows)) else "checkpoint"
    lead = f"{_count(len(rows), what)} on {_count(len(tasks), 'task')}."
    sentences = [lead, intervals(shown, style), units(shown), best(shown)]
    sentences += [letter_groups(shown) if letters else "", significance(shown, marks)]
    if any(column.metric.higher_is_better is not None for column in shown.columns):
        sentences.append("Arrows point to the better side.")
    return [sentence for sentence in sentences if sentence]


def intervals(shown: Shown, style: IntervalStyle = "bracket") -> str:
    """How intervals are written, and what they are."""
    known = [
        (entry.score.estimate, column.metric)
        for row in shown.board.rows
        for column in shown.columns
        if (entry := shown.entry(row, column)) and not math.isnan(entry.score.estimate.low)
    ]
    if not known:
        return ""
    methods = {estimate.method.partition(",")[0] for estimate, _ in known}
    kind = "BCa bootstrap" if "bca" in methods else "bootstrap"
    what = f"{100 * shown.board.confidence:.6g}% {kind} interval"
    exceptions = [text for method, text in _EXCEPTIONS.items() if method in methods]
    if style == "bracket":
        said = f"Brackets hold {what}s over items"
    elif style == "subscript":
        said = f"Sub- and superscripts are the bounds of {what}s over items"
    elif all(_is_even(estimate, metric) for estimate, metric in known):
        said = f"± is half of a {what} over items"
    else:
        said = f"± is the distance to the farther bound of a {what} over items"
    return "; ".join([said, *exceptions]) + "."


_EXCEPTIONS = {
    "wilson": "Wilson's for shares of 0 or 100%",
    "imported": "by standard errors where values came without items",
    "confidence sequence": "confidence sequences for judging that ended when it was sure",
}


def reach(estimate: Estimate) -> float:
    """From the value to the farther bound of its interval."""
    return max(estimate.high - estimate.value, estimate.value - estimate.low)


def _is_even(estimate: Estimate, metric: Metric) -> bool:
    """Whether both bounds are as far from the value, as a table writes it."""
    above = figure(estimate.high - estimate.value, metric)
    return above == figure(estimate.value - estimate.low, metric)


def units(shown: Shown) -> str:
    """Which columns are in percent, and which in nats."""
    said = []
    for unit, name in (("percent", "percent"), ("nats", "nats"), ("bits", "bits")):
        metrics = dict.fromkeys(_kind(c.metric) for c in shown.columns if c.metric.unit == unit)
        if metrics:
            said.append(f"{', '.join(metrics)} in {name}")
    return _sentence("; ".join(said))


def best(shown: Shown) -> str:
    """What is printed in bold."""
    marked = (shown.in_best_group(row, c) for row in shown.board.rows for c in shown.columns)
    if not any(marked):
        return ""
    return "Bold: the best of its column and all that are not significantly worse."


def letter_groups(shown: Shown) -> str:
    """What the letters mean."""
    if not any(shown.letters(row, c) for row in shown.board.rows for c in shown.columns):
        return ""
    return "Values of a column that share a letter do not differ significantly; the best has an a."


def significance(shown: Shown, marks: Mapping[str, str] = DAGGERS) -> str:
    """What the marks mean: against whom, at what level, corrected how and over how many."""
    board = shown.board
    verdicts = {shown.verdict(row, column) for row in board.rows for column in shown.columns}
    if not shown.n_comparisons:
        return ""
    how = f"p\u00a0<\u00a0{shown.alpha:.2g}, {correction(shown)}"
    if not board.baseline:
        return f"Significant: {how}."
    than = " and ".join(f"{marks[v]} {v}" for v in ("better", "worse") if v in verdicts)
    told = [f"{than} than the baseline"] if than else []
    told += [f"{marks['different']} different from the baseline"] if "different" in verdicts else []
    if "noise" in verdicts:
        noise = "from the baseline by no more than a checkpoint measured twice from itself"
        told.append(f"{marks['noise']} different {noise}")
    said = ", ".join(told)
    if not said:
        return f"No difference to the baseline on the same items is significant ({how})."
    return f"{said}, on the same items ({how})."


def correction(shown: Shown) -> str:
    """How the table's comparisons were corrected, and over how many."""
    return f"{_CORRECTIONS[shown.correction]} {_count(shown.n_comparisons, 'comparison')}"


_CORRECTIONS = {
    "holm": "Holm's correction over",
    "bh": "Benjamini and Hochberg's correction over",
    "none": "not corrected for",
}


DETECTABLE = "Detectable: the difference to the baseline that would be found with 80% power."


def footnotes(shown: Shown, conditions: Mapping[str, Conditions] | None = None) -> list[str]:
    """What stands below a table but for the reasons of missing cells: how it came about."""
    notes = [*told_conditions(shown, conditions or {}), runs(shown.board.rows), *warnings(shown)]
    if any(shown.detectable(column) is not None for column in shown.columns):
        notes.insert(0, DETECTABLE)
    groups = {column.group.name for column in shown.columns}
    others = {c.group.name for c in shown.board.columns} - groups
    told = (
        note for note in shown.board.notes if not any(note.startswith(f"{o}: ") for o in others)
    )
    return [shortened(plain(note)) for note in (*notes, *map(_sentence, told)) if note]


def items(shown: Shown, column: Column) -> str:
    """How many items gave a column's values: one number, or from where to where."""
    entries = [shown.entry(row, column) for row in shown.board.rows]
    counts = sorted({e.score.estimate.n for e in entries if e} - {0})  # 0: nobody said how many
    return f"{counts[0]}–{counts[-1]}" if len(counts) > 1 else "".join(map(str, counts))


def warnings(shown: Shown) -> list[str]:
    """What limits the numbers that are shown."""
    told = []
    entries = [
        entry
        for row in shown.board.rows
        for column in shown.columns
        if (entry := shown.entry(row, column))
    ]
    scores = [entry.score for entry in entries]
    if any(0 < score.estimate.n < FEW for score in scores):
        told.append(f"Intervals over fewer than {FEW} items tend to be too narrow.")
    if any(s.metric.startswith("lc_win_rate") and s.estimate.method == "none" for s in scores):
        told.append(
            f"A length-controlled win rate has an interval from {FEWEST} wins and {FEWEST} losses "
            "on; without one it may be far off."
        )
    if shown.leaves_out_rows():
        told.append(LEFT_OUT)
    if any(entry.difference and entry.difference.method == "unpaired" for entry in entries):
        told.append("Values that came without items are compared unpaired, by standard errors.")
    if any(column.group.conditions for column in shown.columns):
        told.append("Columns with conditions under their name are not the whole standard task.")
    return told


def told_conditions(shown: Shown, conditions: Mapping[str, Conditions]) -> list[str]:
    """Examples before each item and how texts were drawn, once for all groups where alike."""
    examples: dict[str, list[str]] = {}
    drawn: dict[str, list[str]] = {}
    for group in _groups(shown):
        one = conditions.get(group.name)
        if one is None:
            continue
        if one.n_shots:
            split = f" from the {one.shots} split" if one.shots else ""
            text = f"{_count(one.n_shots, 'example')}{split} before each item"
            examples.setdefault(text, []).append(group.task)
        if one.sampling is not None:
            drawn.setdefault(_drawn(one.sampling), []).append(group.task)
    told = [*examples.items(), *drawn.items()]
    return [f"{', '.join(dict.fromkeys(where))}: {text}." for text, where in told]


def _drawn(sampling: Mapping[str, Any]) -> str:
    most = f", at most {sampling['max_gen_toks']} tokens" if sampling.get("max_gen_toks") else ""
    if not sampling.get("temperature"):
        return f"texts by greedy decoding{most}"
    parts = [f"temperature {sampling['temperature']:g}"]
    if 0 < sampling.get("top_p", 1) < 1:
        parts.append(f"top-p {sampling['top_p']:g}")
    if sampling.get("top_k", 0) > 0:
        parts.append(f"top-k {sampling['top_k']}")
    return f"texts drawn with {', '.join(parts)}, seed {sampling.get('seed', 0)}{most}"


def runs(rows: Sequence[Checkpoint]) -> str:
    """What the rows are of the training runs behind them."""
    if any(map(_is_pool, rows)):
        return "" if all(map(_is_pool, rows)) else "A row of one seed is one training run."
    known = {row.seed for row in rows if row.seed is not None}
    seeds: dict[tuple[Any, ...], set[int | None]] = {}
    for row in rows:
        seeds.setdefault((row.method, row.step), set()).add(row.seed)
    if any(len(found) > 1 for found in seeds.values()):
        return "Rows of one method differ in the seed of training."
    seed = f" (seed {known.pop()})" if len(known) == 1 else ""
    return f"Each row is one training run{seed}; intervals do not cover further runs."


def _is_pool(row: Checkpoint) -> bool:
    """Whether a row stands for several checkpoints, which is why it lies nowhere."""
    return row.path == Path()


def shortened(text: str, longest: int = LONGEST) -> str:
    """A text with its middle left out where it is too long; both ends may tell it from others."""
    if len(text) <= longest:
        return text
    end = longest // 3
    return f"{text[: longest - end - 1]}…{text[-end:]}"


def _groups(shown: Shown) -> Iterable[Group]:
    return {column.group.name: column.group for column in shown.columns}.values()


def _kind(metric: Metric) -> str:
    """A metric's name without its version, and without the extractor of lm-eval's."""
    return metric.name.partition(".v")[0].partition(",")[0]


def _count(n: int, what: str) -> str:
    return f"{n} {what}" + ("" if n == 1 else "s")


def _sentence(text: str) -> str:
    """The text with its full stop; empty where there is nothing to say."""
    return f"{text.removesuffix('.')}." if text else ""
