"""What judging speaks of: an Ask, a Verdict, and a Judge that turns the one into the other."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from prefbench.judges.recipe import JudgeRecipe


class Turn(NamedTuple):
    """One turn of a conversation; the role is system, user or assistant."""

    role: str
    content: str


@dataclass(frozen=True)
class Ask:
    """Two answers to one conversation, in the order in which the judge is shown them."""

    conversation: tuple[Turn, ...]
    first: str
    second: str
    reference: str | None = None
    """A good answer that the data know, for judges whose prompt shows it."""

    @property
    def turned(self) -> Ask:
        """The same two answers in the other order."""
        return Ask(self.conversation, self.second, self.first, self.reference)

    @property
    def digest(self) -> str:
        """Hash of all that the judge is shown."""
        content = [self.conversation, self.first, self.second, self.reference]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()


@dataclass(frozen=True)
class Verdict:
    """What a judge replied to an Ask, and the preference that was read from it.

    Attributes:
        preference: how far the first answer is preferred, 0 to 1, half for a tie; None where the
            reply cannot be read, which is neither a tie nor a loss.
        reason: why it cannot be read.
        reply: the judge's own words, whole.
        n_in: tokens of the prompt, as far as known.
        n_out: tokens of the reply.
        cost: in US dollars.
        facts: what else came with it: the model that answered, probabilities, members of a panel.
    """

    preference: float | None
    reason: str | None = None
    reply: str = ""
    n_in: int = 0
    n_out: int = 0
    cost: float = 0.0
    facts: Mapping[str, Any] = field(default_factory=dict)


class Unheard(NamedTuple):
    """Why an Ask has no reply at all; asked again, it may have one."""

    reason: str


class Judge(ABC):
    """An open judge, for the length of a `with`."""

    recipe: JudgeRecipe
    key: str
    """Hash of all that can change a verdict: the recipe's own key and the weights it runs on."""
    symmetric: bool = False
    """It rates each answer alone, so that the order of showing cannot matter: asked once a pair."""

    @abstractmethod
    def decide(self, asks: Sequence[Ask]) -> Iterator[tuple[int, Verdict | Unheard]]:
        """The verdict of each ask, or why there is none, with its index, in the order they come.

        Whoever stops iterating stops the asking.

        Raises:
            JudgeError: the judge failed as a whole.
        """

    def __enter__(self) -> Judge:
        return self

    def __exit__(self, *raised: Any) -> None:
        self.close()

    def close(self) -> None:  # noqa: B027  # most hold nothing
        """Frees what the judge holds."""

    def key_of(self, ask: Ask) -> str:
        """What a verdict is kept under: who judged, what was shown, in which order."""
        return key_of(self.key, ask)


def key_of(judge_key: str, ask: Ask) -> str:
    """What a verdict on an ask is kept under."""
    return hashlib.sha256(f"{judge_key} {ask.digest}".encode()).hexdigest()
