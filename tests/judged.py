"""Judged runs for tests: drawn answers of real checkpoints, judges as YAML, and who was asked what.

    python -m tests.judged PLACE JUDGING

judges in a process of its own what the JSON of the place's and of the judging's fields say.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from filelock import FileLock

import prefbench.judges.chat
from prefbench.boards.shown import show
from prefbench.cells import Settings
from prefbench.client import Endpoint
from prefbench.comparisons import Judging
from prefbench.foresight import Foresight, foresee
from prefbench.report.collect import collect
from prefbench.report.tables import render, rows_of
from prefbench.runner import Outcome, plan_run, run
from prefbench.store import Store
from prefbench.tasks import tasks_folder
from tests.misbehaving import Misbehaving

N = 8
"""Prompts."""
# Drawn, since checkpoints that have learnt next to nothing all prefer the same token.
TASK = r"""
task: drawn
output_type: generate_until
num_fewshot: 0
dataset_path: prefbench/demo-dialogues
test_split: test
process_docs: !function prefbench.documents.hh_prompts
doc_to_text: "{{prompt}}"
doc_to_target: "{{reference or ''}}"
generation_kwargs:
  {until: ["\n\nHuman:"], do_sample: true, temperature: 1.0, max_gen_toks: 8, seed: 0}
metric_list:
  - {metric: bypass, aggregation: bypass, higher_is_better: true}
metadata:
  version: 1.0
  prefbench:
    measure: comparison
    judge: demo_reward
    opponent: sft
    metrics: [win_rate, lc_win_rate]
"""
RANKED = f"""
include: {tasks_folder() / "_pairs.yaml"}
task: ranked
dataset_path: prefbench/demo-candidates
test_split: test
process_docs: !function prefbench.candidate_documents.hh_candidates
metadata:
  prefbench: {{measure: ranking, judge: demo_reward, metrics: [kendall_tau]}}
"""
RECIPE = {
    "kind": "openai",
    "model": "m",
    "prompt": "{{ prompt }}\n\nAnswer A:\n{{ first }}\n\nAnswer B:\n{{ second }}",
    "verdict": {"by": "line", "marker": "Verdict:", "labels": {"A": 1, "tie": 0.5, "B": 0}},
    "sampling": {"max_tokens": 30},
    "price": {"input": 2.0, "output": 8.0},
}
PLANNED = (
    "root", "tasks", "settings", "judging", "mirrors", "task_folders", "final_only",
)  # fmt: skip
FENCED = re.compile(r"BEGIN (\w+)\n(.*?)\nEND \1(?:\n|$)", re.DOTALL)


@dataclass(frozen=True)
class Place:
    """Checkpoints, results that hold their answers, and folders for a test's own files."""

    runs: Path
    data: Path
    results: Path
    tasks: Path
    judges: Path

    def judge(self, name: str = "local", url: str = "", **facts: Any) -> str:
        """Writes a judge's YAML; gives its name."""
        recipe = {**RECIPE, "judge": name, **facts}
        if recipe["kind"] == "openai":
            said = {"base_url": url, "concurrency": 8, "timeout": 2.0}
            recipe["endpoint"] = {**said, **facts.get("endpoint", {})}
        text = yaml.safe_dump(recipe, allow_unicode=True)
        (self.judges / f"{name}.yaml").write_text(text, encoding="utf-8")
        return name

    def run(self, *judges: str, **facts: Any) -> Outcome:
        """`run`, with whatever of `Judging` and of `run` is given."""
        return run(**self._arguments(judges, facts))

    def foresee(self, *judges: str, **facts: Any) -> Foresight:
        return foresee(**self._arguments(judges, facts))

    def _arguments(self, judges: Iterable[str], facts: Mapping[str, Any]) -> dict[str, Any]:
        fields = {field.name for field in dataclasses.fields(Judging)}
        said = {name: value for name, value in facts.items() if name in fields}
        return {
            "root": self.runs,
            "tasks": ["drawn"],
            "results": self.results,
            "settings": Settings(engine="hf", limit=N),
            "mirrors": [self.data],
            "task_folders": [self.tasks],
            "final_only": True,
            "judging": Judging(judges=tuple(judges), **{"folders": (self.judges,), **said}),
            **{name: value for name, value in facts.items() if name not in fields},
        }

    def process(self, **judging: Any) -> subprocess.Popen[str]:
        """`run` in a process of its own."""
        place = {name: str(path) for name, path in vars(self).items()}
        return subprocess.Popen(
            [sys.executable, "-m", "tests.judged", json.dumps(place), json.dumps(judging)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[1],
        )

    def at(self, results: str) -> Place:
        """The same with other results, in which nothing is judged."""
        folder = self.results.with_name(results)
        if not folder.exists():
            copy_answers(self.results, folder)
        return dataclasses.replace(self, results=folder)

    @property
    def store(self) -> Store:
        return Store(self.results, create=False)

    def table(self, style: str = "text", **facts: Any) -> str:
        return render(collect(self.results, n_resamples=200, **facts), style, width=400)

    def rows(
        self, metric: str = "win_rate.v1", judge: str = "local", **facts: Any
    ) -> dict[str, dict[str, Any]]:
        """The table's rows of one metric and judge, by checkpoint."""
        found = rows_of(show(collect(self.results, n_resamples=200, **facts)))
        wanted = (metric, judge)
        return {r["checkpoint"]: r for r in found if (r["metric"], r["judge"]) == wanted}

    def judged(self) -> dict[tuple[str, str], dict[str, Any]]:
        """Manifests of the latest plan's comparisons, by checkpoint and judge."""
        return {
            (one["checkpoint"], one["judge"]): manifest
            for one in self.store.plans()[-1]["comparisons"]
            if (manifest := self.store.manifest(one["cell"]))
        }

    def texts(self, checkpoint: str) -> list[str]:
        """A checkpoint's answers, as they are judged."""
        cells = {}
        for one in self.store.plans()[-1]["comparisons"]:
            cells[one["checkpoint"]] = one["answers"]
            if manifest := self.store.manifest(one["cell"]):
                cells[one["opponent"]] = manifest["judging"]["opponent_answers"]
        return [answer.texts[0].strip() for answer in self.store.answers(cells[checkpoint])]

    def say(self, checkpoint: str, texts: Sequence[str]) -> None:
        """Puts texts in place of a checkpoint's first answers."""
        facts = self._arguments((), {})
        planned = plan_run(**{name: facts[name] for name in PLANNED})
        (cell,) = (one.cell for one in planned.cells if one.checkpoint.name == checkpoint)
        file = self.results / "cells" / cell / "answers.parquet"
        table = pq.read_table(file)
        rows = table.to_pylist()
        for row, text in zip(rows, texts, strict=False):
            row["texts"] = [text]
        pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), file)


