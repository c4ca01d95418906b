"""What people do next: everyday scenes with four endings, in HellaSwag's columns."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

PEOPLE: Mapping[str, str] = {
    "Ada": "she", "Bruno": "he", "Clara": "she", "Dario": "he", "Elsa": "she", "Felix": "he",
    "Greta": "she", "Hugo": "he", "Ines": "she", "Jonas": "he", "Kira": "she", "Lionel": "he",
    "A woman": "she", "A man": "he", "The neighbour": "she", "The old sailor": "he",
}  # fmt: skip

MOMENTS = (
    "", "It is early morning. ", "The rain has stopped. ", "Music plays on the radio. ",
    "It is a quiet Sunday. ", "Two friends are watching. ", "The sun is going down. ",
)  # fmt: skip

ACTIVITIES: Mapping[str, tuple[tuple[str, tuple[str, str]], ...]] = {
    "Baking bread": (
        ("mixes flour, salt and water in a bowl.",
         ("kneads the dough on the table.", "works the dough with both hands.")),
        ("takes a hot loaf out of the oven.",
         ("lets the bread cool on a rack.", "cuts a warm slice of bread.")),
    ),
    "Planting a tree": (
        ("digs a deep hole in the garden.",
         ("sets the young tree into the ground.", "lowers the roots into the hole.")),
        ("presses the earth around the small trunk.",
         ("waters the tree with a can.", "ties the trunk to a stake.")),
    ),
    "Fixing a bicycle": (
        ("turns the bicycle upside down.",
         ("takes the flat tyre off the wheel.", "spins the wheel and looks for the hole.")),
        ("pumps air into the new tyre.",
         ("rides the bicycle around the yard.", "rings the bell and rides off.")),
    ),
    "Painting a fence": (
        ("opens a tin of white paint.",
         ("dips the brush and paints the first board.", "stirs the paint with a stick.")),
        ("has painted the last board of the fence.",
         ("washes the brush with soap.", "hangs up a sign that says wet paint.")),
    ),
    "Making tea": (
        ("fills the kettle and puts it on the stove.",
         ("waits until the water boils.", "puts two spoons of leaves into the pot.")),
        ("pours the tea into a cup.",
         ("adds a little honey and stirs.", "blows on the tea and takes a sip.")),
    ),
    "Washing the dog": (
        ("fills a tub with warm water and calls the dog.",
         ("lifts the dog into the tub.", "rubs soap into the fur.")),
        ("rinses the soap off the wet dog.",
         ("dries the dog with a big towel.", "laughs as the dog shakes itself.")),
    ),
    "Flying a kite": (
        ("unrolls the string on a windy hill.",
         ("throws the kite into the wind.", "runs until the kite rises.")),
        ("feels the wind grow weak.",
         ("winds the string in before the kite falls.", "catches the kite as it comes down.")),
    ),
    "Mending a shirt": (
        ("finds a hole in the sleeve of a shirt.",
         ("chooses a thread of the same colour.", "threads a needle by the window.")),
        ("pulls the last stitch tight.",
         ("cuts the thread and puts on the shirt.", "folds the mended shirt.")),
    ),
    "Posting a letter": (
        ("writes the last line and signs the page.",
         ("folds the page into an envelope.", "writes the address on the envelope.")),
        ("sticks a stamp on the envelope.",
         ("drops the letter into the box.", "walks to the post office.")),
    ),
    "Lighting a campfire": (
        ("gathers dry sticks in the forest.",
         ("builds a small pile and strikes a match.", "lays the sticks in a ring of stones.")),
        ("sees that the fire burns well.",
         ("warms both hands over the flames.", "hangs a pot of soup over the fire.")),
    ),
    "Catching a fish": (
        ("puts bait on the hook and casts the line.",
         ("sits down and watches the float.", "waits for the float to move.")),
        ("feels a strong pull on the line.",
         ("reels in a shining fish.", "lifts the fish out with a net.")),
    ),
    "Taking the train": (
        ("buys a ticket at the counter.",
         ("looks for the right platform.", "waits on the platform for the train.")),
        ("finds a free seat by the window.",
         ("puts the suitcase on the rack.", "shows the ticket to the conductor.")),
    ),
}  # fmt: skip


def everyday_row(rng: Random) -> dict[str, object]:
    """A row in HellaSwag's columns: one ending fits, one is from the activity's other scene."""
    activity = rng.choice(list(ACTIVITIES))
    scenes = ACTIVITIES[activity]
    here = rng.randrange(len(scenes))
    doing, fitting = scenes[here]
    person = rng.choice(list(PEOPLE))
    elsewhere = [other for other in ACTIVITIES if other != activity]
    wrong = [rng.choice(scenes[1 - here][1])]
    wrong += [rng.choice(rng.choice(ACTIVITIES[other])[1]) for other in rng.sample(elsewhere, 2)]
    right = rng.choice(fitting)
    endings = [right, *wrong]
    rng.shuffle(endings)
    return {
        "activity_label": activity,
        "ctx_a": f"{rng.choice(MOMENTS)}{person} {doing}",
        "ctx_b": PEOPLE[person],
        "endings": endings,
        "label": str(endings.index(right)),
    }


def draw_everyday(rng: Random, n: int, *, taken: set[str]) -> list[dict[str, object]]:
    """`n` rows whose beginnings are not in `taken`; the beginnings are added to it."""
    rows: list[dict[str, object]] = []
    while len(rows) < n:
        row = everyday_row(rng)
        if (beginning := f"{row['activity_label']}: {row['ctx_a']}") not in taken:
            taken.add(beginning)
            rows.append(row)
    return rows
