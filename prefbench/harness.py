"""lm-eval's task object, built from a Task of ours over data of ours, with fixed few-shots."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import datasets
import jinja2
import lm_eval.utils
from lm_eval.api.registry import metric_registry
from lm_eval.api.samplers import ContextSampler
from lm_eval.api.task import ConfigurableTask

from prefbench import data
from prefbench.errors import DataError, TaskError
from prefbench.tasks import Fewshot, Function, Task, shot_split

if TYPE_CHECKING:
    from datasets import Dataset

# lm-eval compiles the same template again for every document, 92 % of the time of building
# requests; compiled once, it renders the same text.
lm_eval.utils.env.from_string = functools.lru_cache(maxsize=256)(lm_eval.utils.env.from_string)
logging.getLogger("lm_eval").setLevel(logging.ERROR)
datasets.disable_progress_bars()


SHOT_SEED = 1234
"""lm-eval's own default, for parity."""

WEIGHTED = {
    "word_perplexity": "weighted_perplexity",
    "byte_perplexity": "weighted_perplexity",
    "bits_per_byte": "bits_per_byte",
}
"""Metrics that are aggregated otherwise than by their mean, and lm-eval's name of how."""


REFUSALS = (LookupError, ValueError, TypeError, AttributeError, ImportError, AssertionError)
"""What lm-eval raises over settings that it cannot carry out, besides a template's own errors."""


class FixedSampler(ContextSampler):  # type: ignore[misc]  # lm-eval ships no types
    """The examples that the task has put down for the item at hand."""

    examples: Sequence[Mapping[str, Any]] = ()

    def sample(self, n: int, *args: Any, **kwargs: Any) -> Sequence[Mapping[str, Any]]:
        return self.examples[:n]


class HarnessTask(ConfigurableTask):  # type: ignore[misc]
    """An lm-eval task over data that are already loaded."""

    def __init__(self, config: dict[str, Any], splits: Mapping[str, Dataset]) -> None:
        self._splits = splits
        super().__init__(config=config)
        self.set_fewshot_seed(SHOT_SEED)

    def download(self, *args: Any, **kwargs: Any) -> None:
        self.dataset = self._splits

    def fewshot_context(self, doc: Mapping[str, Any], num_fewshot: int, **kwargs: Any) -> str:
        if num_fewshot:
            if isinstance(self.sampler, FixedSampler):
                self.sampler.examples = self._first_others(doc, num_fewshot)
            elif len(self.sampler.df) <= num_fewshot:  # one is left out where it is the item
                raise self._too_few(num_fewshot, len(self.sampler.df) - 1)
        return str(super().fewshot_context(doc, num_fewshot, **kwargs))

    def _first_others(self, doc: Mapping[str, Any], n: int) -> list[Mapping[str, Any]]:
        """The first n documents of the pool that are not the item itself."""
        item = self._likeness(doc)
        pool, likenesses = self._pool
        others = [d for d, likeness in zip(pool, likenesses, strict=True) if likeness != item][:n]
        if len(others) < n:
            raise self._too_few(n, len(others))
        return others

    def _too_few(self, n: int, n_others: int) -> DataError:
        return DataError(
            f"task {self.config.task}: {n} examples are asked for, the few-shot split has "
            f"{n_others} besides the item"
        )

    @functools.cached_property
    def _pool(self) -> tuple[list[Mapping[str, Any]], list[tuple[Any, ...]]]:
        """Enough documents of the few-shot split for any item, and what each is at heart."""
        shots = int(self.config.num_fewshot or 0)
        pool = list(self.sampler.df)[: 2 * shots + 2]
        return pool, [self._likeness(doc) for doc in pool]

    def _likeness(self, doc: Mapping[str, Any]) -> tuple[Any, ...]:
        """Question, choices and answer: an item is recognised by these, not by its id."""
        choices = tuple(self.doc_to_choice(doc)) if self.config.doc_to_choice else ()
        return self.doc_to_text(doc), choices, str(self.doc_to_target(doc))


