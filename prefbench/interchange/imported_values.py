"""Which of an imported task's metrics have a value by document, and which only one over all."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from prefbench.errors import InputError
from prefbench.interchange.lm_eval_in import Aggregate, ModelRun, Sample, TaskRun
from prefbench.metrics import Metric, metrics_of
from prefbench.stats.bootstrap import Refit

Columns = dict[str, dict[int, float]]
"""Quantities as the store names them, by document."""

CLOSE = 1e-6
"""How far a value over the samples may be from lm-eval's own, relative to it."""


def split(run: ModelRun, task: TaskRun) -> tuple[Columns, dict[str, Aggregate]]:
    """Quantities by document, and the metrics that have their value over all documents only.

    A metric has values by document if these give the value that lm-eval printed: lm-eval sums some
    up in ways of its own.

    Raises:
        InputError: a metric that is a mean is not the mean of the samples.
    """
    columns = _columns(task.samples)
    metrics = metrics_of(columns, task.higher_is_better)
    means = {
        entry.get("metric")
        for entry in _list(task.config.get("metric_list"))
        if isinstance(entry, dict) and entry.get("aggregation") == "mean"
        if isinstance(entry.get("metric"), str)
    }
    kept: Columns = {}
    whole: dict[str, Aggregate] = {}
    for name, aggregate in task.metrics.items():
        value = _value(metrics.get(name), columns)
        if value is not None and abs(value - aggregate.value) <= CLOSE * max(
            1.0, abs(aggregate.value)
        ):
            used = [quantity for quantity in metrics[name].quantities if quantity != "1"]
            kept.update((quantity, columns[quantity]) for quantity in used)
        elif value is not None and name.partition(",")[0] in means:
            raise InputError(
                f"{run.path}, key 'results.{task.name}.{name}': is {aggregate.value:g}, and the "
                f"samples beside it give {value:g}; they are of another run"
            )
        else:
            whole[name] = aggregate
    return kept, whole


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _columns(samples: Iterable[Sample]) -> Columns:
    """A metric's number, or its sum and weight."""
    columns: Columns = {}
    for sample in samples:
        suffix = "" if sample.pipeline == "none" else f",{sample.pipeline}"
        for name, numbers in sample.values.items():
            parts = (".value", ".weight") if len(numbers) == 2 else ("",)
            for part, number in zip(parts, numbers, strict=True):
                columns.setdefault(f"{name}{suffix}{part}", {})[sample.doc_id] = number
    return columns


def _value(metric: Metric | None, columns: Columns) -> float | None:
    """A metric over all documents that have its quantities; None where none has them."""
    if metric is None or isinstance(metric.statistic, Refit):
        return None
    used = [columns.get(quantity) for quantity in metric.quantities if quantity != "1"]
    if not used or not all(used):
        return None
    sums = [sum(column.values()) for column in used if column]
    n = len(used[0] or ())
    with np.errstate(all="ignore"):
        return float(
            metric.statistic(np.array([*sums, *([n] if "1" in metric.quantities else [])]))
        )
