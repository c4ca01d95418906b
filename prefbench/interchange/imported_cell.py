"""One imported task as a sealed cell: its items, answers, numbers and manifest."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from prefbench.interchange.imported_values import Columns
from prefbench.interchange.lm_eval_in import Aggregate, ModelRun, Sample, TaskRun
from prefbench.records import Answer, Checkpoint, Record
from prefbench.store import Store

NOT_THERE = "not in the imported run"


class Target(NamedTuple):
    """A task that was measured here, whose items imported documents may be."""

    cell: Mapping[str, Any]
    """The plan's word of it."""
    manifest: Mapping[str, Any]
    items: Mapping[int, Mapping[str, Any]]
    """Rows of the store's items table."""


@dataclass(frozen=True)
class Incoming:
    """One task of a results file on its way into the store.

    `places` has the item of each document, `columns` the quantities by document, `aggregates` the
    metrics that have none by document. Without a `target` items are numbered as lm-eval numbers
    documents, and `conditions` tell the column from others of the task.
    """

    run: ModelRun
    task: TaskRun
    checkpoint: Checkpoint
    target: Target | None
    places: Mapping[int, int]
    columns: Columns
    aggregates: Mapping[str, Aggregate]
    conditions: str = ""

    @property
    def name(self) -> str:
        """The task whose column it joins."""
        return str(self.target.cell["task"]) if self.target else self.task.name

    @property
    def documents(self) -> dict[int, Sample]:
        """A sample of each document, whatever its filter."""
        return {sample.doc_id: sample for sample in reversed(self.task.samples)}

    @property
    def n_left_out(self) -> int:
        """Documents that are none of the target's items."""
        return len(self.documents) - len(self.places)

    @property
    def n_missing(self) -> int:
        """Items of the target that the run lacks; none is known to be where samples are."""
        return len(self.target.items) - len(self.places) if self.target and self.places else 0

    @property
    def identity(self) -> dict[str, Any]:
        """All that the cell's numbers hang on."""
        if self.target:
            ours = self.target.cell["identity"]
            same = {key: ours.get(key) for key in ("task", "data", "shots", "limit", "fewshot")}
        else:
            same = {
                "task": digest([self.task.name, self.conditions]),
                "data": f"lm-eval {self.task.config.get('dataset_path')}",
                "shots": None,
                "limit": self.run.limit,
                "fewshot": None,
            }
        return {
            "checkpoint": self.checkpoint.fingerprint,
            **same,
            "chat": self.run.chat,
            "engine": f"lm-eval {self.run.model}",
            "dtype": self.checkpoint.dtype,
            "max_length": None,
            "imported": [self.run.sha256, self.task.samples_sha256, self.task.name],
        }

    @property
    def cell(self) -> str:
        return digest(self.identity)[:24]

    def planned(self) -> dict[str, Any]:
        """The plan's word of the cell."""
        return {
            "cell": self.cell,
            "checkpoint": self.checkpoint.name,
            "task": self.name,
            "sweep": self.target.cell.get("sweep", "") if self.target else "",
            "shown": list(self.target.cell["shown"] if self.target else self.task.metrics),
            "missing": None,
            "conditions": self.conditions,
            "identity": self.identity,
        }

    def rows(self) -> dict[int, dict[str, Any]]:
        """What the store keeps of items; those that the run lacks are as the target has them."""
        rows: dict[int, dict[str, Any]] = {}
        if self.target and self.places:
            rows = {item: dict(row) for item, row in self.target.items.items()}
        documents = self.documents
        for doc_id, item in self.places.items():
            sample, own = documents[doc_id], rows.get(item)
            prompt, continuations = _sent(sample)
            rows[item] = {
                "item": item,
                "cluster": own["cluster"] if own else str(item),
                "prompt": prompt,
                "continuations": continuations,
                "fields": own["fields"] if own else json.dumps(sample.document, ensure_ascii=False),
            }
        return dict(sorted(rows.items()))


def seal(store: Store, one: Incoming) -> None:
    """Writes the cell.

    Raises:
        StoreError: the directory cannot be written.
    """
    rows = one.rows()
    sent = hashlib.sha256()
    for row in rows.values():  # the name that a run of ours gives to the same texts
        sent.update(json.dumps([row["prompt"], row["continuations"], None]).encode())
    items = sent.hexdigest()
    if one.target and not rows:  # nobody can say that other texts were sent
        items = one.target.manifest["items"]
    store.write_items(items, rows.values())
    documents = {item: doc_id for doc_id, item in one.places.items()}
    samples = one.documents
    records: list[Record] = []
    answers: list[Answer] = []
    for item in rows:
        if item not in documents:
            records.append(Record(item, "answer", None, NOT_THERE))
            answers.append(Answer(item, reason=NOT_THERE))
            continue
        doc_id = documents[item]
        answers.append(_answer(item, samples[doc_id]))
        records += [
            Record(item, quantity, column[doc_id])
            for quantity, column in one.columns.items()
            if doc_id in column
        ]
    clusters = {item: str(row["cluster"]) for item, row in rows.items()}
    with store.claim(one.cell, wait=True) as claimed:
        assert claimed is not None
        claimed.seal(answers, records, clusters, _manifest(one, items, len(rows)))


