"""Prompts with six replies each, from good to bad, to be ranked."""

from __future__ import annotations

from random import Random

from prefbench.demo.dialogues import CLOSING, WARM, draw_dialogue, welcome


def draw_candidates(rng: Random, n: int, *, taken: set[str]) -> list[dict[str, object]]:
    """`n` rows of a prompt in HH-RLHF's form and its replies, which `kinds` names, in any order.

    Two good replies that say the same with other words around it; the first of them broken off,
    and said twice; a good reply to another question; and a bad one. Prompts are not in `taken`,
    and are added to it.
    """
    rows: list[dict[str, object]] = []
    while len(rows) < n:
        before, good, bad = draw_dialogue(rng)
        _, elsewhere, _ = draw_dialogue(rng)
        words = good.split()
        replies = {
            "good": good,
            "another": welcome(_bare(good), rng),
            "cut": " ".join(words[: len(words) // 2]),
            "twice": f"{good} {good}",
            "off topic": elsewhere,
            "bad": bad,
        }
        if before in taken or len(set(replies.values())) < len(replies):
            continue
        if _bare(elsewhere) == _bare(good):
            continue
        taken.add(before)
        kinds = rng.sample(list(replies), len(replies))
        candidates = [f" {replies[kind]}" for kind in kinds]
        rows.append({"prompt": before, "candidates": candidates, "kinds": kinds})
    return rows


def _bare(good: str) -> str:
    """A good reply without the kind words before and after it."""
    before = max((warm for warm in WARM if good.startswith(warm)), key=len)
    after = max((closing for closing in CLOSING if good.endswith(closing)), key=len)
    return good.removeprefix(before).removesuffix(after)
