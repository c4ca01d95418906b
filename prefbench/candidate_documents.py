"""Several candidates for one prompt, to be ranked: documents as in prefbench.documents.

`chosen` are all the candidates and `rejected` is empty: which is the better is for rewards to say,
of the data or of a judge. `rewards` are there where the data have them, in the candidates' order.
Candidates that are there twice count once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from prefbench.documents import EMPTY, Dataset, Row, hh_prompts, plain_prompts
from prefbench.errors import DataError

TOO_FEW = "fewer than two different candidates"
TURN = "\n\nAssistant:"


def plain_candidates(dataset: Dataset) -> Dataset:
    """Rows of `prompt`, `candidates` and perhaps `rewards`; spaces between are the data's.

    Other columns are kept.

    Raises:
        DataError: candidates that are no texts, or rewards that are no numbers, one for each.
    """
    return _with_candidates(dataset, plain_prompts(dataset))


def hh_candidates(dataset: Dataset) -> Dataset:
    r"""The same with prompts in HH-RLHF's form, which end with "\n\nAssistant:".

    Raises:
        DataError: as `plain_candidates`, or a prompt that ends otherwise.
    """
    _require(dataset)
    for prompt in dataset["prompt"]:
        if not isinstance(prompt, str) or not prompt.endswith(TURN):
            raise DataError(f"a prompt must end with {TURN!r}, and this one does not: {prompt!r}")
    # Of a pair that is nothing but its prompt, hh_prompts makes the prompt's turns.
    bare = [{"chosen": prompt, "rejected": prompt} for prompt in dataset["prompt"]]
    return _with_candidates(dataset, hh_prompts(type(dataset).from_list(bare)))


def _with_candidates(dataset: Dataset, prompts: Dataset) -> Dataset:
    _require(dataset)
    rewarded = "rewards" in dataset.column_names
    documents = []
    for row, prompt in zip(dataset, prompts, strict=True):
        candidates = dict(_candidates(row))
        missing = prompt["missing"] or _lacking(list(candidates))
        document = {**row, **prompt, "chosen": list(candidates), "rejected": [], "missing": missing}
        document |= {"rewards": list(candidates.values())} if rewarded else {}
        documents.append(
            {k: v for k, v in document.items() if k not in ("candidates", "reference")}
        )
    return type(dataset).from_list(documents)


def _candidates(row: Row) -> Iterator[tuple[str, Any]]:
    """Each candidate with its reward, or None; a text that comes again is left out."""
    texts, rewards = row["candidates"], row.get("rewards")
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise DataError(f"candidates are a list of texts, not {texts!r:.80}")
    if rewards is None:
        rewards = [None] * len(texts)
    elif not isinstance(rewards, list) or len(rewards) != len(texts):
        raise DataError(f"rewards are a list of {len(texts)} numbers, not {rewards!r:.80}")
    elif not all(isinstance(one, int | float) and math.isfinite(one) for one in rewards):
        raise DataError(f"rewards are numbers, and none of them infinite: {rewards!r:.80}")
    seen = set()
    for text, reward in zip(texts, rewards, strict=True):
        if text not in seen:
            seen.add(text)
            yield text, reward


def _lacking(candidates: list[str]) -> str:
    if not all(text.strip() for text in candidates):
        return EMPTY
    return TOO_FEW if len(candidates) < 2 else ""


def _require(dataset: Dataset) -> None:
    if absent := [one for one in ("prompt", "candidates") if one not in dataset.column_names]:
        raise DataError(
            f"the data set has no column {', '.join(absent)}, only "
            f"{', '.join(dataset.column_names)}; does the task name the right data set?"
        )
