"""From a judge's recipe to a judge that can be asked; what it needs is imported when it opens."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from prefbench.errors import JudgeError
from prefbench.judges.budget import Budget
from prefbench.judges.judge import Ask, Judge, Unheard, Verdict
from prefbench.judges.recipe import JudgeRecipe
from prefbench.records import Checkpoint

AskMember: TypeAlias = Callable[[Judge, Sequence[Ask]], Iterator[tuple[int, Verdict | Unheard]]]


@dataclass(frozen=True)
class PlannedJudge:
    """A judge with the weights it runs on, or why it cannot be asked."""

    recipe: JudgeRecipe
    file: Path
    model: Checkpoint | None = None
    members: tuple[PlannedJudge, ...] = ()
    missing: str | None = None

    @property
    def name(self) -> str:
        return self.recipe.judge

    @property
    def key(self) -> str:
        """Hash of all that can change a verdict, but for the machine that it is reached on."""
        weights = self.model.fingerprint if self.model else None
        facts = [self.recipe.key, weights, [member.key for member in self.members]]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    @property
    def symmetric(self) -> bool:
        """The order of the answers is nothing to it."""
        if self.recipe.kind == "panel":
            return all(member.symmetric for member in self.members)
        return self.recipe.kind == "reward"


@dataclass(frozen=True)
class Bench:
    """What judges of a run share.

    Attributes:
        budget: what they may spend.
        ask: asks a member of a panel, so that its verdicts are looked up and kept like any other's.
        batches: the folder of batch files, where requests are not sent but written down.
        logs: the folder for what engines in other processes print.
        on_notice: told what the user should know while it happens.
    """

    budget: Budget
    ask: AskMember
    batches: Path | None
    logs: Path
    on_notice: Callable[[str], None]


def open_judge(planned: PlannedJudge, bench: Bench) -> Judge:
    """A judge that can be asked, to be used in a `with`.

    Raises:
        JudgeError: it cannot be had; the message says what to do.
    """
    if planned.missing:
        raise JudgeError(planned.missing)
    recipe = planned.recipe
    if recipe.kind == "openai":
        if bench.batches is not None:
            from prefbench.judges.deferred import DeferredJudge

            return DeferredJudge(
                recipe, bench.batches, budget=bench.budget, on_notice=bench.on_notice
            )
        from prefbench.judges.chat import ChatJudge

        return ChatJudge(recipe, budget=bench.budget)
    if recipe.kind == "panel":
        from prefbench.judges.panel import PanelJudge

        with contextlib.ExitStack() as opened:  # if one does not open, the others close again
            members = [opened.enter_context(open_judge(one, bench)) for one in planned.members]
            opened.pop_all()
        return PanelJudge(recipe, members, bench.ask)
    assert planned.model is not None
    if recipe.kind == "reward":
        from prefbench.judges.reward import RewardJudge

        return RewardJudge(recipe, planned.model)
    from prefbench.judges.local import LocalJudge

    return LocalJudge(recipe, planned.model, logs=bench.logs, on_notice=bench.on_notice)
