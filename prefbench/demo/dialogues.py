"""Preference dialogues: a helpful reply against one that is wrong, rude or evasive."""

from __future__ import annotations

from random import Random
from typing import NamedTuple

from prefbench.demo.facts import KINDS


class Topic(NamedTuple):
    """Something people ask for help with, and what follows from it."""

    ask: str
    good: str
    bad: str
    ask_on: str
    good_on: str
    bad_on: str


TOPICS = (
    Topic(
        "How do I keep a fern healthy?",
        "Keep the soil damp, give it soft light and turn the pot once a week.",
        "Put it in a dark cupboard and never water it.",
        "How much light does it need?",
        "A bright spot without direct sun is best.",
        "None at all, plants do not care about light.",
    ),
    Topic(
        "How can I boil an egg so that it stays soft?",
        "Lower it into boiling water, wait six minutes and rinse it with cold water.",
        "Leave it in cold water for an hour and hope.",
        "And if I want it hard?",
        "Then wait ten minutes before you rinse it.",
        "Eggs never get hard.",
    ),
    Topic(
        "What should I pack for a day in the hills?",
        "Take water, a warm layer, some food and a map.",
        "Take a piano and nothing to drink.",
        "Do I need good shoes?",
        "Yes, sturdy shoes keep your feet dry and safe.",
        "No, walk on your hands.",
    ),
    Topic(
        "How do I stop a door from squeaking?",
        "Put a drop of oil on each hinge and move the door a few times.",
        "Paint the door handle green.",
        "Which oil should I use?",
        "A light machine oil works well.",
        "Use orange juice.",
    ),
    Topic(
        "How can I sleep better at night?",
        "Go to bed at the same hour, keep the room cool and put the screens away.",
        "Drink six cups of coffee at midnight.",
        "Does reading help?",
        "Yes, a calm book helps many people to fall asleep.",
        "No, shouting helps.",
    ),
    Topic(
        "How do I write a thank-you note?",
        "Name the gift, say how you will use it and close with warm wishes.",
        "Complain about the gift and ask for money.",
        "Should it be long?",
        "Three or four honest sentences are enough.",
        "It must have ninety pages.",
    ),
    Topic(
        "How do I clean a muddy pair of boots?",
        "Let the mud dry, brush it off and wipe the leather with a damp cloth.",
        "Bury them and buy a boat.",
        "Can I put them near the fire?",
        "Better not, strong heat cracks the leather.",
        "Yes, right into the flames.",
    ),
    Topic(
        "How can I learn the names of the stars?",
        "Start with one bright star, use a star map and go out on clear nights.",
        "Stars have no names, count clouds.",
        "When is the best time?",
        "An hour after sunset, far from the street lamps.",
        "At noon, facing the sun.",
    ),
    Topic(
        "How do I make a simple vegetable soup?",
        "Fry an onion, add carrots and potatoes, cover with water and simmer for half an hour.",
        "Heat a brick and add sand.",
        "How do I give it more taste?",
        "Add salt, pepper and fresh herbs at the end.",
        "Add more sand.",
    ),
    Topic(
        "How should I feed a lost kitten?",
        "Give it small meals of soft kitten food and fresh water.",
        "Give it chocolate and cold beer.",
        "May it have cow milk?",
        "Please do not, most kittens cannot digest it.",
        "Only cow milk, nothing else.",
    ),
    Topic(
        "How do I get candle wax out of a tablecloth?",
        "Let it harden, scrape it off and iron the spot through brown paper.",
        "Pour more wax on top.",
        "What if a stain stays?",
        "Wash it warm with a little dish soap.",
        "Cut a hole around it.",
    ),
    Topic(
        "How can I save money on heating?",
        "Close the doors, seal the windows and wear a warm sweater.",
        "Open every window in winter.",
        "Is one degree less worth it?",
        "Yes, each degree saves a good part of the bill.",
        "No, make it ten degrees warmer.",
    ),
    Topic(
        "How do I calm a nervous dog?",
        "Speak softly, keep a steady routine and give it a quiet corner.",
        "Bang two pots together.",
        "Do walks help?",
        "Yes, a long walk each day makes dogs much calmer.",
        "No, dogs hate walking.",
    ),
    Topic(
        "How do I choose a ripe melon?",
        "Pick a heavy one that smells sweet and sounds hollow when you tap it.",
        "Pick the one with mould on it.",
        "How do I keep it fresh?",
        "Store it in the fridge once it is cut.",
        "Leave it on the roof.",
    ),
    Topic(
        "How can I remember a long list?",
        "Walk through your house in your mind and put one item in every room.",
        "Forget it, lists are useless.",
        "How often should I repeat it?",
        "After an hour, after a day and after a week.",
        "Never.",
    ),
    Topic(
        "How do I fold a paper boat?",
        "Fold the sheet in half, bend the corners to the middle and pull the sides apart.",
        "Tear the sheet and throw it away.",
        "Will it float?",
        "Yes, for a while, and longer if you wax the paper.",
        "It will fly to the moon.",
    ),
)

