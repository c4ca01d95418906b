"""The work of a run: cells are measured one after the other, and none takes others down."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prefbench import data, needed
from prefbench.cells import PlannedCell, Settings, Unit, in_units
from prefbench.engines import Engines
from prefbench.errors import (
    CheckpointError,
    EngineError,
    LostError,
    PrefbenchError,
    StoppedError,
    StoreError,
)
from prefbench.listener import Listener
from prefbench.manifest import manifest_of
from prefbench.opening import Opening
from prefbench.records import Answer, Record
from prefbench.rows import Batch
from prefbench.store import Cell, Store
from prefbench.tasks import splits_of

if TYPE_CHECKING:
    from prefbench.engines.base import Engine
    from prefbench.measures.requests import Requests


PAIRS_AT_ONCE = 8
"""Pairs whose gradients are kept at once: what `kill -9` costs."""


class Work:
    """Measures cells, for the length of a `with`; engines stay open from a unit to the next."""

    def __init__(
        self, store: Store, settings: Settings, listener: Listener, engines: Engines
    ) -> None:
        self.engines = engines
        self.store = store
        self.settings = settings
        self.listener = listener
        self.failed: dict[str, str] = {}
        self._requests: dict[tuple[Any, ...], Requests] = {}
        self._group: tuple[str, ...] | None = None
        self._openings: dict[str, Opening] = {}
        self._open = contextlib.ExitStack()

    def __enter__(self) -> Work:
        return self

    def __exit__(self, *raised: Any) -> None:
        self.close()

    def close(self) -> None:
        """Closes the engines of the units so far."""
        self._open.close()
        self._openings.clear()
        self._group = None

    def carry_out(self, cells: Sequence[PlannedCell]) -> dict[str, str]:
        """Measures cells and returns the reasons of those that failed.

        A cell that another process has claimed is left to it until the end, then waited for.
        """
        claimed = [cell for unit in in_units(cells) for cell in self.measure(unit, wait=False)]
        self.close()
        while claimed:  # again what is lost once more
            units = in_units(claimed)
            claimed = [cell for unit in units for cell in self.measure(unit, wait=True)]
        return self.failed

    def measure(self, unit: Unit, *, wait: bool) -> list[PlannedCell]:
        """Measures a unit; returns the cells that another process has claimed.

        Where they are waited for those are the ones that it took over since they were claimed.
        The engines of its group are open together, and closed when a unit of another group comes.
        """
        if unit.group != self._group:
            self.close()
            self._group = unit.group
        with contextlib.ExitStack() as claims:
            claimed = {  # in one order everywhere, so that no two processes wait for each other
                name: claims.enter_context(self.store.claim(name, wait=wait))
                for name in sorted(planned.cell for planned in unit.cells)
            }
            others = [planned for planned in unit.cells if claimed[planned.cell] is None]
            members = [
                (planned, cell, self._opening(planned))
                for planned in unit.cells
                if (cell := claimed[planned.cell]) and not self.store.is_sealed(planned.cell)
            ]
            plain = all(c.work == "answers" and "sample" not in c.identity for c in unit.cells)
            if len(members) > 1 and plain:
                self._ask_together(members)
            for planned, cell, opening in members:
                try:
                    self._measure_cell(planned, cell, opening)
                except LostError as error:
                    self.listener.on_notice(f"{planned.title}: {error}")
                    others.append(planned)
        return others

    def _opening(self, planned: PlannedCell) -> Opening:
        key = planned.checkpoint.fingerprint
        if key not in self._openings:
            self._openings[key] = self._open.enter_context(
                Opening(
                    planned,
                    self.settings,
                    self.engines,
                    logs=self.store.folder / "logs",
                    on_notice=self.listener.on_notice,
                )
            )
        return self._openings[key]

    def _ask_together(self, members: Sequence[tuple[PlannedCell, Cell, Opening]]) -> None:
        """Fills the journals of several cells by joint calls, as far as that goes.

        What it does not get done, and whatever goes wrong, is left to each cell by itself.
        """
        from prefbench.measures.answers import ask_together, plan

        self.listener.on_cell(members[0][0])
        try:
            able = []
            for planned, cell, opening in members:
                with contextlib.suppress(EngineError):  # it will be told of the cell itself
                    engine = opening.engine()
                    if engine.kind == planned.identity["engine"]:
                        able.append((cell, engine, self._requests_for(planned, engine)))
            if len(able) < 2:
                return
            _, first, requests = able[0]
            alike = [(cell, engine) for cell, engine, same in able if same is requests]
            size = self._batch_size(first)
            kept = [cell.resume({"batch_size": size}) for cell, _ in alike]
            with requests.built_by(first):
                for number, items in enumerate(plan(requests, size, members[0][0].repeat)):
                    texts = requests.digest(items)
                    lacking = [
                        pair
                        for pair, there in zip(alike, kept, strict=True)
                        if number not in there or there[number].texts != texts
                    ]
                    answers = ask_together(
                        requests,
                        [engine for _, engine in lacking],
                        items,
                        repeat=members[0][0].repeat,
                    )
                    for (cell, _), found in zip(lacking, answers, strict=True):
                        cell.append(number, Batch(texts, found))
                    done = min((number + 1) * size, len(requests))
                    self.listener.on_step(f"asking {len(alike)} together", done, len(requests))
        except StoreError:
            raise
        except Exception as error:  # noqa: BLE001  # no cell's yet: each will meet its own alone
            title = members[0][0].task.name
            self.listener.on_notice(f"{title}: asked one by one: {_reason(error)}")

    def _batch_size(self, engine: Engine) -> int:
        return self.settings.batch_size or engine.batch_size

    def _measure_cell(self, planned: PlannedCell, cell: Cell, opening: Opening) -> None:
        """One cell; whatever goes wrong inside it is written down and the others go on.

        Raises:
            LostError: another process has taken it over.
        """
        self.listener.on_cell(planned)
        reason = None
        try:
            try:
                self._fill(planned, cell, opening)
            except StoppedError as error:
                opening.reopen(error)
                self._fill(planned, cell, opening)
        except (StoreError, LostError):
            raise  # a directory that cannot be written fails every cell alike
        except Exception as error:  # noqa: BLE001  # the one: a cell never takes others down
            reason = _reason(error)
            cell.check()
            self.failed[planned.cell] = reason
            opening.note(reason)
            if isinstance(error, CheckpointError):  # nor may its answers be gone on with
                cell.journal.unlink(missing_ok=True)
            cell.fail(reason, traceback.format_exc())
        self.listener.on_cell_end(planned, reason)

    def _fill(self, planned: PlannedCell, cell: Cell, opening: Opening) -> None:
        """Asks what the journal does not have yet, then seals the cell."""
        started = time.monotonic()
        engine = opening.engine()
        requests = self._requests_for(planned, engine)
        notes: list[str] = []
        with requests.built_by(engine):
            if planned.work == "answers":
                answers, n_resumed = self._ask(requests, engine, cell, planned)
            elif planned.work == "scores":
                answers, n_resumed = self._score(requests, engine, cell, planned)
            else:
                answers, n_resumed = self._probe(requests, engine, cell, planned, notes)
        digest = requests.digest()
        self.store.write_items(
            digest,
            (
                {
                    "item": item.item,
                    "cluster": item.cluster,
                    "prompt": item.prompt,
                    "continuations": list(item.continuations),
                    "fields": json.dumps(item.fields, default=str, ensure_ascii=False),
                }
                for item in requests.items
            ),
        )
        manifest = manifest_of(
            planned,
            self.settings,
            engine,
            requests,
            answers,
            notes=[*opening.notes, *engine.notes, *notes],
            warnings=opening.warnings,
            items=digest,
            seconds=time.monotonic() - started,
            resumed_batches=n_resumed,
        )
        asked = {answer.item for answer in answers}
        clusters = {i.item: i.cluster for i in requests.items if i.item in asked}
        opening.check_unchanged()
        cell.seal(answers, _records(planned, requests, answers), clusters, manifest)

    def _ask(
        self, requests: Requests, engine: Engine, cell: Cell, planned: PlannedCell
    ) -> tuple[list[Answer], int]:
        """All answers, and how many batches of them the journal had for the same texts."""
        from prefbench.measures.answers import ask, drawn, plan

        size, sample = self._batch_size(engine), planned.identity.get("sample")
        batches: Sequence[Sequence[int]] = plan(requests, size, planned.repeat)
        if sample is not None:
            batches = _in_runs(drawn(len(requests), sample), size)
        return self._in_batches(
            requests,
            cell,
            {"batch_size": size},
            batches,
            lambda items: ask(requests, engine, items, repeat=planned.repeat),
        )

    def _in_batches(
        self,
        requests: Requests,
        cell: Cell,
        header: Mapping[str, Any],
        batches: Sequence[Sequence[int]],
        answer: Callable[[Sequence[int]], list[Answer]],
        what: str = "asking",
    ) -> tuple[list[Answer], int]:
        kept = cell.resume(header)
        answers: list[Answer] = []
        n_resumed, n = 0, sum(map(len, batches))
        self.listener.on_step(what, 0, n)
        for number, items in enumerate(batches):
            texts = requests.digest(items)
            batch = kept.get(number)
            if batch and batch.texts == texts:
                n_resumed += 1
            else:
                batch = Batch(texts, answer(items))
                cell.append(number, batch)
            answers += batch.answers
            self.listener.on_step(what, len(answers), n)
        return answers, n_resumed

    def _score(
        self, requests: Requests, engine: Engine, cell: Cell, planned: PlannedCell
    ) -> tuple[list[Answer], int]:
        """Log-probs of the samples that another cell has."""
        from prefbench.measures.answers import plan
        from prefbench.measures.beside import score_samples

        assert planned.beside is not None
        samples = needed.answers_of(planned.beside, self.store, requests.digest())
        size = self._batch_size(engine)
        return self._in_batches(
            requests,
            cell,
            {"batch_size": size},
            plan(requests, size),
            lambda items: score_samples(requests, engine, samples, items),
            "scoring samples",
        )

    def _probe(
        self,
        requests: Requests,
        engine: Engine,
        cell: Cell,
        planned: PlannedCell,
        notes: list[str],
    ) -> tuple[list[Answer], int]:
        """Gradients of pairs, beside the reference's log-probs where there is one."""
        from prefbench.measures.answers import drawn
        from prefbench.measures.beside import PairProbe

        reference = None
        if planned.beside:
            reference = needed.answers_of(planned.beside, self.store, requests.digest())
        items = drawn(len(requests), planned.task.recipe.sample)
        probe = PairProbe(requests, items, engine, reference, str(planned.identity["objective"]))
        answers, n_resumed = self._in_batches(
            requests,
            cell,
            {"pairs": len(items)},
            _in_runs(items, PAIRS_AT_ONCE),
            probe.ask,
            "gradients",
        )
        domains = probe.domains()
        notes += probe.notes
        return [
            dataclasses.replace(one, numbers={**one.numbers, **domains[one.item]})
            if one.item in domains
            else one
            for one in answers
        ], n_resumed

    def _requests_for(self, planned: PlannedCell, engine: Engine) -> Requests:
        """The task's prompts and token ids: one for all checkpoints with this tokenizer."""
        from prefbench.harness import build_task
        from prefbench.measures.requests import build_requests

        chat = bool(planned.identity["chat"])
        key = (planned.task.name, planned.planned.limit, chat, engine.tokenizer_key)
        if key not in self._requests:
            assert planned.planned.source is not None
            source = planned.planned.source
            harness = build_task(
                planned.task,
                source,
                data.load(source, splits_of(planned.task, source)),
                self.settings.fewshot,
            )
            self._requests[key] = build_requests(
                planned.task,
                harness,
                engine,
                chat=chat,
                limit=planned.planned.limit,
            )
        return self._requests[key]


def _in_runs(items: Sequence[int], size: int) -> list[Sequence[int]]:
    return [items[i : i + size] for i in range(0, len(items), size)]


def _records(
    planned: PlannedCell, requests: Requests, answers: Sequence[Answer]
) -> Iterable[Record]:
    """The numbers of a cell; of samples that were scored, others make them."""
    from prefbench.measures.answers import item_metrics
    from prefbench.measures.beside import number_records

    if planned.work == "answers":
        return item_metrics(requests, answers)
    return number_records(answers) if planned.work == "gradients" else ()


def _reason(error: Exception) -> str:
    known = isinstance(error, PrefbenchError)
    return str(error) if known else f"{type(error).__name__}: {error}"
