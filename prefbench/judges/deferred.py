"""A judge that is asked by files: requests are written down, replies read when they are there."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from prefbench.addresses import unusable
from prefbench.errors import JudgeError
from prefbench.judges.batches import read_batch, write_batch
from prefbench.judges.budget import Budget, Tab
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

        Raises:
            JudgeError: the endpoint's URL is none; or dollars are limited and the recipe does not
                say what a call costs.
        """
        self.recipe = recipe
        self.key = recipe.key
        self._folder = folder
        self._budget = budget
        self._on_notice = on_notice
        assert recipe.endpoint is not None
        if why := unusable(recipe.endpoint.base_url):  # manifests name it
            raise JudgeError(f"judge {recipe.judge}: endpoint: the base URL {why}")
        costs = recipe.endpoint.api_key_env is not None
        if budget.max_cost is not None and costs and "price" not in recipe.model_fields_set:
            raise JudgeError(
                f"judge {recipe.judge}: no limit in dollars can hold without its price; write "
                "`price: {input: ..., output: ...}`, in dollars per million tokens; 0 if it is free"
            )

    def decide(self, asks: Sequence[Ask]) -> Iterator[tuple[int, Verdict | Unheard]]:
        keys = {self.key_of(ask): index for index, ask in enumerate(asks)}
        waiting: dict[str, str] = {}
        failed: dict[str, str] = {}
        for file in self._requests():
            asked = [key for key in _keys_of(file) if key in keys]
            replies = file.with_name(file.name.removesuffix(".jsonl") + REPLIES)
            if not replies.exists():
                waiting |= dict.fromkeys(asked, f"no replies yet to {file.name}")
                continue
            found = read_batch(self.recipe, replies, asked)
            for key, one in found:
                if isinstance(one, Verdict):
                    yield keys.pop(key), one
                elif found.n_torn:  # what it lacks may be in what is lost
                    waiting[key] = (
                        f"{replies.name} has lines that are no rows ({found.n_torn}): have all of "
                        "the file there, or take them out to have the requests written again"
                    )
                else:
                    failed[key] = one.reason
        waiting = {key: why for key, why in waiting.items() if key in keys}
        for why in sorted(set(waiting.values())):
            self._on_notice(f"{self.recipe.judge}: {why} (in {self._folder})")
        tab = self._budget.tab(self.recipe.price)
        for key, why in waiting.items():  # under way, whichever run wrote it down
            index = keys.pop(key)
            self._expect(tab, index, asks[index])
            tab.take(index)
            yield index, Unheard(why)
        if keys:
            for index, reason in self._write(
                {key: asks[index] for key, index in keys.items()}, keys, tab
            ):
                before = failed.get(self.key_of(asks[index]))
                yield index, Unheard(f"{reason}; the try before: {before}" if before else reason)

    def _expect(self, tab: Tab, index: int, ask: Ask) -> None:
        tab.expect(index, body_of(self.recipe, ask, "0" * 12))

    def _write(
        self, asks: Mapping[str, Ask], places: Mapping[str, int], tab: Tab
    ) -> Iterator[tuple[int, str]]:
        """Writes down what the budget allows; gives why there is no verdict yet."""
        allowed: dict[str, Ask] = {}
        for key, ask in asks.items():
            self._expect(tab, places[key], ask)
            if reason := tab.take(places[key]):
                yield places[key], reason
            else:
                allowed[key] = ask
        if not allowed:
            return
        file = self._new_file(allowed)
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
            yield places[key], f"no replies yet to {file.name}"

    def _new_file(self, keys: Iterable[str]) -> Path:
        """Where no requests stand yet: the same ones are written again if they failed."""
        digest = hashlib.sha256("".join(sorted(keys)).encode()).hexdigest()[:12]
        again = itertools.chain([""], (f"-{n}" for n in itertools.count(2)))
        files = (self._folder / f"{self._stem}-{digest}{nth}.jsonl" for nth in again)
        return next(file for file in files if not file.exists())

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