def make_place(zoo: Path, folder: Path, names: Iterable[str] = ()) -> Place:
    """A place with copies of some checkpoints of a zoo, or the zoo's own, which must not change.

    The zoo's answers are generated once, beside it.
    """
    answered = zoo.with_name("answered")
    with FileLock(zoo.with_name("answered.lock")):
        if not answered.exists():
            first = _place(zoo / "checkpoints", zoo / "data", zoo.with_name("judged"))
            assert not first.run().failed
            copy_answers(first.results, answered)
    runs = zoo / "checkpoints"
    for name in names:
        runs = folder / "runs"
        ignored = shutil.ignore_patterns("checkpoint-*")
        shutil.copytree(zoo / "checkpoints" / name, runs / name, ignore=ignored)
    copy_answers(answered, folder / "results")
    return _place(runs, zoo / "data", folder)


def _place(runs: Path, data: Path, folder: Path) -> Place:
    for name in ("tasks", "judges"):
        (folder / name).mkdir(parents=True)
    (folder / "tasks" / "drawn.yaml").write_text(TASK)
    return Place(runs, data, folder / "results", folder / "tasks", folder / "judges")


def copy_answers(results: Path, to: Path) -> None:
    """Copies results without all that is judged."""
    left_out = shutil.ignore_patterns("plans", "verdicts.sqlite*", ".judge-*", "batches", "logs")
    shutil.copytree(results, to, ignore=left_out)
    for cell in (to / "cells").iterdir():
        if not (cell / "answers.parquet").exists():
            shutil.rmtree(cell)


def patient(first_wait: float = 0.005, **facts: Any) -> Any:
    """Endpoints that wait no longer than a test may."""
    return functools.partial(Endpoint, first_wait=first_wait, **facts)


def fenced(asked: str) -> tuple[str, ...]:
    """The foreign texts in what a server was sent: the prompt and both answers."""
    return tuple(text for _, text in FENCED.findall(asked))


def rule(asked: str) -> str:
    """A reply that depends on the answers alone; some are ties, some prefer whatever is first."""
    first, second = (int(hashlib.sha256(t.encode()).hexdigest(), 16) for t in fenced(asked)[-2:])
    label = "A" if first > second else "B"
    if (first + second) % 5 == 0:
        label = "tie"
    elif (first + second) % 5 == 1:
        label = "A"
    return f"Looking at both.\nVerdict: {label}"


def asked_of(server: Misbehaving) -> Counter[tuple[str, ...]]:
    """How often a server was asked what, by the texts that it was shown."""
    return Counter(
        fenced("\n".join(message["content"] for message in body["messages"]))
        for body in server.bodies
    )


def main() -> None:
    place = Place(**{name: Path(path) for name, path in json.loads(sys.argv[1]).items()})
    judging = json.loads(sys.argv[2])
    vars(prefbench.judges.chat)["Endpoint"] = patient()
    outcome = place.run(*judging.pop("judges"), **judging)
    print(json.dumps(dict(outcome.failed)))
    sys.exit(1 if outcome.failed else 0)


if __name__ == "__main__":
    main()