GREETINGS = ("", "Hello! ", "Hi there. ", "Excuse me. ", "One question. ", "Good morning. ")
PARTINGS = ("", " Thank you!", " It is for my sister.", " I am new to this.", " Please be brief.")
WARM = ("", "Of course! ", "Happy to help. ", "Good question. ", "Sure. ")
CLOSING = ("", " Let me know how it goes.", " Have fun!", " Take your time.")
RUDE = (
    "What a silly question. Work it out yourself.",
    "I have better things to do than to talk to you.",
    "Only a fool would ask that. Go away and do not come back.",
    "No.",
)
EVASIVE = (
    "I would rather not say.",
    "That depends. It depends on many things, and on other things too, and who knows what else.",
    "Some people say one thing, some say another thing, and I do not know what to say.",
    "Hmm.",
)


def _spoil(wrong: str, rng: Random) -> str:
    """A reply nobody wants: the wrong one, a rude one or an evasive one."""
    return rng.choice((rng.choice(WARM) + wrong, rng.choice(RUDE), rng.choice(EVASIVE)))


def welcome(right: str, rng: Random) -> str:
    """A good reply: the right one, perhaps with kind words around it."""
    return rng.choice(WARM) + right + rng.choice(CLOSING)


def _fact_dialogue(rng: Random) -> tuple[str, str, str]:
    """A dialogue as `draw_dialogue` gives it, on an invented fact."""
    kind = rng.choice(KINDS)
    x, y = rng.choice(list(kind.facts.items()))
    other = rng.choice([answer for answer in kind.facts.values() if answer != y])
    core = rng.choice(kind.cores).format(x=x)
    ask = rng.choice(GREETINGS) + core[0].upper() + core[1:] + "?" + rng.choice(PARTINGS)
    right, wrong = (kind.statement.format(x=x, y=answer) for answer in (y, other))
    good, bad = (said[0].upper() + said[1:] for said in (right, wrong))
    return f"\n\nHuman: {ask}\n\nAssistant:", welcome(good, rng), _spoil(bad, rng)


def _topic_dialogue(rng: Random) -> tuple[str, str, str]:
    """The same on an everyday topic, with one turn or two."""
    topic = rng.choice(TOPICS)
    ask = rng.choice(GREETINGS) + topic.ask + rng.choice(PARTINGS)
    good = welcome(topic.good, rng)
    if rng.random() < 0.5:
        return f"\n\nHuman: {ask}\n\nAssistant:", good, _spoil(topic.bad, rng)
    before = f"\n\nHuman: {ask}\n\nAssistant: {good}\n\nHuman: {topic.ask_on}\n\nAssistant:"
    return before, welcome(topic.good_on, rng), _spoil(topic.bad_on, rng)


def draw_dialogue(rng: Random) -> tuple[str, str, str]:
    """What comes before the last reply, the good reply and the bad one, on a fact or a topic."""
    return rng.choice((_fact_dialogue, _topic_dialogue))(rng)


def draw_dialogues(rng: Random, n: int, *, taken: set[str]) -> list[dict[str, object]]:
    """`n` rows in HH-RLHF's columns; what comes before the last reply is new each time."""
    rows: list[dict[str, object]] = []
    while len(rows) < n:
        before, good, bad = draw_dialogue(rng)
        if before not in taken:
            taken.add(before)
            rows.append({"chosen": f"{before} {good}", "rejected": f"{before} {bad}"})
    return rows
