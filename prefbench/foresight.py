"""What a run would do and what its judges would cost, without measuring or asking anybody."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefbench import data
from prefbench.cells import PlannedCell, Settings, once
from prefbench.comparisons import Judging, PlannedComparison
from prefbench.judges.budget import estimate
from prefbench.judges.judge import Ask, Turn, key_of
from prefbench.judges.opening import PlannedJudge
from prefbench.judges.verdicts import Verdicts
from prefbench.judging import VERDICTS, is_judged
from prefbench.pairing import pairs_of
from prefbench.runner import plan_run
from prefbench.store import Store, there

BYTES_A_TOKEN = 4
"""Of English, about: an answer that is not written yet is taken to be as long as it may get."""


@dataclass(frozen=True)
class Bill:
    """What a judge would take, likely and at most; in US dollars, by the price of its YAML."""

    judge: PlannedJudge
    n_comparisons: int
    calls: int
    n_kept: int
    """Verdicts that are there already and cost nothing."""
    n_in: int
    n_out_most: int
    cost: float
    cost_most: float
    supposed: bool
    """Some answers are not there yet: each is taken to be as long as it may get, and new."""


@dataclass(frozen=True)
class Foresight:
    """What a run would do."""

    checkpoints: Mapping[str, str]
    """States by name."""
    to_measure: tuple[str, ...]
    n_measured: int
    n_judged: int
    bills: tuple[Bill, ...]
    reasons: tuple[str, ...]
    """Why some of it cannot be done."""


def foresee(
    root: Path | Sequence[Path],
    *,
    tasks: Sequence[str] = ("paper",),
    results: Path = Path("results"),
    settings: Settings | None = None,
    judging: Judging | None = None,
    mirrors: Sequence[Path] = (),
    task_folders: Sequence[Path] = (),
    final_only: bool = False,
) -> Foresight:
    """What `run` with the same arguments would do.

    Raises:
        PrefbenchError: as `run`, where nothing could be measured at all.
    """
    settings, judging = settings or Settings(), judging or Judging()
    checkpoints, cells, comparisons, beside, _ = plan_run(
        root,
        tasks=tasks,
        settings=settings,
        judging=judging,
        mirrors=mirrors,
        task_folders=task_folders,
        final_only=final_only,
    )
    store = there(results)
    unique = once([*cells, *beside.cells, *beside.later])
    todo = {
        name: cell.title
        for name, cell in unique.items()
        if not cell.planned.missing and not (store and store.is_sealed(name))
    }
    left = {
        one.cell: one
        for one in comparisons
        if not one.answers.planned.missing and not (store and is_judged(store, one))
    }
    by_judge: dict[str, list[PlannedComparison]] = {}
    for one in left.values():
        by_judge.setdefault(one.judge.key, []).append(one)
    asked: set[str] = set()
    missing = [cell.planned.missing for cell in cells] + [one.missing for one in left.values()]
    missing += [one.missing for one in beside.analyses]
    return Foresight(
        checkpoints={c.name: c.reason or c.state for c in checkpoints},
        to_measure=tuple(todo.values()),
        n_measured=len(unique) - len(todo),
        n_judged=len({one.cell for one in comparisons}) - len(left),
        bills=tuple(_bill(members, store, asked) for members in by_judge.values()),
        reasons=tuple(dict.fromkeys(reason for reason in missing if reason)),
    )


def _bill(comparisons: Sequence[PlannedComparison], store: Store | None, asked: set[str]) -> Bill:
    """What one judge would take for all it has to judge, besides what another bill has `asked`."""
    judge = comparisons[0].judge
    asks: dict[str, Ask] = {}
    supposed = False
    for one in comparisons:
        if one.missing:
            continue
        if store and _answered(one, store):
            pairs = pairs_of(one, store)
            several = [ask for pair in pairs for ask in pair.asks(symmetric=judge.symmetric)]
        else:
            several, supposed = list(_supposed(one)), True
        asks |= {ask.digest: ask for ask in several}
    members = [one for one in (judge.members or (judge,)) if one.recipe.kind == "openai"]
    n_kept = calls = n_in = n_out = 0
    cost = cost_most = 0.0
    for member in members:
        lacking = _lacking(member, list(asks.values()), store)
        n_kept += len(asks) - len(lacking)
        found = estimate(member.recipe, [a for key, a in lacking.items() if key not in asked])
        asked.update(lacking)
        calls, n_in, n_out = calls + found.calls, n_in + found.n_in, n_out + found.n_out_most
        cost, cost_most = cost + found.cost, cost_most + found.cost_most
    if not members:
        calls = len(asks)
    return Bill(judge, len(comparisons), calls, n_kept, n_in, n_out, cost, cost_most, supposed)


def _answered(one: PlannedComparison, store: Store) -> bool:
    both = [one.answers, one.opponent_answers]
    return all(store.is_sealed(cell.cell) for cell in both if cell)


def _lacking(judge: PlannedJudge, asks: Sequence[Ask], store: Store | None) -> dict[str, Ask]:
    """What the store has no verdict on, by the verdict's key."""
    by_key = {key_of(judge.recipe.key, ask): ask for ask in asks}
    file = store.folder / VERDICTS if store else None
    if file is None or not file.exists():
        return by_key
    with Verdicts(file) as verdicts:
        kept = verdicts.find(by_key)
    return {key: ask for key, ask in by_key.items() if key not in kept}


def _supposed(one: PlannedComparison) -> Iterator[Ask]:
    """Asks about answers that are not there yet."""
    n_samples = one.task.n_texts
    length = BYTES_A_TOKEN * int(one.task.config["generation_kwargs"].get("max_gen_toks", 256))
    names = [one.checkpoint.name, one.opponent]
    for document in _documents(one.answers):
        if document["missing"]:
            continue
        turns = tuple(Turn(turn["role"], turn["content"]) for turn in document["messages"])
        for k in range(n_samples):
            # Told apart, as the answers would be.
            texts = [f"{name} {k} ".ljust(length, "x") for name in names]
            if one.opponent_answers is None:
                if document["reference"] is None:
                    continue
                texts[1] = document["reference"]
            elif one.answers.cell == one.opponent_answers.cell:
                continue
            ask = Ask(turns, *texts)
            yield ask
            if not one.judge.symmetric:
                yield ask.turned


def _documents(cell: PlannedCell) -> list[dict[str, Any]]:
    """The documents of a comparison, as its `process_docs` makes them."""
    source, split = cell.planned.source, cell.task.eval_split
    assert source is not None
    documents = data.load(source, [split])[split]
    process = cell.task.config.get("process_docs")
    rows = (process.resolve()(documents) if process else documents).to_list()
    kept: list[dict[str, Any]] = rows[: cell.planned.limit]
    return kept
