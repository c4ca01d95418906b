"""Dialogues that branch, in CausalDialogue's form: other words before, another reply after."""

from __future__ import annotations

from random import Random
from typing import NamedTuple

from prefbench.demo.arithmetic import NAMES


class Scene(NamedTuple):
    """A place, what is said first there, and what can be said next with the reply it brings."""

    category: str
    place: str
    openings: tuple[str, ...]
    exchanges: tuple[tuple[str, str], ...]
    things: tuple[str, ...]


SCENES = (
    Scene(
        "cafe",
        "A small cafe by the bridge.",
        ("Welcome! What would you like?", "Good day, please sit down. What can I bring?"),
        (
            ("I would love the {thing}.", "One {thing}, coming right up."),
            ("No {thing} for me today, just the bill.", "Here is your bill, see you soon."),
            ("Is the {thing} fresh?", "We made the {thing} an hour ago."),
            ("I have no money with me.", "Never mind, it is on the house."),
            ("My chair is broken.", "I am so sorry, please take this one."),
        ),
        ("pumpkin soup", "apple cake", "mint tea", "cheese bread", "plum pie", "bean stew"),
    ),
    Scene(
        "harbour",
        "The harbour before a storm.",
        ("The wind is rising. What shall we do?", "Dark clouds, captain. Your orders?"),
        (
            ("Tie up the {thing}.", "The {thing} is tied, captain."),
            ("Leave the {thing}, save yourselves!", "Everyone off, run for the shore!"),
            ("Sail out at once.", "Into the waves then, hold on tight."),
            ("Who broke the {thing}?", "I broke the {thing}, and I will mend it."),
            ("Let us wait inside.", "A warm room and hot tea, good idea."),
        ),
        ("red boat", "long rope", "old net", "tall mast", "grey sail", "small raft"),
    ),
    Scene(
        "market",
        "A busy market square.",
        ("Fresh goods, best prices! What are you looking for?", "Come closer, what do you need?"),
        (
            ("How much is the {thing}?", "The {thing} costs three coins."),
            ("I want to sell my {thing}.", "I will give you two coins for your {thing}."),
            ("Your {thing} fell apart after a day.", "Then take your money back."),
            ("Somebody stole my purse!", "Quick, call the guard!"),
            ("I am only looking.", "Look as long as you like."),
        ),
        ("copper kettle", "straw hat", "clay jar", "wool scarf", "brass bell", "oak chair"),
    ),
    Scene(
        "school",
        "A classroom after the last bell.",
        ("You are still here. What is the matter?", "The lesson is over. Can I help you?"),
        (
            ("I lost my {thing}.", "Let us look for your {thing} together."),
            ("I finished the {thing} you gave us.", "Well done, the {thing} was not easy."),
            ("Nobody wants to play with me.", "Come, I will talk with them tomorrow."),
            ("May I borrow the {thing}?", "Yes, bring the {thing} back on Monday."),
            ("It is raining and I have no coat.", "Take my umbrella, I live close by."),
        ),
        ("blue notebook", "story book", "number puzzle", "paint box", "wooden ruler", "song sheet"),
    ),
)  # fmt: skip

GOODBYES = ("Thank you so much.", "That is all, goodbye.", "You are very kind.")


def draw_dialogue(scene: Scene, rng: Random) -> tuple[list[dict[str, object]], set[str]]:
    """Nodes of one dialogue: an opening, two or three things said next, their replies, a goodbye.

    The branches share their history and meet again in the goodbye, so that the nodes form a
    directed acyclic graph and no tree. Sometimes a branch is silence, as in the original. Beside
    the nodes stand the dialogue's beginnings, each an opening with a thing said next.
    """
    host, guest = rng.sample(NAMES, 2)
    nodes: list[dict[str, object]] = []

    def add(text: str, speaker: str | None, before: list[int]) -> int:
        node: dict[str, object] = {"id": len(nodes), "type": "utterance" if speaker else "scene"}
        node |= {"text": text} | ({"speaker": speaker} if speaker else {}) | {"prev_ids": before}
        nodes.append(node)
        return len(nodes) - 1

    first = rng.choice(scene.openings)
    opening = add(first, host, [add(scene.place, None, [])])
    replies = []
    beginnings = set()
    for said, reply in rng.sample(scene.exchanges, rng.choice((2, 2, 3))):
        thing = rng.choice(scene.things)
        cause = add(said.format(thing=thing), guest, [opening])
        replies.append(add(reply.format(thing=thing), host, [cause]))
        beginnings.add(f"{host}: {first} {guest}: {said.format(thing=thing)}")
    if rng.random() < 0.2:
        replies.append(add("...", guest, [opening]))
    add(rng.choice(GOODBYES), guest, replies)
    return nodes, beginnings


def draw_causal(rng: Random, n: int, *, taken: set[str], name: str) -> list[dict[str, object]]:
    """`n` dialogues whose beginnings are not in `taken`; their beginnings are added to it."""
    rows: list[dict[str, object]] = []
    while len(rows) < n:
        scene = rng.choice(SCENES)
        nodes, beginnings = draw_dialogue(scene, rng)
        if not beginnings & taken:
            taken |= beginnings
            rows.append(
                {
                    "dialog_name": f"{name}-{len(rows):04d}",
                    "category": scene.category,
                    "original_data": nodes,
                }
            )
    return rows
