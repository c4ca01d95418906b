"""A results directory for the page's tests: three tasks, three checkpoints, and hostile texts."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from prefbench.comparisons import facts_of
from prefbench.judges.judge import Ask, Turn, Verdict, key_of
from prefbench.judges.opening import PlannedJudge
from prefbench.judges.recipe import JudgeRecipe
from prefbench.judges.verdicts import Verdicts
from prefbench.judging import VERDICTS
from prefbench.measures.comparison import Pair, compare
from prefbench.records import Answer, Record
from prefbench.store import Store

HOSTILE = (
    "<script>window.ran = 1; alert(1)</script>",
    "</script><script>window.ran2 = 1</script>",
    '"><img src="http://127.0.0.1:9/x" onerror="window.ran3 = 1">',
    "<svg onload=window.ran4=1><a href=javascript:window.ran5=1>",
    "</template></textarea></title></style><iframe srcdoc='<script>parent.ran6=1</script>'>",
    "<meta http-equiv=refresh content='0;url=http://127.0.0.1:9/'><link rel=stylesheet href=//a>",
    "<!--<script>{{ 7 * 7 }}{% raw %}${window.ran7=1}",
    "\x1b[31mred\x1b]0;title\x07\x1b[2J\x9b1m",
    "\u202eevil\u2066 one\u2069 \u200b\ufeff\U000e0041",
    "nul \x00, half a pair \ud83d, whole one 😀, \r\n line\u2028end",
    "<style>body { display: none }</style><base href=http://127.0.0.1:9/>",
)
NAME = 'evil"><script>window.ran8=1</script>\x1b[2J\u202e'
LONG = "A long answer. " * 70_000
N = 60
"""Items of a task; answers and names of every third are hostile."""
JUDGE = "careful"
RECIPE = {
    "judge": JUDGE,
    "description": "a judge <b>of</b> tests",
    "kind": "openai",
    "model": "m",
    "prompt": "{{ prompt }}\n{{ first }}\n{{ second }}",
    "verdict": {"by": "line", "marker": "Verdict:", "labels": {"A": 1, "B": 0}},
    "endpoint": {"base_url": "http://127.0.0.1:9/v1"},
}


@dataclass(frozen=True)
class Voice:
    """A judge of these tests: who it is, under which key it is kept, and what it says."""

    planned: PlannedJudge
    key: str
    says: Callable[[int, Ask], Verdict]
    symmetric: bool = False
    members: tuple[Voice, ...] = ()


def _longer(item: int, ask: Ask) -> Verdict:
    first = len(ask.first) >= len(ask.second)
    said = f"{HOSTILE[item % len(HOSTILE)]}\nVerdict: {'A' if first else 'B'}"
    if item % 5 == 0:
        return Verdict(None, f"no label {HOSTILE[0]}", said)
    return Verdict(float(first), None, said, facts={"label": "AB"[not first]})


def careful(name: str = JUDGE) -> Voice:
    """Prefers the longer answer, the first of equally long ones; every fifth cannot be read."""
    recipe = JudgeRecipe.model_validate({**RECIPE, "judge": name})
    return Voice(PlannedJudge(recipe, Path()), recipe.key, _longer)


def rating() -> Voice:
    """A reward model: its key hangs on more than a manifest has, and it sees no order."""
    facts = {"judge": "rating", "description": "rates", "kind": "reward", "model": "m"}

    def says(item: int, ask: Ask) -> Verdict:
        first, second = len(ask.first) / 8, len(ask.second) / 8
        scores = {"score_first": first, "score_second": second}
        return Verdict((first > second) / 2 + (first >= second) / 2, facts=scores)

    planned = PlannedJudge(JudgeRecipe.model_validate(facts), Path())
    return Voice(planned, "weights-and-number-format", says, symmetric=True)


def panel() -> Voice:
    """One who can be read and one who never can: half of them is enough."""
    mute = careful("mute")
    mute = replace(mute, key="mute", says=lambda item, ask: Verdict(None, "says nothing", "…"))
    able = replace(
        careful("able"), key="able", says=lambda item, ask: Verdict(float(ask.first > ask.second))
    )
    facts = {
        "judge": "both", "description": "two", "kind": "panel", "members": ["able", "mute"],
        "rule": "majority",
    }  # fmt: skip
    recipe = JudgeRecipe.model_validate(facts)
    planned = PlannedJudge(recipe, Path(), members=(able.planned, mute.planned))
    return Voice(planned, "panel", able.says, members=(able, mute))


def text_of(item: int, who: str) -> str:
    """What a checkpoint answers; text 4 of dpo is very long."""
    if item == 4 and who == "dpo":
        return LONG
    if item % 3 == 0:
        return f"{who} {HOSTILE[item // 3 % len(HOSTILE)]}"
    return f"{who} says {item}" if item % 2 else "the same"


class Made:
    """A results directory that grows cell by cell; `write` records the run."""

    def __init__(self, folder: Path) -> None:
        self.store = Store(folder)
        self.folder = folder
        self.checkpoints: dict[str, dict[str, Any]] = {}
        self.cells: list[dict[str, Any]] = []
        self.comparisons: list[dict[str, Any]] = []
        self.texts: dict[str, list[str]] = {}

    def checkpoint(self, name: str, method: str | None, **facts: Any) -> str:
        self.checkpoints[name] = {
            "name": name, "path": f"/runs/{len(self.checkpoints)}", "state": "ready",
            "method": method, "fingerprint": f"bytes of {name}", **facts,
        }  # fmt: skip
        return name

    def cell(
        self,
        who: str,
        task: str,
        answers: Sequence[Answer],
        records: Iterable[Record],
        items: Sequence[Mapping[str, Any]],
        *,
        shown: Sequence[str],
        config: Mapping[str, Any],
        limit: int | None = None,
        better: Mapping[str, bool] | None = None,
        planned: bool = True,
    ) -> str:
        """Seals a cell as a run would."""
        cell = f"{task}-{list(self.checkpoints).index(who)}"
        identity = {
            "checkpoint": self.checkpoints[who]["fingerprint"], "task": task, "data": "d",
            "shots": None, "limit": limit, "fewshot": None, "chat": False, "dtype": "float32",
            "engine": "hf", "max_length": None,
        }  # fmt: skip
        manifest = {
            "cell": cell, "identity": identity, "checkpoint": self.checkpoints[who],
            "n_items": len(items), "n_missing": sum(a.reason is not None for a in answers),
            "missing": {a.reason: 1 for a in answers if a.reason}, "n_cut": 0, "n_unfinished": 0,
            "items": f"items-{task}", "task": {"name": task, "config": dict(config), "n_shots": 0},
            "higher_is_better": dict(better or {}),
            "engine": {"kind": "hf", "dtype": "float32", "notes": [HOSTILE[0]]},
            "data": {"title": f"data of {task}", "revision": "abc"}, "warnings": [HOSTILE[2]],
            "versions": {"prefbench": "0"}, "host": {}, "command": ["prefbench", "run", HOSTILE[7]],
            "finished": "2026-01-01T00:00:00+00:00", "seconds": 1.5, "sampling": None,
            "settings": {},
        }  # fmt: skip
        self.store.write_items(f"items-{task}", items)
        clusters = {row["item"]: row["cluster"] for row in items}
        with self.store.claim(cell) as claimed:
            assert claimed is not None
            claimed.seal(answers, records, clusters, manifest)
        if planned:
            self.cells.append(
                {"cell": cell, "checkpoint": who, "task": task, "shown": list(shown),
                 "missing": None, "identity": identity}
            )  # fmt: skip
        return cell

    def missing(self, who: str, task: str, reason: str) -> None:
        """A cell that was planned and not measured."""
        like = next(cell for cell in self.cells if cell["task"] == task)
        identity = {**like["identity"], "checkpoint": self.checkpoints[who]["fingerprint"]}
        self.cells.append(
            {**like, "cell": "none", "checkpoint": who, "missing": reason, "identity": identity}
        )

    def compared(
        self,
        who: str,
        opponent: str,
        task: str,
        answers: tuple[str, str],
        *,
        judge: Voice | None = None,
        against: str = "sft",
    ) -> str:
        """Judges the answers of two cells, and keeps the verdicts."""
        judge = judge or careful()
        pairs = [
            Pair(
                i, str(i), (Turn("user", f"question {i}"),), (ours,), (theirs,),
                reason="too long" if i == 7 and "dpo" in (who, opponent) else None,
            )
            for i, (ours, theirs) in enumerate(
                zip(self.texts[answers[0]], self.texts[answers[1]], strict=True)
            )
        ]  # fmt: skip
        asks = [(p.item, ask) for p in pairs for ask in p.asks(symmetric=judge.symmetric)]
        heard = {ask: judge.says(item, ask) for item, ask in asks}
        with Verdicts(self.folder / VERDICTS) as kept:
            for voice in judge.members or (judge,):
                for item, ask in asks:
                    key, name = key_of(voice.key, ask), voice.planned.name
                    kept.add(key, ask, voice.says(item, ask), judge=name, judge_key=voice.key)
        records = list(compare(pairs, heard.__getitem__, symmetric=judge.symmetric))
        manifest = self.store.manifest(answers[0])
        assert manifest is not None
        identity = {
            **manifest["identity"], "judge": judge.planned.key, "against": answers[1],
            "opponent": self.checkpoints[opponent]["fingerprint"],
        }  # fmt: skip
        cell = f"{judge.planned.name}-{answers[0]}-{answers[1]}"
        judging = {
            "judge": facts_of(judge.planned), "symmetric": judge.symmetric, "opponent": opponent,
            "answers": answers[0], "opponent_answers": answers[1], "n_verdicts": len(heard),
            "n_unreadable": 0, "n_unheard": 0, "cost": 0.0, "agreement": None, "sure": None,
        }  # fmt: skip
        whole = {**manifest, "cell": cell, "identity": identity, "judging": judging}
        with self.store.claim(cell) as claimed:
            assert claimed is not None
            claimed.seal([], records, {pair.item: pair.cluster for pair in pairs}, whole)
        self.comparisons.append(
            {"cell": cell, "checkpoint": who, "task": task, "shown": ["win_rate"], "missing": None,
             "identity": identity, "against": against, "opponent": opponent,
             "judge": judge.planned.name, "answers": answers[0]}
        )  # fmt: skip
        return cell

    def write(self) -> Path:
        """Records the run."""
        plan = {
            "id": "p", "when": "0", "checkpoints": list(self.checkpoints.values()),
            "cells": self.cells, "comparisons": self.comparisons,
        }  # fmt: skip
        self.store.write_plan("p", plan)
        return self.folder


def quiz(made: Made, who: str, right: Sequence[int], task: str = "quiz", n: int = N) -> str:
    """Multiple choice, the right one at 0; a checkpoint that is wrong prefers 1."""
    items = [
        {"item": i, "cluster": str(i), "prompt": f"Question {i} {HOSTILE[i % len(HOSTILE)]}"
         .encode("utf-8", "replace").decode(), "continuations": [" yes", " no"],
         "fields": json.dumps({"gold": 0})}
        for i in range(n)
    ]  # fmt: skip
    answers, records = [], []
    for i in range(n):
        good = right[i % len(right)]
        logps = (-1.25, -2.5) if good else (-2.5, -1.25)
        answers.append(
            Answer(i, logps=logps, greedy=(False, False), n_tokens=(2, 2), n_bytes=(4, 3))
        )
        records += [Record(i, name, float(good)) for name in ("acc", "acc_norm")]
    return made.cell(
        who, task, answers, records, items, shown=["acc"], config={"doc_to_target": "gold"},
        better={"acc": True, "acc_norm": True},
    )  # fmt: skip


def talk(made: Made, who: str) -> str:
    """Free answers; item 7 of dpo is missing."""
    items = [
        {"item": i, "cluster": str(i), "prompt": f"question {i}", "continuations": [],
         "fields": json.dumps({"reference": f"good {i}", "missing": "", "messages":
                               [{"role": "user", "content": f"question {i}"}]})}
        for i in range(N)
    ]  # fmt: skip
    texts = [text_of(i, who).encode("utf-8", "backslashreplace").decode() for i in range(N)]
    answers = [
        Answer(i, reason=f"too long {HOSTILE[0]}")
        if (i, who) == (7, "dpo")
        else Answer(i, texts=(text,), n_tokens=(9,), n_bytes=(9,), unfinished=(False,))
        for i, text in enumerate(texts)
    ]
    records = [Record(i, "n_chars", float(len(text))) for i, text in enumerate(texts)]
    cell = made.cell(
        who, "talk", answers, records, items, shown=["win_rate"],
        config={"doc_to_target": "{{ reference or '' }}"}, planned=False,
    )  # fmt: skip
    made.texts[cell] = [text.strip() for text in texts]
    return cell


def pairs(made: Made, who: str, gap: float) -> str:
    """Pairs of one chosen and one rejected text."""
    items = [
        {"item": i, "cluster": str(i), "prompt": "p" * 300 + f"\nask {i}",
         "continuations": [" good", f" bad {i}"],
         "fields": json.dumps({"chosen": [" good"], "rejected": [f" bad {i}"]})}
        for i in range(N)
    ]  # fmt: skip
    answers, records = [], []
    for i in range(N):
        logps = (-3.0 - i / N, -3.0 - gap - i / 50)
        answers.append(
            Answer(i, logps=logps, greedy=(True, False), n_tokens=(2, 3), n_bytes=(5, 5))
        )
        for kind, logp, n in zip(("chosen", "rejected"), logps, (2, 3), strict=True):
            found = {
                "sum_logp": logp, "n_tokens": n, "n_bytes": 5, "n_texts": 1,
                "mean_logp": logp / n, "text_logp": logp,
            }  # fmt: skip
            records += [Record(i, f"{name}_{kind}", float(v)) for name, v in found.items()]
        records.append(Record(i, "preferred", float(logps[0] > logps[1])))
    return made.cell(
        who, "pairs", answers, records, items, shown=["perplexity", "agility"], config={}, limit=N
    )


def results(folder: Path) -> Path:
    """All of it: sft, dpo, one with a hostile name, one that was refused."""
    made = Made(folder)
    names = made.checkpoint("sft", "sft", step=10), made.checkpoint("dpo", "dpo", step=20)
    made.checkpoint("dpo-early", "dpo", step=10, path="/runs/1/checkpoint-10")
    made.checkpoints["dpo"]["path"] = "/runs/1"
    evil = made.checkpoint(NAME, None)
    made.checkpoint("broken", "ipo", state="refused", reason=f"pickled {HOSTILE[0]}")
    patterns = {
        "sft": (True, False),
        "dpo": (True,),
        "dpo-early": (True, True, False),
        evil: (False,),
    }
    for who, right in patterns.items():
        quiz(made, who, right)
    for who, gap in (("sft", 0.5), ("dpo", 3.0), ("dpo-early", 1.5)):
        pairs(made, who, gap)
    made.missing(evil, "pairs", f"out of memory {HOSTILE[2]}")
    cells = {who: talk(made, who) for who in names}
    for who in names:
        made.compared(who, "sft", "talk", (cells[who], cells["sft"]))
    return made.write()
