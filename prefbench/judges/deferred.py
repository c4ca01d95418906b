"""A judge that is asked by files: requests are written down, replies read when they are there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from prefbench.errors import JudgeError
from prefbench.judges.batches import read_batch, write_batch
from prefbench.judges.budget import Budget
from prefbench.judges.chat import body_of
from prefbench.judges.judge import Ask, Judge, Unheard, Verdict
from prefbench.judges.recipe import JudgeRecipe

REPLIES = ".replies.jsonl"
"""In place of `.jsonl`: what a user names the file of replies to a file of requests."""


class DeferredJudge(Judge):
    """An openai judge by OpenAI's batch format.

    What has no reply yet is written into one new file of requests, unless it stands in one already:
    that may be under way, and must not be paid twice.
    """

    def __init__(
        self,
        recipe: JudgeRecipe,
        folder: Path,
        *,
        budget: Budget,
        on_notice: Callable[[str], None],
    ) -> None:
        """Reads and writes nothing yet.

        Args:
            recipe: of kind openai.
            folder: of the files.
            budget: what may be written down to be spent.
            on_notice: told which file to have processed.
        """
        self.recipe = recipe
        self.key = recipe.key
        self._folder = folder
        self._budget = budget
        self._on_notice = on_notice

    def decide(self, asks: Sequence[Ask]) -> Iterator[tuple[int, Verdict | Unheard]]:
        keys = {self.key_of(ask): index for index, ask in enumerate(asks)}
        written: dict[str, Path] = {}
        for file in self._requests():
            replies = file.with_name(file.name.removesuffix(".jsonl") + REPLIES)
            asked = [key for key in _keys_of(file) if key in keys]
            if not replies.exists():
                written |= dict.fromkeys(asked, file)
                continue
            for key, one in read_batch(self.recipe, replies, asked):
                if isinstance(one, Verdict):
                    yield keys.pop(key), one
        waiting = [key for key in keys if key in written]
        for key in waiting:
            yield keys.pop(key), Unheard(f"no replies yet to {written[key].name}")
        if waiting:
            files = sorted({str(written[key]) for key in waiting})
            self._on_notice(f"{self.recipe.judge}: no replies yet to {', '.join(files)}")
        if keys:
            yield from self._write({key: asks[index] for key, index in keys.items()}, keys)

    def _write(self, asks: dict[str, Ask], places: dict[str, int]) -> Iterator[tuple[int, Unheard]]:
        """Writes down what the budget allows."""
        tab = self._budget.tab(self.recipe.price)
        allowed: dict[str, Ask] = {}
        for number, (key, ask) in enumerate(asks.items()):
            tab.expect(number, body_of(self.recipe, ask, "0" * 12))
            if reason := tab.take(number):
                yield places[key], Unheard(reason)
            else:
                allowed[key] = ask
        if not allowed:
            return
        digest = hashlib.sha256("".join(sorted(allowed)).encode()).hexdigest()[:12]
        file = self._folder / f"{self._stem}-{digest}.jsonl"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise JudgeError(f"{self._folder}: cannot be made: {error}") from error
        write_batch(self.recipe, allowed, file)
        replies = file.name.removesuffix(".jsonl") + REPLIES
        self._on_notice(
            f"{self.recipe.judge}: {len(allowed)} requests are in {file}; have them processed as "
            f"an OpenAI batch, put the file of replies beside it as {replies}, and run the same "
            "command again"
        )
        for key in allowed:
            yield places[key], Unheard(f"no replies yet to {file.name}")

    @property
    def _stem(self) -> str:
        name = "".join(c if c.isalnum() or c in "-_" else "_" for c in self.recipe.judge)
        return f"{name}-{self.key[:8]}"

    def _requests(self) -> list[Path]:
        found = sorted(self._folder.glob(f"{self._stem}-*.jsonl"))
        return [file for file in found if not file.name.endswith(REPLIES)]


def _keys_of(file: Path) -> Iterator[str]:
    """The keys of the verdicts that a file of requests asks for."""
    try:
        for line in file.read_text(encoding="utf-8").split("\n"):
            if line:
                yield json.loads(line)["custom_id"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise JudgeError(f"{file}: is no file of requests that prefbench wrote: {error}") from error
