"""lm-eval's task object, built from a Task of ours over data of ours, with fixed few-shots."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import datasets
import lm_eval.utils
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
        self.set_fewshot_seed(1234)  # lm-eval's own default, for parity

    def download(self, *args: Any, **kwargs: Any) -> None:
        self.dataset = self._splits

    def fewshot_context(self, doc: Mapping[str, Any], num_fewshot: int, **kwargs: Any) -> str:
        if isinstance(getattr(self, "sampler", None), FixedSampler):
            self.sampler.examples = self._first_others(doc, num_fewshot)
        return str(super().fewshot_context(doc, num_fewshot, **kwargs))

    def _first_others(self, doc: Mapping[str, Any], n: int) -> list[Mapping[str, Any]]:
        """The first n documents of the pool that are not the item itself."""
        item = self._likeness(doc)
        pool, likenesses = self._pool
        others = [d for d, likeness in zip(pool, likenesses, strict=True) if likeness != item][:n]
        if len(others) < n:
            raise DataError(
                f"task {self.config.task}: {n} examples are asked for, the few-shot split has "
                f"{len(others)} besides the item"
            )
        return others

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
        config["training_split"] = shots if shots != task.eval_split else None
        if shots == task.eval_split:  # lm-eval keeps the item out only where no split is named
            config.pop("fewshot_split", None)
    for key in ("validation_split", "test_split"):
        if config.get(key) not in (None, task.eval_split):
            config[key] = None
    try:
        return HarnessTask(config, splits)
    except (LookupError, ValueError, TypeError, AttributeError) as error:
        raise TaskError(
            f"{task.file}: lm-eval refuses the task: {type(error).__name__}: {error}"
        ) from error


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
