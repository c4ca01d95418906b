"""The verdicts behind a comparison's numbers, found again by what the judge was shown."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from prefbench.errors import JudgeError, StoreError
from prefbench.judges.judge import Ask, Unheard, Verdict, key_of
from prefbench.judges.opening import PlannedJudge
from prefbench.judges.panel import decide_together
from prefbench.judges.recipe import JudgeRecipe
from prefbench.judges.verdicts import MOST
from prefbench.measures.comparison import Heard, Pair, compare
from prefbench.pairing import pairs_between
from prefbench.store import Store

GONE = Unheard("its verdict is not kept here")


class Kept:
    """What judges replied, read from a results directory that is left as it is."""

    def __init__(self, file: Path) -> None:
        """Opens the verdicts; a directory without any has none.

        Raises:
            StoreError: they cannot be read.
        """
        self.file = file
        self.keys: dict[str, list[str]] = {}
        self._connection: sqlite3.Connection | None = None
        if not file.exists():
            return
        with self._explained():
            self._connection = _opened(file)
            for judge, key in self._connection.execute(
                "SELECT judge, judge_key FROM verdicts GROUP BY judge, judge_key ORDER BY MAX(kept)"
            ):
                if " " not in key:  # those asked a second time are no part of any comparison
                    self.keys.setdefault(judge, []).insert(0, key)

    def __enter__(self) -> Kept:
        return self

    def __exit__(self, *raised: Any) -> None:
        if self._connection:
            self._connection.close()

    def find(self, judge_key: str, asks: Sequence[Ask]) -> dict[Ask, Verdict]:
        """The verdicts of a judge that are kept."""
        keys = {key_of(judge_key, ask): ask for ask in asks}
        found: dict[Ask, Verdict] = {}
        names = list(keys)
        with self._explained():
            for start in range(0, len(names) if self._connection else 0, MOST):
                part = names[start : start + MOST]
                assert self._connection is not None
                rows = self._connection.execute(
                    "SELECT key, preference, reason, reply, facts FROM verdicts "
                    f"WHERE key IN ({','.join('?' * len(part))})",
                    part,
                )
                for key, preference, reason, reply, facts in rows:
                    found[keys[key]] = Verdict(preference, reason, reply, facts=json.loads(facts))
        return found

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, ValueError) as error:
            raise StoreError(f"{self.file}: cannot be read: {error}") from error


def _opened(file: Path) -> sqlite3.Connection:
    """The file for reading, with no trace beside it; also where the directory cannot be written.

    What a writer has not yet put into the file itself lies in its -wal; only then is that looked
    at, which makes a file for shared memory.
    """
    place = f"{file.resolve().as_uri()}?mode=ro"
    if file.with_name(f"{file.name}-wal").exists():
        connection = sqlite3.connect(place, uri=True)
        try:
            connection.execute("SELECT 1 FROM verdicts LIMIT 1")
        except sqlite3.OperationalError:
            connection.close()
        else:
            return connection
    return sqlite3.connect(f"{place}&immutable=1", uri=True)


def verdicts_of(
    store: Store, kept: Kept, cell: str, names: tuple[str, str]
) -> tuple[dict[int, list[dict[str, Any]]], str | None]:
    """What was judged of each item of a comparison, or why that cannot be told.

    A judge's name may stand for several, one after the other. Those verdicts are taken that give
    the numbers that the cell has; where none do, none are shown.

    Args:
        store: the results.
        kept: the verdicts.
        cell: the comparison's.
        names: of the checkpoint and of its opponent.

    Returns:
        By item the verdicts as `_told` writes them, and the reason where there are none.
    """
    manifest = store.manifest(cell)
    assert manifest is not None
    judging = manifest["judging"]
    try:
        judge = _judge(judging["judge"])
        pairs = pairs_between(
            store, judging["answers"], judging["opponent_answers"], names=names, judge=judge
        )
    except (ValidationError, JudgeError):  # a definition that this version does not know
        return {}, f"the verdicts of {judging['judge']['name']} cannot be told from its manifest"
    expected = {
        row["item"]: row["win"]
        for row in store.records(cell).to_pylist()
        if row.get("win") is not None
    }
    symmetric = bool(judging["symmetric"])
    asks = [ask for pair in pairs for ask in pair.asks(symmetric=symmetric)]
    for heard in _candidates(kept, judge, asks):
        found = {
            record.item: record.value
            for record in compare(pairs, lambda a, h=heard: h.get(a, GONE), symmetric=symmetric)  # type: ignore[misc]
            if record.quantity == "win"
        }
        if all(
            (given := found.get(item)) is not None and math.isclose(value, given, abs_tol=1e-9)
            for item, value in expected.items()
        ):
            return {pair.item: _told(pair, heard, symmetric) for pair in pairs}, None
    return {}, f"no verdicts of {judge.name} that give these numbers are kept here"


def _judge(facts: Mapping[str, Any]) -> PlannedJudge:
    """The judge that a manifest tells of, as far as pairs and keys need it."""
    recipe = JudgeRecipe.model_validate(facts["recipe"])
    return PlannedJudge(recipe, Path(), members=tuple(map(_judge, facts["members"])))


def _candidates(
    kept: Kept, judge: PlannedJudge, asks: Sequence[Ask]
) -> Iterator[Mapping[Ask, Heard]]:
    """What a judge said of some asks, once for each that had its name, the likeliest first."""
    if judge.recipe.kind == "panel":
        said = {
            member.name: next(_candidates(kept, member, asks), {}) for member in judge.members
        }  # fmt: skip
        yield {ask: _together(said, ask, judge.recipe.rule) for ask in asks}
        return
    keys = kept.keys.get(judge.name, [])
    for key in sorted(keys, key=lambda one: one != judge.recipe.key):
        found = kept.find(key, asks)
        if found or not asks:
            yield found
    if not asks and not keys:
        yield {}


def _together(said: Mapping[str, Mapping[Ask, Heard]], ask: Ask, rule: str) -> Heard:
    """A panel's verdict with those of its members inside."""
    members = {name: heard.get(ask, GONE) for name, heard in said.items()}
    preferences = [
        one.preference
        for one in members.values()
        if isinstance(one, Verdict) and one.preference is not None
    ]
    if 2 * len(preferences) < len(members):
        return Unheard("too few members of the panel gave a preference")
    return Verdict(decide_together(preferences, rule), facts={"members": members})