def _manifest(one: Incoming, items: str, n_rows: int) -> dict[str, Any]:
    """What a run of ours would say of the cell, as far as lm-eval's file says it."""
    task = {
        "name": one.task.name,
        "file": one.run.path.name,
        "definition": one.identity["task"],
        "config": dict(one.task.config),
        "n_shots": one.task.n_shots,
    }
    data = {"title": one.task.config.get("dataset_path"), "revision": None, "from": "lm-eval"}
    counts = [each.n for each in one.aggregates.values() if each.n is not None]
    return {
        "cell": one.cell,
        "identity": one.identity,
        "checkpoint": dataclasses.asdict(one.checkpoint),
        "task": {**one.target.manifest["task"], "n_shots": one.task.n_shots}
        if one.target
        else task,
        "data": one.target.manifest["data"] if one.target else data,
        "higher_is_better": {
            **one.task.higher_is_better,
            **(one.target.manifest["higher_is_better"] if one.target else {}),
        },
        "items": items,
        "n_items": n_rows or max(counts, default=0),
        "n_missing": one.n_missing,
        "missing": {NOT_THERE: one.n_missing} if one.n_missing else {},
        "n_cut": 0,
        "n_tokens_cut": 0,
        "n_unfinished": 0,
        "engine": {
            "kind": one.identity["engine"],
            "dtype": one.checkpoint.dtype,
            "device": one.run.config.get("device"),
            "max_length": None,
            "tokenizer": None,
            "chat_template": None,
            "notes": [],
        },
        "warnings": _warnings(one),
        "sampling": None,
        "shot_seed": None,
        "versions": {"lm_eval": one.run.lm_eval},
        "command": sys.argv,
        "finished": _moment(one.run),
        "seconds": 0.0,
        "resumed_batches": 0,
        "imported": {
            "source": one.run.path.name,
            "sha256": one.run.sha256,
            "lm_eval": one.run.lm_eval,
            "model_args": one.run.config.get("model_args"),
            "metrics": {name: dataclasses.asdict(each) for name, each in one.aggregates.items()},
        },
    }


def _warnings(one: Incoming) -> list[str]:
    """What a reader of the table must know."""
    source = one.run.path.name
    told = [f"imported from lm-eval {one.run.lm_eval}, {source}"]
    if one.n_left_out:
        told.append(
            f"{one.n_left_out} of the {len(one.documents)} documents of {source} are none of "
            f"{one.name} and were left out"
        )
    told += _other_settings(one)
    if one.target and not one.places:
        told.append(
            f"{source} came without samples, so that its documents could not be held against those "
            f"of {one.name}"
        )
    if one.aggregates:
        told.append(
            f"{', '.join(one.aggregates)} of {source} came without values by item, so that "
            "differences are unpaired"
        )
    return told


def _other_settings(one: Incoming) -> list[str]:
    """How the run was asked otherwise than the task whose column it joins."""
    if one.target is None:
        return []
    told, source, ours = [], one.run.path.name, one.target.manifest["task"]
    if ours["n_shots"] != one.task.n_shots:
        told.append(
            f"{source} has {one.task.n_shots} examples in each prompt, {one.name} has "
            f"{ours['n_shots']}"
        )
    drawn = one.task.config.get("generation_kwargs") or {}
    wanted = ours["config"].get("generation_kwargs") or {}
    told += [
        f"{source} has {key} {text_of(drawn.get(key))}, {one.name} has {text_of(wanted.get(key))}"
        for key in sorted({*drawn, *wanted} if drawn else ())
        if drawn.get(key) != wanted.get(key)
    ]
    return told


def _sent(sample: Sample) -> tuple[str, list[str]]:
    """The prompt and the continuations; generation has none, and rolling text no prompt."""
    sent = sample.sent
    if not sent or not sent[0]:
        return "", []
    if len(sent[0]) == 1:
        return "", [text_of(several[0]) for several in sent]
    if not isinstance(sent[0][1], str):  # settings of a generation
        return text_of(sent[0][0]), []
    return text_of(sent[0][0]), [text_of(several[1]) for several in sent if len(several) > 1]


def _answer(item: int, sample: Sample) -> Answer:
    """What the model replied, as far as the row can be read; token counts are not in it."""
    _, continuations = _sent(sample)
    if not continuations:
        texts = sample.replies[0] if sample.replies else []
        return Answer(item, texts=tuple(map(str, texts if isinstance(texts, list) else [texts])))
    logps, greedy = [], []
    for reply in sample.replies:
        while isinstance(reply, list) and len(reply) == 1:
            reply = reply[0]
        parts = reply if isinstance(reply, list) and reply else [reply]
        try:
            logps.append(float(parts[0]))
        except (OverflowError, TypeError, ValueError):
            return Answer(item)
        greedy.append(str(parts[1]) == "True" if len(parts) > 1 else False)
    sizes = tuple(len(text.encode(errors="replace")) for text in continuations)
    return Answer(item, logps=tuple(logps), greedy=tuple(greedy), n_bytes=sizes)


def text_of(value: Any) -> str:
    """A text as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def digest(value: Any) -> str:
    """A hash of anything that JSON can hold."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def _moment(run: ModelRun) -> str:
    """When the run was: as it says, else when its file was last written."""
    when = run.when if run.when is not None else run.path.stat().st_mtime
    return datetime.datetime.fromtimestamp(when, datetime.UTC).isoformat(timespec="microseconds")