def build_task(
    task: Task, source: data.Source, splits: Mapping[str, Dataset], fewshot: Fewshot
) -> HarnessTask:
    """lm-eval's task for a Task of ours.

    Args:
        task: what the YAML says.
        source: where its data come from.
        splits: the loaded splits.
        fewshot: `fixed` gives every item the first n examples; `parity` draws them as lm-eval does.

    Raises:
        TaskError: lm-eval refuses the task's settings.
    """
    config = {key: _resolved(value) for key, value in task.config.items()}
    if config.get("process_docs"):
        config["process_docs"] = _once_per_split(config["process_docs"])
    config["dataset_kwargs"] = None
    config["training_split"] = None
    shots = shot_split(task, source)
    if shots is None:
        config.pop("fewshot_split", None)
        config.pop("fewshot_config", None)
    elif fewshot == "fixed":
        config["fewshot_split"] = shots
        config["fewshot_config"] = {"sampler": FixedSampler}
    else:
        config.pop("fewshot_config", None)
        if shots == task.eval_split:  # lm-eval keeps the item out only where these two are equal
            config["fewshot_split"] = config.get("test_split")
        else:
            config["training_split"] = shots
            if config.get("fewshot_split"):
                config["fewshot_split"] = shots
    for key in ("validation_split", "test_split"):
        if config.get(key) not in (None, task.eval_split):
            config[key] = None
    if not config.get("process_results"):
        _check_metrics(task, config.get("metric_list") or ())
    try:
        harness = HarnessTask(config, splits)
    except (*REFUSALS, jinja2.TemplateError) as error:
        raise TaskError(
            f"{task.file}: lm-eval refuses the task: {type(error).__name__}: {error}"
        ) from error
    _check_columns(task, config, harness.features)
    if task.recipe.measure == "answers":  # of others lm-eval's metrics are not computed
        _check_aggregations(task, harness)
    return harness


def _check_columns(task: Task, config: Mapping[str, Any], columns: Sequence[str]) -> None:
    """lm-eval takes the name of a column that is not there for the text itself, of every item."""
    for key in ("doc_to_text", "doc_to_target"):  # it refuses choices itself
        value = config.get(key)
        if isinstance(value, str) and value.isidentifier() and value not in columns:
            raise TaskError(
                f"{task.file}: {key}: the data have no column {value!r}, but "
                f"{', '.join(columns)}; a text that is meant as it stands is a template: "
                f"'{{{{ \"{value}\" }}}}'"
            )


def _check_metrics(task: Task, entries: Sequence[Mapping[str, Any]]) -> None:
    """lm-eval would look for an unknown metric on the hub and fail at the first answer."""
    for entry in entries:
        name = entry.get("metric")
        if isinstance(name, str) and (name not in metric_registry or entry.get("hf_evaluate")):
            raise TaskError(f"{task.file}: metric_list: lm-eval itself has no metric {name!r}")


def _check_aggregations(task: Task, harness: HarnessTask) -> None:
    """A mean under the name of something else would be a wrong number."""
    for metric, aggregation in harness.aggregation().items():
        name = getattr(aggregation, "__name__", str(aggregation))
        known = WEIGHTED.get(metric, "mean")
        if name != known:
            raise TaskError(
                f"{task.file}: metric_list: {metric} is aggregated by {name}; prefbench aggregates "
                f"it by {known} only"
            )


def _once_per_split(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The function with its results kept: lm-eval asks for the same documents again and again."""
    kept: dict[int, tuple[Any, Any]] = {}

    def process(split: Any) -> Any:
        if id(split) not in kept:
            kept[id(split)] = (split, function(split))
        return kept[id(split)][1]

    return process


def _resolved(value: Any) -> Any:
    """A copy of a YAML value with its functions imported."""
    if isinstance(value, Function):
        return value.resolve()
    if isinstance(value, dict):
        return {key: _resolved(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_resolved(inner) for inner in value]
    return value