def _told(pair: Pair, heard: Mapping[Ask, Heard], symmetric: bool) -> list[dict[str, Any]]:
    """Each verdict on an item that is kept, its preference turned so that 1 is a win."""
    told: list[dict[str, Any]] = []
    for sample, (ours, theirs) in enumerate(() if pair.reason else pair.samples):
        if ours == theirs:
            told.append({"sample": sample, "identical": True})
        one = dataclasses.replace(pair, answers=(ours,), opponents=(theirs,))
        for ask in one.asks(symmetric=symmetric):
            if ask in heard:
                first = ask.first == ours
                place = {} if symmetric else {"first": first}
                told.append({"sample": sample, **place, **_one(heard[ask], first)})
    return told


def _one(heard: Heard, first: bool) -> dict[str, Any]:
    if isinstance(heard, Unheard):
        return {"preference": None, "reason": heard.reason}
    preference = heard.preference
    if preference is not None and not first:
        preference = 1 - preference
    told: dict[str, Any] = {"preference": preference}
    if heard.reason:
        told["reason"] = heard.reason
    if heard.reply:
        told["reply"] = heard.reply
    scores = [heard.facts.get(f"score_{place}") for place in ("first", "second")]
    if None not in scores:
        told["scores"] = scores if first else scores[::-1]
    if heard.facts.get("label") is not None:
        told["label"] = heard.facts["label"]
    if members := heard.facts.get("members"):
        told["members"] = {name: _one(one, first) for name, one in members.items()}
    return told
