"""Panels: several judges give verdicts on the same answers and decide together."""

from __future__ import annotations

import hashlib
import json
import math
import statistics
from collections.abc import Callable, Iterator, Sequence

from prefbench.judges.judge import Ask, Judge, Unheard, Verdict
from prefbench.judges.recipe import JudgeRecipe

Heard = Verdict | Unheard
AskMember = Callable[[Judge, Sequence[Ask]], Iterator[tuple[int, Heard]]]
"""Asks a member as its `decide` does; it may look up and keep verdicts on the way."""

LOCAL = ("vllm", "reward")
"""Kinds of judges that need this machine's memory."""


def ask_directly(judge: Judge, asks: Sequence[Ask]) -> Iterator[tuple[int, Heard]]:
    """What a judge says, looked up nowhere and not kept."""
    return judge.decide(asks)


class PanelJudge(Judge):
    """Several judges that decide together; they are closed with the panel.

    One member after the other is asked everything; a verdict comes once the last member has given
    its own. It counts no tokens and costs nothing: those are the members' verdicts', which are kept
    under the members' keys, and its facts hold each member's preference, or why it has none.

    rule majority: 1 where more than half of the members that gave a preference are above one half,
    0 where more than half of them are below, else one half. rule mean: the mean of the preferences.

    Members without a preference are left out as long as at least half of all members have one.
    Otherwise the panel has no verdict: it is unheard where members could still be heard so that
    enough of them have one, and unreadable where not.
    """

    def __init__(
        self,
        recipe: JudgeRecipe,
        members: Sequence[Judge],
        ask_member: AskMember = ask_directly,
    ) -> None:
        """Asks nothing yet.

        Args:
            recipe: of kind panel.
            members: two or more judges, each with a name of its own.
            ask_member: by which the members are asked.
        """
        self.recipe = recipe
        self.members = tuple(members)
        self.symmetric = all(member.symmetric for member in members)
        facts = [recipe.rule, [member.key for member in members]]
        self.key = hashlib.sha256(json.dumps(facts).encode()).hexdigest()
        self._ask_member = ask_member

    def decide(self, asks: Sequence[Ask]) -> Iterator[tuple[int, Heard]]:
        if not asks:
            return
        several_here = sum(member.recipe.kind in LOCAL for member in self.members) > 1
        said: list[list[Heard]] = [[] for _ in asks]
        for member in self.members:
            for index, heard in self._ask_member(member, asks):
                said[index].append(heard)
                if member is self.members[-1]:
                    yield index, self._together(said[index])
            if several_here and member.recipe.kind in LOCAL:
                member.close()  # the next one needs the memory; it opens again when it is asked

    def close(self) -> None:
        for member in self.members:
            member.close()

    def _together(self, said: Sequence[Heard]) -> Heard:
        """The panel's verdict from those of its members, in their order."""
        preferences = [
            one.preference
            for one in said
            if isinstance(one, Verdict) and one.preference is not None
        ]
        n_unheard = sum(isinstance(one, Unheard) for one in said)
        facts = {
            "members": {
                member.recipe.judge: {
                    "preference": one.preference if isinstance(one, Verdict) else None,
                    "reason": one.reason,
                    "heard": isinstance(one, Verdict),
                }
                for member, one in zip(self.members, said, strict=True)
            }
        }
        n_needed = (len(self.members) + 1) // 2
        paid = [one for one in said if isinstance(one, Verdict)]
        n_in, n_out = sum(one.n_in for one in paid), sum(one.n_out for one in paid)
        cost = math.fsum(one.cost for one in paid)
        if len(preferences) >= n_needed:
            together = decide_together(preferences, self.recipe.rule)
            return Verdict(together, None, "", n_in, n_out, cost, facts)
        lacking = "; ".join(
            f"{name}: {member['reason']}"
            for name, member in facts["members"].items()
            if member["preference"] is None
        )
        reason = (
            f"{len(preferences)} of {len(self.members)} members gave a preference, {n_needed} are "
            f"needed ({lacking})"
        )
        if len(preferences) + n_unheard >= n_needed:
            return Unheard(reason)
        return Verdict(None, reason, "", n_in, n_out, cost, facts)


def decide_together(preferences: Sequence[float], rule: str) -> float:
    """The preference of a panel whose members have these, one or more of them."""
    if rule == "mean":
        return statistics.fmean(preferences)
    n_first = sum(preference > 0.5 for preference in preferences)
    n_second = sum(preference < 0.5 for preference in preferences)
    if 2 * n_first > len(preferences):
        return 1.0
    return 0.0 if 2 * n_second > len(preferences) else 0.5
